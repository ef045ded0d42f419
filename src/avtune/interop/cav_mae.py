"""The CAV-MAE authors' checkpoints under avtune's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from avtune.interop.avsiam import (
    BLOCK_NORM,
    MODALITIES,
    block_from_official,
    decoder_from_official,
    without_batch,
)
from avtune.interop.checkpoints import load_exactly, matched, read_checkpoint
from avtune.interop.lavish import ConversionError
from avtune.pretrain.backbone import Backbone, take_backbone
from avtune.pretrain.cav_mae import PRESETS, CavMae, CavMaeSettings

BACKBONE = "vit_base_patch16_224.mae"
STREAMS = {"a": "audio", "v": "video"}
BLOCK = re.compile(r"blocks_([avu])\.(\d+)\.(.+)")
FINAL = re.compile(r"norm(_a|_v)?\.(weight|bias)")
STEM = re.compile(r"(modality|pos_embed|patch_embed)_([av])(?:\.proj\.(weight|bias))?")
HEAD = re.compile(r"mlp_head\.(\d\.(?:weight|bias))")


def model_from_official(state: Mapping[str, Tensor], wanted: set[str] | None = None) -> dict[str, Tensor]:
    """A CAV-MAE of the authors' code as the state of :class:`avtune.pretrain.cav_mae.CavMae`.

    Args:
        state: The whole state dict; a classifier is passed over.
        wanted: Names that the receiving model has. Norms of blocks that are not among them are dropped: the authors'
            blocks save three pairs, whichever they use. ``None``: keep all.

    Returns:
        The same tensors under avtune's names.

    Raises:
        ConversionError: A name is unknown.
    """
    converted: dict[str, Tensor] = {}
    for official, value in state.items():
        name = official.removeprefix("module.")
        if HEAD.fullmatch(name):
            continue
        ours = _name(name) or decoder_from_official(name)
        if ours is None:
            raise ConversionError(f"{official!r} is no weight of CAV-MAE; is this checkpoint CAV-MAE's?")
        if wanted is None or ours in wanted or not BLOCK_NORM.search(ours):
            converted[ours] = without_batch(ours, value)
    return converted


def head_from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The classifier of a fine-tuned model, as the head of :class:`avtune.pretrain.classifiers.CavMaeClassifier`.

    Args:
        state: The whole state dict.

    Raises:
        ConversionError: There is none in it.
    """
    return matched(
        state, HEAD, lambda match: f"head.{match[1]}",
        "this state dict holds no classifier of CAV-MAE (names like mlp_head.1.weight)",
    )  # fmt: skip


def settings_from_official(state: Mapping[str, Tensor]) -> CavMaeSettings:
    """The released code's settings with the numbers of layers that the names tell.

    Args:
        state: The whole state dict.

    Raises:
        ConversionError: There are no joint layers or no decoder in it.
    """
    names = [name.removeprefix("module.") for name in state]
    joint = {match[2] for name in names if (match := BLOCK.fullmatch(name)) and match[1] == "u"}
    decoder = {match[1] for name in names if (match := re.match(r"decoder_blocks\.(\d+)\.", name))}
    widths = [value.numel() for name, value in state.items() if name.endswith("decoder_embed.bias")]
    if not joint or not decoder or not widths:
        raise ConversionError(
            "this state dict is no pretrained CAV-MAE (names like blocks_u.0.attn.qkv.weight and decoder_embed.bias)"
        )
    return replace(
        PRESETS["release"], joint_blocks=len(joint), decoder_depth=len(decoder), decoder_width=widths[0]
    )


def load_cav_mae(path: str | Path, backbone: Backbone | None = None) -> CavMae:
    """The pretrained model in a file that the authors published.

    Args:
        path: ``audio_model.25.pth`` or one of its form.
        backbone: A transformer of the shape of theirs; ``None``: a ViT-B/16.

    Raises:
        ConversionError: The file cannot be read, or holds another model; one line says what differs.
    """
    state = read_checkpoint(path)
    settings = settings_from_official(state)
    if backbone is None:
        backbone = take_backbone(BACKBONE, pretrained=False)
    model = CavMae(backbone, settings)
    load_exactly(
        model, model_from_official(state, set(model.state_dict())), str(path),
        f"give the backbone it was made with instead of {backbone.name}",
    )  # fmt: skip
    return model


def _name(name: str) -> str | None:
    if match := BLOCK.fullmatch(name):
        inside = block_from_official(match[3])
        trunk = "joint" if match[1] == "u" else f"trunks.{STREAMS[match[1]]}"
        return f"encoder.{trunk}.blocks.{match[2]}.{inside}" if inside else None
    if match := FINAL.fullmatch(name):
        return f"encoder.joint.norm.of.{MODALITIES[match[1]]}.{match[2]}"
    if match := STEM.fullmatch(name):
        part = {"modality": "modality", "pos_embed": "positions", "patch_embed": match[3]}[match[1]]
        return f"encoder.{STREAMS[match[2]]}.{part}" if part else None
    return None
