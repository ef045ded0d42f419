"""What is trained within one stream: the parts that know nothing of the other modality."""

from avtune.tuning.bottleneck import Bottleneck, GroupedLinear, TokenBatchNorm, statistics_kept

__all__ = ["Bottleneck", "GroupedLinear", "TokenBatchNorm", "statistics_kept"]
