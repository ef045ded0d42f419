"""What is trained within one stream: the tunings, listed in the dict at the foot of this file, and their parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from avtune.backbones import Tower
from avtune.options import OptionError, choose, chosen
from avtune.tuning.adapter import PRESETS as ADAPTER_PRESETS
from avtune.tuning.adapter import build_adapter
from avtune.tuning.base import BlockTuning, BoundBlock, Stream, Tuning, TuningError, by_stream
from avtune.tuning.bottleneck import Bottleneck, GroupedLinear, TokenBatchNorm, statistics_kept
from avtune.tuning.compacter import PRESETS as COMPACTER_PRESETS
from avtune.tuning.compacter import build_compacter
from avtune.tuning.lora import PRESETS as LORA_PRESETS
from avtune.tuning.lora import build_lora
from avtune.tuning.norms import free_norms
from avtune.tuning.prompts import PRESETS as PROMPT_PRESETS
from avtune.tuning.prompts import build_prompts
from avtune.tuning.whole import PRESETS as OWN_PRESETS
from avtune.tuning.whole import build_full, build_norms

__all__ = [
    "TUNINGS",
    "BlockTuning",
    "Bottleneck",
    "BoundBlock",
    "GroupedLinear",
    "Stream",
    "TokenBatchNorm",
    "Tuning",
    "TuningError",
    "TuningMethod",
    "build_tuning",
    "free_norms",
    "statistics_kept",
]


@dataclass(frozen=True)
class TuningMethod:
    """An entry of the table of tunings.

    Attributes:
        title: What it is, in a line.
        paper: Where it is published.
        build: Makes its parts for the towers of sound and frames under given settings.
        presets: Named settings; the first is the default.
    """

    title: str
    paper: str
    build: Callable[[Tower, Tower, Any], Tuning]
    presets: Mapping[str, Any]


def build_tuning(
    name: str | None,
    audio_tower: Tower,
    video_tower: Tower,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tuning:
    """A tuning for two towers, which may be one.

    Args:
        name: Key of ``TUNINGS``; ``None``: nothing is trained within the streams.
        audio_tower: Tower of the sound.
        video_tower: Tower of the frames.
        preset: Key of the tuning's presets; ``None``: its first.
        options: Settings that differ from the preset.

    Raises:
        OptionError: If a name is unknown or a value does not fit.
        TuningError: If the tuning does not fit the towers.
    """
    if name is None:
        if preset or options:
            raise OptionError("a preset or options of a tuning are given, but no tuning; name one")
        return Tuning(by_stream(audio_tower, video_tower, False, lambda block: BlockTuning()))
    method = choose("tuning", name, TUNINGS)
    return method.build(audio_tower, video_tower, chosen(name, method.presets, preset, options))


TUNINGS: dict[str, TuningMethod] = {
    "adapter": TuningMethod(
        "a bottleneck behind or beside each branch", "Houlsby et al., ICML 2019", build_adapter,
        ADAPTER_PRESETS,
    ),
    "compacter": TuningMethod(
        "adapters made of sums of Kronecker products", "Karimi Mahabadi et al., NeurIPS 2021",
        build_compacter, COMPACTER_PRESETS,
    ),
    "lora": TuningMethod(
        "low-rank updates of the frozen projections", "Hu et al., ICLR 2022", build_lora, LORA_PRESETS
    ),
    "prompts": TuningMethod(
        "trained tokens beside a stream's own", "Jia et al., ECCV 2022", build_prompts, PROMPT_PRESETS
    ),
    "norms": TuningMethod("the towers' norms are trained", "", build_norms, OWN_PRESETS),
    "full": TuningMethod("all of the towers is trained", "", build_full, OWN_PRESETS),
}  # fmt: skip
