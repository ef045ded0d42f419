"""The methods: one file each, listed in the dict at the foot of this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from avtune.fusion.base import Block, BlockPairs, BlockSizes, Fusion, FusionLayer, Notes
from avtune.fusion.cma import PRESETS as CMA_PRESETS
from avtune.fusion.cma import build_cma
from avtune.fusion.copl import PRESETS as COPL_PRESETS
from avtune.fusion.copl import build_copl
from avtune.fusion.dg_sct import PRESETS as DG_SCT_PRESETS
from avtune.fusion.dg_sct import build_dg_sct
from avtune.fusion.frozen import PRESETS as FROZEN_PRESETS
from avtune.fusion.frozen import build_frozen
from avtune.fusion.lavish import PRESETS as LAVISH_PRESETS
from avtune.fusion.lavish import build_lavish
from avtune.fusion.ma_avt import PRESETS as MA_AVT_PRESETS
from avtune.fusion.ma_avt import build_ma_avt
from avtune.fusion.mbt import PRESETS as MBT_PRESETS
from avtune.fusion.mbt import build_mbt
from avtune.fusion.stg_cma import PRESETS as STG_CMA_PRESETS
from avtune.fusion.stg_cma import build_stg_cma
from avtune.options import OptionError, choose, chosen

__all__ = [
    "METHODS",
    "Block",
    "BlockPairs",
    "BlockSizes",
    "Fusion",
    "FusionLayer",
    "Method",
    "Notes",
    "OptionError",
    "build_fusion",
]


@dataclass(frozen=True)
class Method:
    """An entry of the table of methods.

    Attributes:
        title: What it is, in a line.
        paper: Where it is published.
        build: Makes the layers for the paired blocks under given settings.
        presets: Named settings; the first is the default.
    """

    title: str
    paper: str
    build: Callable[[BlockPairs, Any], Fusion]
    presets: Mapping[str, Any]


def build_fusion(
    name: str, pairs: BlockPairs, preset: str | None = None, options: Mapping[str, Any] | None = None
) -> Fusion:
    """A method for the given pairs of blocks.

    Args:
        name: Key of ``METHODS``.
        pairs: Sizes of the paired blocks, in the order of the walk.
        preset: Key of the method's presets; ``None``: its first.
        options: Settings that differ from the preset.

    Raises:
        OptionError: If a name is unknown or a value does not fit.
    """
    method = choose("method", name, METHODS)
    return method.build(pairs, chosen(name, method.presets, preset, options))


METHODS: dict[str, Method] = {
    "lavish": Method(
        "latent tokens carry cues between the streams, inside bottleneck adapters",
        "Lin et al., CVPR 2023",
        build_lavish,
        LAVISH_PRESETS,
    ),
    "stg_cma": Method(
        "frozen attention turned along time, adapters that compare the streams in space and as a whole",
        "Wang et al., 2024",
        build_stg_cma,
        STG_CMA_PRESETS,
    ),
    "copl": Method(
        "prompts of each stream, and prompts that both choose from a bank, as extra keys and values",
        "Zhao et al., MM 2024",
        build_copl,
        COPL_PRESETS,
    ),
    "ma_avt": Method(
        "tokens of each stream and shared ones; what the shared ones gather is contrasted behind every block",
        "Mahmud et al., CVPRW 2024",
        build_ma_avt,
        MA_AVT_PRESETS,
    ),
    "mbt": Method(
        "two transformers, trained as a whole, that exchange what fits through a few bottleneck tokens",
        "Nagrani et al., NeurIPS 2021",
        build_mbt,
        MBT_PRESETS,
    ),
    "cma": Method(
        "LAVISH's latent attention alone, in front of whatever the streams train (tuning)",
        "Lin et al., CVPR 2023, Table 5",
        build_cma,
        CMA_PRESETS,
    ),
    "dg_sct": Method(
        "each stream guides the other: which channels and which tokens to strengthen",
        "Duan et al., NeurIPS 2023",
        build_dg_sct,
        DG_SCT_PRESETS,
    ),
    "frozen": Method(
        "nothing between the towers; the head alone is trained", "", build_frozen, FROZEN_PRESETS
    ),
}
