"""Made-up checkpoints under the names that the authors' files have, with random numbers in them."""

from __future__ import annotations

import torch
from torch import Tensor

State = dict[str, Tensor]
AUDIO_PATCHES, VIDEO_PATCHES, PATCH, CLASSES = 512, 196, 16, 21


def _block(dim: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for norm in ("norm1", "norm1_a", "norm1_v", "norm2", "norm2_a", "norm2_v"):
        shapes |= {f"{norm}.weight": (dim,), f"{norm}.bias": (dim,)}
    for name, rows, columns in (
        ("attn.qkv", 3 * dim, dim), ("attn.proj", dim, dim), ("mlp.fc1", 4 * dim, dim), ("mlp.fc2", dim, 4 * dim)
    ):  # fmt: skip
        shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
    return shapes


def _stem(audio: str, video: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{audio}.proj.weight": (dim, 1, PATCH, PATCH), f"{audio}.proj.bias": (dim,),
        f"{video}.proj.weight": (dim, 3, PATCH, PATCH), f"{video}.proj.bias": (dim,),
    }  # fmt: skip


def _decoder(dim: int, width: int, depth: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "decoder_pos_embed_a": (1, AUDIO_PATCHES, width), "decoder_pos_embed_v": (1, VIDEO_PATCHES, width),
        "mask_token": (1, 1, width), "decoder_modality_a": (1, 1, width), "decoder_modality_v": (1, 1, width),
        "decoder_embed.weight": (width, dim), "decoder_embed.bias": (width,),
        "decoder_norm.weight": (width,), "decoder_norm.bias": (width,),
        "decoder_pred_a.weight": (PATCH**2, width), "decoder_pred_a.bias": (PATCH**2,),
        "decoder_pred_v.weight": (3 * PATCH**2, width), "decoder_pred_v.bias": (3 * PATCH**2,),
    }  # fmt: skip
    for k in range(depth):
        shapes |= {f"decoder_blocks.{k}.{name}": shape for name, shape in _block(width).items()}
    return shapes


def _transformer(prefix: str, dim: int, depth: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, dim), "pos_embed": (1, VIDEO_PATCHES + 1, dim), "pos_embed_a": (1, AUDIO_PATCHES, dim),
        "norm.weight": (dim,), "norm.bias": (dim,), "norm_a.weight": (dim,), "norm_a.bias": (dim,),
        "head.weight": (CLASSES, dim), "head.bias": (CLASSES,), **_stem("patch_embed_a", "patch_embed", dim),
    }  # fmt: skip
    for k in range(depth):
        shapes |= {f"blocks.{k}.{name}": shape for name, shape in _block(dim).items()}
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def _filled(shapes: dict[str, tuple[int, ...]]) -> State:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def avsiam_state(
    dim: int, depth: int, width: int = 32, decoder_depth: int = 2, second: bool = False
) -> State:
    """Pretrained by AVSiam's published (one transformer) or released code (``second``)."""
    shapes = _transformer("vit_base", dim, depth) | _stem("my_patch_embed_a", "my_patch_embed", dim)
    if second:
        shapes |= _transformer("ast_base", dim, depth)
    for k in range(depth):
        shapes |= {f"my_blocks.{k}.{name}": shape for name, shape in _block(dim).items()}
    for k in (1, 2):
        shapes |= {f"mm_layer_{k}.{name}": shape for name, shape in _block(dim).items()}
    return _filled(shapes | _decoder(dim, width, decoder_depth))


def avsiam_heads(dim: int, classes: int) -> State:
    """The four heads of a fine-tuned AVSiam."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, width in (("", dim), ("_a", dim), ("_mm", 2 * dim), ("_mm_v2", dim)):
        shapes |= {f"mlp_head{name}.0.{kind}": (width,) for kind in ("weight", "bias")}
        shapes |= {f"mlp_head{name}.1.weight": (classes, width), f"mlp_head{name}.1.bias": (classes,)}
    return _filled(shapes)


def cav_mae_state(dim: int, own: int, joint: int = 1, width: int = 32, decoder_depth: int = 2) -> State:
    """Pretrained by CAV-MAE's code."""
    shapes = _decoder(dim, width, decoder_depth) | _stem("patch_embed_a", "patch_embed_v", dim)
    shapes |= {"pos_embed_a": (1, AUDIO_PATCHES, dim), "pos_embed_v": (1, VIDEO_PATCHES, dim)}
    shapes |= {"modality_a": (1, 1, dim), "modality_v": (1, 1, dim)}
    shapes |= {f"norm{kind}.{name}": (dim,) for kind in ("", "_a", "_v") for name in ("weight", "bias")}
    for blocks, depth in (("blocks_a", own), ("blocks_v", own), ("blocks_u", joint)):
        for k in range(depth):
            shapes |= {f"{blocks}.{k}.{name}": shape for name, shape in _block(dim).items()}
    return _filled(shapes)
