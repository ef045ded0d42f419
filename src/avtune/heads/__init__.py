"""What turns encoded streams into outputs, one file per head, listed in the dict at the foot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from avtune.config import HeadConfig
from avtune.errors import AvtuneError
from avtune.fusion.base import Notes
from avtune.heads.avel import PRESETS as AVEL_PRESETS
from avtune.heads.avel import avel_loss, build_avel
from avtune.heads.cmbs import PRESETS as CMBS_PRESETS
from avtune.heads.cmbs import build_cmbs, cmbs_loss
from avtune.heads.dg_sct import PRESETS as DG_SCT_PRESETS
from avtune.heads.dg_sct import build_dg_sct_head
from avtune.heads.localization import SegmentHead, build_segment_head, segment_loss
from avtune.heads.ma_avt import PRESETS as MA_AVT_PRESETS
from avtune.heads.ma_avt import build_ma_avt_head, ma_avt_loss
from avtune.heads.mbt import PRESETS as MBT_PRESETS
from avtune.heads.mbt import build_mbt_head, mbt_loss
from avtune.heads.psp import PRESETS as PSP_PRESETS
from avtune.heads.psp import build_psp, psp_loss
from avtune.options import choose

__all__ = ["HEADS", "Head", "SegmentHead", "head_of"]


@dataclass(frozen=True)
class Head:
    """An entry of the table of event localization heads.

    Every head maps :class:`avtune.encoder.Encoded` to class logits (batch, T, classes), background last: their
    softmax is its probabilities, their largest its answer. What its loss reads beyond them it leaves in the notes.

    Attributes:
        title: What it is, in a line.
        paper: Where it is published.
        build: Makes it from the channels of sound and frames, the number of classes and the recipe's section.
        loss: From logits, notes, class indices (batch, T), valid segments (batch, T) and the recipe's section to
            the sum over the valid segments.
        presets: Named settings; the first is the default.
    """

    title: str
    paper: str
    build: Callable[[int, int, int, HeadConfig], nn.Module]
    loss: Callable[[Tensor, Notes, Tensor, Tensor, HeadConfig], Tensor]
    presets: Mapping[str, Any]


def head_of(config: HeadConfig) -> Head:
    """The head that a recipe names.

    Raises:
        avtune.errors.AvtuneError: There is no such head or preset, or ``loss`` or ``dropout`` is stated for a head that
            brings its own.
    """
    head = choose("head", config.name, HEADS)
    if config.preset is not None:
        choose(f"preset of {config.name}", config.preset, head.presets)
    if config.name != "segment":
        for setting in ("loss", "dropout"):
            if (value := getattr(config, setting)) != getattr(HeadConfig(), setting):
                raise AvtuneError(
                    f"head.{setting} {value} is of the head 'segment', while {config.name} brings its own; leave "
                    f"head.{setting} out"
                )
    return head


HEADS: dict[str, Head] = {
    "segment": Head(
        "both pooled streams through two linear layers, each segment for itself",
        "Lin et al., CVPR 2023",
        build_segment_head,
        segment_loss,
        {"paper": None},
    ),
    "avel": Head(
        "audio-guided attention and bidirectional LSTMs",
        "Tian et al., ECCV 2018",
        build_avel,
        avel_loss,
        AVEL_PRESETS,
    ),
    "psp": Head(
        "segments of both streams that agree exchange what they hold",
        "Zhou et al., CVPR 2021",
        build_psp,
        psp_loss,
        PSP_PRESETS,
    ),
    "cmbs": Head(
        "gates suppress what one stream takes for background; relevance and class answered apart",
        "Xia and Zhao, CVPR 2022",
        build_cmbs,
        cmbs_loss,
        CMBS_PRESETS,
    ),
    "ma_avt": Head(
        "classes from the foreground tokens, behind a gate that the background tokens close",
        "Mahmud et al., CVPRW 2024",
        build_ma_avt_head,
        ma_avt_loss,
        MA_AVT_PRESETS,
    ),
    "mbt": Head(
        "one linear layer for both streams, on the mean of all tokens or on each stream's own vector",
        "Nagrani et al., NeurIPS 2021",
        build_mbt_head,
        mbt_loss,
        MBT_PRESETS,
    ),
    "dg_sct": Head(
        "both streams under their last spatial maps, through time, each gating the other; then CMBS's answer",
        "Duan et al., NeurIPS 2023",
        build_dg_sct_head,
        cmbs_loss,
        DG_SCT_PRESETS,
    ),
}
