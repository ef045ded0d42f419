"""The DG-SCT authors' state dicts under avtune's names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from avtune.interop import lavish
from avtune.interop.lavish import ConversionError

NAMES = {
    "conv_adapter": "prompt.count",
    "fc": "prompt.width",
    # "video" and "audio" mean this stream and the other one, in the sound's adapters too.
    "fc_affine_audio_1": "guidance.channel_prompt",
    "fc_affine_video_1": "guidance.channel_own",
    "fc_affine_bottleneck": "guidance.channel_down",
    "fc_affine_v_c_att": "guidance.channel_up",
    "fc_affine_audio_2": "guidance.spatial_prompt",
    "fc_affine_video_2": "guidance.spatial_own",
    "fc_affine_v_s_att": "guidance.spatial_score",
}
# In the authors' AVS code, computed and then used for nothing.
WITHOUT_EFFECT = {"temporal_gated"}
SITES = {
    "audio_adapter_blocks_p1": "audio_first",
    "audio_adapter_blocks_p2": "audio_second",
    "vis_adapter_blocks_p1": "video_first",
    "vis_adapter_blocks_p2": "video_second",
}


def adapter_from_official(state: Mapping[str, Tensor], wanted: set[str] | None = None) -> dict[str, Tensor]:
    """One ``VisualAdapter`` of the authors' code as a ``DgSctAdapter``.

    Args:
        state: Its state dict.
        wanted: Names that the receiving adapter has; others are dropped, since the authors' code saves what some
            of its settings never use. ``None``: keep all.

    Returns:
        The same tensors under avtune's names; 1x1 convolutions as matrices.

    Raises:
        ConversionError: A name is unknown.
    """
    converted: dict[str, Tensor] = {}
    inside: dict[str, Tensor] = {}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part in WITHOUT_EFFECT:
            continue
        if part in NAMES:
            converted[f"{NAMES[part]}.{rest}"] = value.flatten(1) if name == "conv_adapter.weight" else value
        else:
            inside[name] = value
    converted |= {f"lavish.{name}": value for name, value in lavish.adapter_from_official(inside).items()}
    return converted if wanted is None else {name: converted[name] for name in converted if name in wanted}


def fusion_from_official(state: Mapping[str, Tensor], wanted: set[str] | None = None) -> dict[str, Tensor]:
    """All adapters of an authors' model as the state of a DG-SCT ``Fusion``.

    Args:
        state: The whole model's state dict; what is no adapter is passed over.
        wanted: Names that the receiving fusion has (its ``state_dict`` keys); ``None``: keep all.

    Returns:
        Names ``layers.<pair>.<site>.<weight>``; the authors number the pairs of blocks, not the blocks.

    Raises:
        ConversionError: There is no adapter in it.
    """
    adapters = lavish.adapters_by_site(state, SITES)
    if not any("conv_adapter.weight" in part for part in adapters.values()):
        raise ConversionError(
            "this state dict holds no DG-SCT adapter (names like vis_adapter_blocks_p1.0.conv_adapter.weight)"
        )
    return lavish.joined(adapters, adapter_from_official, wanted)
