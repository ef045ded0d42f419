"""The MA-AVT authors' state dicts under avtune's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from avtune.interop.checkpoints import matched
from avtune.interop.lavish import ConversionError

# In the authors' code, made and saved but without effect.
WITHOUT_EFFECT = re.compile(r"^logit_scale(\.\d+)?$")
GROUPS = {"audio": "audio", "visual": "video", "vis": "video", "shared": "shared"}
TOKENS = re.compile(r"^(audio|visual|shared)_tokens$")
ATTENTION = re.compile(r"^(audio|visual|shared)_attn\.((?:qkv|proj)\.(?:weight|bias))$")
CONTRAST = re.compile(r"^cnt_(audio|visual)_token$")
PROJECTION = re.compile(r"^(audio|vis)_proj(?:\.(\d+))?\.(weight|bias)$")
CLASSIFIER = re.compile(r"^(fg|bg)_class\.(weight|bias)$")
TOWER = re.compile(r"^ViT\.v\.(.+)$")


def fusion_from_official(state: Mapping[str, Tensor], wanted: set[str] | None = None) -> dict[str, Tensor]:
    """An MA-AVT model of the authors' code as the state of avtune's method of that name.

    Args:
        state: The whole model's state dict; tower and classifiers are passed over.
        wanted: Names that the receiving method has (its ``state_dict`` keys); others are dropped, since the
            authors' code saves modules that some of its settings never use. ``None``: keep all.

    Returns:
        The same tensors under avtune's names.

    Raises:
        ConversionError: A name is unknown.
    """
    converted: dict[str, Tensor] = {}
    for official, value in state.items():
        name = official.removeprefix("module.")
        if WITHOUT_EFFECT.match(name) or TOWER.match(name) or CLASSIFIER.match(name):
            continue
        ours = _method_name(name)
        if ours is None:
            raise ConversionError(f"{official!r} is no weight of MA-AVT; is this checkpoint MA-AVT's?")
        if wanted is None or ours in wanted:
            converted[ours] = value
    return converted


def head_from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The two classifiers of an authors' model as the state of :class:`avtune.heads.ma_avt.MaAvtHead`.

    Args:
        state: The whole model's state dict.

    Raises:
        ConversionError: There is no classifier in it.
    """
    return matched(
        state, CLASSIFIER,
        lambda match: f"{'foreground' if match[1] == 'fg' else 'background'}.classes.{match[2]}",
        "this state dict holds no classifier of MA-AVT (names like fg_class.weight)",
    )  # fmt: skip


def tower_from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ViT inside an authors' model, trained class token included, under timm's names.

    Args:
        state: The whole model's state dict.
    """
    return {
        match[1]: value
        for name, value in state.items()
        if (match := TOWER.match(name.removeprefix("module.")))
    }


def _method_name(name: str) -> str | None:
    if match := TOKENS.match(name):
        return f"prompts.{GROUPS[match[1]]}"
    if match := ATTENTION.match(name):
        return f"prompts.{GROUPS[match[1]]}_attention.{match[2]}"
    if match := CONTRAST.match(name):
        return f"contrast_tokens.{GROUPS[match[1]]}"
    if match := PROJECTION.match(name):
        return f"contrast.{GROUPS[match[1]]}.{match[2] or 0}.{match[3]}"
    return "background.both" if name == "bg_cls_token" else None
