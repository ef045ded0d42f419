"""Bottleneck adapters at the two branches of each frozen block (Houlsby et al., ICML 2019, and its relatives)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from avtune.backbones import FrozenBlock, Tower
from avtune.tuning.base import Tuning, by_stream
from avtune.tuning.beside import ModuleBeside, Placement, Sites
from avtune.tuning.bottleneck import Bottleneck, UpStart


@dataclass(frozen=True)
class AdapterConfig:
    """Settings of the adapters: ``A(x) = W_up relu(W_down x + b_down) + b_up``, d -> d/r -> d.

    Attributes:
        placement: ``serial``: behind the branch, reading its output; ``parallel``: beside it, reading its input.
        sites: At which branches: ``both``, ``attention`` or ``mlp``.
        reduction: Ratio r of the bottleneck.
        groups: Groups of both projections.
        bias: Whether the projections have a bias.
        relu: Whether there is an activation between them; without it the adapter is a linear map of low rank.
        up_start: ``zero``: the adapter adds nothing at the start; ``random``: PyTorch's own start.
        scale: Factor on what the adapter adds.
        batch_norm: BatchNorm after each projection.
        norm_before: LayerNorm before the bottleneck.
        norm_after: LayerNorm after the bottleneck.
        gate: Multiply by a trained scalar that starts at zero.
        train_norms: Train the towers' norms too.
        shared: Both streams, over one tower, train the same adapters.
    """

    placement: Placement = "serial"
    sites: Sites = "both"
    reduction: int = 8
    groups: int = 1
    bias: bool = True
    relu: bool = True
    up_start: UpStart = "zero"
    scale: float = 1.0
    batch_norm: bool = False
    norm_before: bool = False
    norm_after: bool = False
    gate: bool = False
    train_norms: bool = False
    shared: bool = False


HOULSBY = AdapterConfig(train_norms=True)
PARALLEL = AdapterConfig(placement="parallel")
LAVISH = AdapterConfig(
    placement="parallel", groups=2, bias=False, up_start="random", batch_norm=True, norm_before=True,
    norm_after=True, gate=True,
)  # fmt: skip
PRESETS = {
    "houlsby": HOULSBY,
    "parallel": PARALLEL,
    "adaptformer": replace(PARALLEL, sites="mlp", reduction=12, scale=0.1),
    "lavish": LAVISH,
    "lavish_table_5": replace(LAVISH, reduction=16, groups=1, batch_norm=False),
    "lavish_table_5_lora": replace(LAVISH, groups=1, relu=False),
}


def build_adapter(audio_tower: Tower, video_tower: Tower, config: AdapterConfig) -> Tuning:
    """Adapters for each block of each stream.

    Args:
        audio_tower: Tower of the sound.
        video_tower: Tower of the frames; may be the same.
        config: Settings.

    Raises:
        TuningError: Streams of two towers are to share their adapters.
    """

    def bottleneck(dim: int) -> Bottleneck:
        return Bottleneck(
            dim,
            reduction=config.reduction,
            groups=config.groups,
            batch_norm=config.batch_norm,
            norm_before=config.norm_before,
            norm_after=config.norm_after,
            gate=config.gate,
            relu=config.relu,
            bias=config.bias,
            up_start=config.up_start,
        )

    def make(block: FrozenBlock) -> ModuleBeside:
        attention = bottleneck(block.dim) if config.sites != "mlp" else None
        mlp = bottleneck(block.dim) if config.sites != "attention" else None
        return ModuleBeside(attention, mlp, config.placement, config.scale)

    return Tuning(by_stream(audio_tower, video_tower, config.shared, make), train_norms=config.train_norms)
