"""The LAVISH authors' state dicts under avtune's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from avtune.errors import AvtuneError

NAMES = {
    "my_tokens": "latents",
    "gate_av": "fusion_gate",
    "gate": "bottleneck.gate",
    "down_sampler": "bottleneck.down",
    "up_sampler": "bottleneck.up",
    "bn1": "bottleneck.norm_down",
    "bn2": "bottleneck.norm_up",
    "ln_before": "bottleneck.norm_before",
    "ln_post": "bottleneck.norm_after",
}
# In the authors' code, made and saved but without effect.
WITHOUT_EFFECT = {"gate_tk"}
SITES = {
    "audio_adapter_blocks_p1": "audio_attention",
    "audio_adapter_blocks_p2": "audio_mlp",
    "vis_adapter_blocks_p1": "video_attention",
    "vis_adapter_blocks_p2": "video_mlp",
}


class ConversionError(AvtuneError):
    """A state dict that is not the kind it is taken for."""


def adapter_from_official(state: Mapping[str, Tensor], wanted: set[str] | None = None) -> dict[str, Tensor]:
    """One ``VisualAdapter`` of the authors' code as a ``LavishAdapter``.

    Args:
        state: Its state dict.
        wanted: Names that the receiving adapter has; others are dropped, since the authors' code saves norms
            and latents that some of its settings never use. ``None``: keep all.

    Returns:
        The same tensors under avtune's names; 1x1 convolutions as matrices.

    Raises:
        ConversionError: A name is unknown.
    """
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part in WITHOUT_EFFECT:
            continue
        if part not in NAMES:
            raise ConversionError(f"{name!r} is no weight of a LAVISH adapter; is this checkpoint LAVISH's?")
        ours = f"{NAMES[part]}.{rest}" if rest else NAMES[part]
        if wanted is None or ours in wanted:
            converted[ours] = value.flatten(1) if part.endswith("_sampler") else value
    return converted


def fusion_from_official(state: Mapping[str, Tensor], wanted: set[str] | None = None) -> dict[str, Tensor]:
    """All adapters of an authors' model as the state of a LAVISH ``Fusion``.

    Args:
        state: The whole model's state dict; what is no adapter is passed over.
        wanted: Names that the receiving fusion has (its ``state_dict`` keys); ``None``: keep all.

    Returns:
        Names ``layers.<block>.<site>.<weight>``.

    Raises:
        ConversionError: There is no adapter in it.
    """
    adapters = adapters_by_site(state, SITES)
    if not adapters:
        raise ConversionError(
            "this state dict holds no LAVISH adapter (names like vis_adapter_blocks_p1.0.gate)"
        )
    return joined(adapters, adapter_from_official, wanted)


def adapters_by_site(state: Mapping[str, Tensor], sites: Mapping[str, str]) -> dict[str, dict[str, Tensor]]:
    """An authors' model taken apart into its adapters.

    Args:
        state: The whole model's state dict; what is no adapter is passed over.
        sites: avtune's name of each of the authors' lists of adapters.

    Returns:
        Weights by the authors' names, under ``layers.<number>.<site>``.
    """
    pattern = re.compile(rf"^(?:module\.)?({'|'.join(sites)})\.(\d+)\.(.+)$")
    adapters: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if match := pattern.match(name):
            site, number, weight = match.groups()
            adapters.setdefault(f"layers.{number}.{sites[site]}", {})[weight] = value
    return adapters


def joined(
    adapters: Mapping[str, Mapping[str, Tensor]],
    convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    wanted: set[str] | None,
) -> dict[str, Tensor]:
    """What :func:`adapters_by_site` gave as one state dict, each adapter converted; ``wanted`` as above."""
    converted = {
        f"{prefix}.{name}": value
        for prefix, part in adapters.items()
        for name, value in convert(part).items()
    }
    return converted if wanted is None else {name: converted[name] for name in converted if name in wanted}
