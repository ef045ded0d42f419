"""The AVSiam authors' checkpoints under avtune's names: the two published ones, and those of the released code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from avtune.interop.checkpoints import load_exactly, matched, read_checkpoint
from avtune.interop.lavish import ConversionError
from avtune.pretrain.avsiam import PRESETS, Avsiam, AvsiamSettings
from avtune.pretrain.backbone import Backbone, take_backbone

BACKBONES = {
    "base": "vit_base_patch16_224.augreg_in21k",
    "large": "vit_large_patch16_224.augreg_in21k",
    "huge": "vit_huge_patch14_224.orig_in21k",
}
"""The transformer that each of the authors' names stands for."""
# Saved but without effect: second names of the same weights, the class token and the class head of ImageNet-21k, and a
# head that is never called. The second transformer has stems of its own, which the released code passes over.
WITHOUT_EFFECT = re.compile(
    r"my_blocks\..*|my_patch_embed(_a)?\.proj\..*|.*\.(cls_token|head\..*)|mlp_head_mm_v2\..*"
    r"|ast_base\.(pos_embed(_a)?|patch_embed(_a)?\.proj\.\w+|norm\.\w+)"
)
TRANSFORMER = re.compile(r"vit_(base|large|huge)\.(.+)")
SECOND = re.compile(r"ast_base\.(.+)")
JOINT = re.compile(r"mm_layer_(\d+)\.(.+)")
DECODER_BLOCK = re.compile(r"decoder_blocks\.(\d+)\.(.+)")
IN_BLOCK = re.compile(r"(norm[12])(_a|_v)?\.(weight|bias)|(attn\.(?:qkv|proj)|mlp\.fc[12])\.(weight|bias)")
BLOCK_NORM = re.compile(r"\.blocks\.\d+\.(attention|mlp)_norm\.of\.")
NORMS = {"norm1": "attention_norm", "norm2": "mlp_norm"}
MODALITIES = {None: "plain", "_a": "audio", "_v": "video"}
STEMS = {
    "pos_embed": "video.positions",
    "pos_embed_a": "audio.positions",
    "patch_embed.proj.weight": "video.weight",
    "patch_embed.proj.bias": "video.bias",
    "patch_embed_a.proj.weight": "audio.weight",
    "patch_embed_a.proj.bias": "audio.bias",
}
DECODER = {
    "decoder_embed.weight": "embed.weight",
    "decoder_embed.bias": "embed.bias",
    "mask_token": "mask_token",
    "decoder_modality_a": "audio_modality",
    "decoder_modality_v": "video_modality",
    "decoder_pos_embed_a": "audio_positions",
    "decoder_pos_embed_v": "video_positions",
    "decoder_norm.weight": "trunk.norm.of.plain.weight",
    "decoder_norm.bias": "trunk.norm.of.plain.bias",
    "decoder_pred_a.weight": "audio_pixels.weight",
    "decoder_pred_a.bias": "audio_pixels.bias",
    "decoder_pred_v.weight": "video_pixels.weight",
    "decoder_pred_v.bias": "video_pixels.bias",
}
HEADS = {"mlp_head": "video", "mlp_head_a": "audio", "mlp_head_mm": "joint"}
HEAD = re.compile(rf"({'|'.join(HEADS)})\.(\d\.(?:weight|bias))")


def model_from_official(state: Mapping[str, Tensor], wanted: set[str] | None = None) -> dict[str, Tensor]:
    """An AVSiam of the authors' code as the state of :class:`avtune.pretrain.avsiam.Avsiam`.

    Args:
        state: The whole state dict; classifiers are passed over.
        wanted: Names that the receiving model has. Norms of blocks that are not among them are dropped: the authors'
            blocks save three pairs, whichever they use. ``None``: keep all.

    Returns:
        The same tensors under avtune's names, position tables without their class token.

    Raises:
        ConversionError: A name is unknown.
    """
    converted: dict[str, Tensor] = {}
    for official, value in state.items():
        name = official.removeprefix("module.")
        if WITHOUT_EFFECT.fullmatch(name) or HEAD.fullmatch(name):
            continue
        ours = _name(name)
        if ours is None:
            raise ConversionError(f"{official!r} is no weight of AVSiam; is this checkpoint AVSiam's?")
        if wanted is not None and ours not in wanted and BLOCK_NORM.search(ours):
            continue
        converted[ours] = value[0, 1:] if name.endswith(".pos_embed") else without_batch(ours, value)
    return converted


def heads_from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The classifiers of a fine-tuned model, as the heads of :class:`avtune.pretrain.classifiers.AvsiamClassifier`.

    Args:
        state: The whole state dict.

    Raises:
        ConversionError: There is no classifier in it.
    """
    return matched(
        state, HEAD, lambda match: f"head.{HEADS[match[1]]}.{match[2]}",
        "this state dict holds no classifier of AVSiam (names like mlp_head_mm.1.weight)",
    )  # fmt: skip


def settings_from_official(state: Mapping[str, Tensor]) -> AvsiamSettings:
    """The settings under which the authors' weights compute what they were trained to.

    What the names tell is read from them: a second transformer for the sound is the released code's, none the
    published files'; the layers are counted. Masking ratios cannot be read from weights.

    Args:
        state: The whole state dict.

    Raises:
        ConversionError: There are no multimodal layers in it.
    """
    names = [name.removeprefix("module.") for name in state]
    second = any(SECOND.fullmatch(name) for name in names)
    joint = {match[1] for name in names if (match := JOINT.fullmatch(name))}
    decoder = {match[1] for name in names if (match := DECODER_BLOCK.fullmatch(name))}
    if not joint:
        raise ConversionError(
            "this state dict holds no multimodal layers of AVSiam (names like mm_layer_1.attn.qkv.weight)"
        )
    start = replace(PRESETS["release" if second else "published"], joint_blocks=len(joint))
    if not decoder:
        return replace(start, reconstruction="none", reconstruction_encoder="shared", stop_gradient=False)
    width = next(value for name, value in state.items() if name.endswith("decoder_embed.bias")).numel()
    return replace(start, decoder_depth=len(decoder), decoder_width=width)


def load_avsiam(path: str | Path, backbone: Backbone | None = None) -> Avsiam:
    """The model in a file that the authors published or that their code wrote.

    Args:
        path: ``as2m_pretrained.20.pth``, ``as+vgg+acav_pretrained.pth`` or one of their form.
        backbone: A transformer of the shape of theirs; ``None``: as the names in the file tell.

    Raises:
        ConversionError: The file cannot be read, or holds another model; one line says what differs.
    """
    state = read_checkpoint(path)
    sizes = {match[1] for name in state if (match := TRANSFORMER.fullmatch(name))}
    if len(sizes) != 1:
        raise ConversionError(f"{path}: no AVSiam checkpoint (names like vit_base.blocks.0.attn.qkv.weight)")
    if backbone is None:
        backbone = take_backbone(BACKBONES[sizes.pop()], pretrained=False)
    model = Avsiam(backbone, settings_from_official(state))
    load_exactly(
        model, model_from_official(state, set(model.state_dict())), str(path),
        f"give the backbone it was made with instead of {backbone.name}",
    )  # fmt: skip
    return model


def block_from_official(name: str) -> str | None:
    """A weight inside a block under avtune's name; ``None``: there is none of that name."""
    match = IN_BLOCK.fullmatch(name)
    if match is None:
        return None
    if match[1]:
        return f"{NORMS[match[1]]}.of.{MODALITIES[match[2]]}.{match[3]}"
    return f"{match[4].replace('attn', 'attention')}.{match[5]}"


def decoder_from_official(name: str) -> str | None:
    """A weight of the decoder, which CAV-MAE's code and AVSiam's name alike; ``None``: it is none."""
    if name in DECODER:
        return f"decoder.{DECODER[name]}"
    match = DECODER_BLOCK.fullmatch(name)
    inside = block_from_official(match[2]) if match else None
    return f"decoder.trunk.blocks.{match[1]}.{inside}" if match and inside else None


def without_batch(name: str, value: Tensor) -> Tensor:
    """Position tables, mask tokens and modality vectors without the leading axes that the authors keep."""
    if name.endswith("positions"):
        return value[0]
    return value.flatten() if name.endswith(("modality", "mask_token")) else value


def _name(name: str) -> str | None:
    if match := TRANSFORMER.fullmatch(name):
        return _in_transformer(match[2], "shared")
    if match := SECOND.fullmatch(name):
        return _in_transformer(match[1], "second_sound")
    if match := JOINT.fullmatch(name):
        inside = block_from_official(match[2])
        return f"encoder.joint.blocks.{int(match[1]) - 1}.{inside}" if inside else None
    return decoder_from_official(name)


def _in_transformer(name: str, trunk: str) -> str | None:
    if name in STEMS:
        return f"encoder.{STEMS[name]}"
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
        inside = block_from_official(match[2])
        return f"encoder.trunks.{trunk}.blocks.{match[1]}.{inside}" if inside else None
    if match := re.fullmatch(r"norm(_a)?\.(weight|bias)", name):
        # The second transformer hears sound only, under norms of its own.
        kind = "plain" if trunk == "second_sound" else "audio" if match[1] else "video"
        return f"encoder.trunks.{trunk}.norm.of.{kind}.{match[2]}"
    return None
