"""The STG-CMA authors' state dicts under avtune's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from avtune.interop.lavish import ConversionError

ADAPTERS_OF_VIT = {"T_Adapter": "temporal", "S_Adapter": "spatial_adapter", "MLP_Adapter": "global_adapter"}
# The same word means another stage in the authors' Swin.
ADAPTERS_OF_SWIN = {"T_Adapter": "temporal", "S_Adapter2": "spatial_adapter", "S_Adapter": "global_adapter"}
PROJECTIONS = {"D_fc1": "down", "D_fc2": "up"}
WEIGHTS = {
    "gate_v": "gates.video",
    "gate_a": "gates.audio",
    "attn.temporal_position_bias_table": "video_temporal.bias_table",
    "attn.temporal_position_bias_table_audio": "audio_temporal.bias_table",
}
EMBEDDINGS = {"temporal_embedding": "video_time", "temporal_embedding_audio": "audio_time"}
ADAPTER = re.compile(r"^((?:T|S|MLP)_Adapter2?)(_Audio)?\.(D_fc[12])\.(weight|bias)$")
BLOCK = re.compile(r"^(?:.*?\.)??(?:resblocks\.(\d+)|(?:layers\.(\d+)\.)?blocks\.(\d+))\.(.+)$")


def layer_from_official(state: Mapping[str, Tensor], wanted: set[str] | None = None) -> dict[str, Tensor]:
    """One block of the authors' code as an ``StgCmaLayer``.

    Args:
        state: The block's state dict; its frozen weights are passed over.
        wanted: Names that the receiving layer has; others are dropped, such as the gates that the authors' code
            saves where nothing is fused. ``None``: keep all.

    Returns:
        The same tensors under avtune's names.

    Raises:
        ConversionError: There is no adapter in it.
    """
    swin = any(name.startswith("S_Adapter2") for name in state)
    stages = ADAPTERS_OF_SWIN if swin else ADAPTERS_OF_VIT
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in WEIGHTS:
            converted[WEIGHTS[name]] = value
        elif match := ADAPTER.match(name):
            adapter, sound, projection, kind = match.groups()
            stream, stage = "audio" if sound else "video", stages[adapter]
            place = f"{stream}_temporal.adapter" if stage == "temporal" else f"{stage}.{stream}"
            converted[f"{place}.{PROJECTIONS[projection]}.{kind}"] = value
    if not any(name.endswith("down.weight") for name in converted):
        raise ConversionError("this state dict holds no STG-CMA adapter (names like S_Adapter.D_fc1.weight)")
    return converted if wanted is None else {name: converted[name] for name in converted if name in wanted}


def fusion_from_official(state: Mapping[str, Tensor], wanted: set[str] | None = None) -> dict[str, Tensor]:
    """All adapters, gates and temporal weights of an authors' model as the state of an STG-CMA ``Fusion``.

    Args:
        state: The whole model's state dict; frozen weights are passed over. So is ``ln_post``, which the authors
            train: it is the tower's final norm.
        wanted: Names that the receiving fusion has (its ``state_dict`` keys); ``None``: keep all.

    Returns:
        Names ``layers.<block>.<part>`` and the temporal embeddings.

    Raises:
        ConversionError: There is no adapter in it.
    """
    blocks: dict[tuple[int, int], dict[str, Tensor]] = {}
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        if ours := EMBEDDINGS.get(name.removeprefix("module.")):
            converted[ours] = value
        elif match := BLOCK.match(name):
            flat, stage, block, weight = match.groups()
            blocks.setdefault((int(stage or 0), int(flat or block or 0)), {})[weight] = value
    if not blocks:
        raise ConversionError(
            "this state dict holds no block of STG-CMA (names like resblocks.0 or blocks.0)"
        )
    for index, place in enumerate(sorted(blocks)):
        for name, value in layer_from_official(blocks[place]).items():
            converted[f"layers.{index}.{name}"] = value
    return converted if wanted is None else {name: converted[name] for name in converted if name in wanted}
