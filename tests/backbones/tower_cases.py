"""Small towers, one for each way in which timm's architectures differ."""

import functools
import sys
from pathlib import Path
from typing import Any

import torch

from avtune.backbones import Tower

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from check_towers import compare, timm_state

__all__ = [
    "CASES",
    "FLAT",
    "LEARNED_ONLY",
    "ROTARY",
    "SWIN",
    "compare",
    "images_for",
    "timm_state",
    "tower_of",
]

NARROW: dict[str, Any] = {"embed_dim": 96, "num_heads": 3}

CASES: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {},
    # CLIP: a norm before the first block; another activation.
    "vit_base_patch32_clip_quickgelu_224": NARROW,
    # DINOv2: layer scale and registers.
    "vit_small_patch14_reg4_dinov2": {**NARROW, "image_size": 112},
    # SigLIP: no class token, attention pooling.
    "vit_base_patch16_siglip_224": {**NARROW, "image_size": 112},
    # The class token has no position.
    "deit3_small_patch16_224": NARROW,
    # Two class tokens, pooled together.
    "deit_tiny_distilled_patch16_224": {},
    # Norms after the branches.
    "vit_base_patch16_rpn_224": {**NARROW, "image_size": 128},
    # Differential attention, mean pooling with the norm behind it.
    "vit_dlittle_patch16_reg1_gap_256": {**NARROW, "image_size": 128},
    # Norms within attention and MLP.
    "beit3_base_patch16_224": {**NARROW, "image_size": 128},
    # Patches from a convolutional stem.
    "vit_tiny_r_s16_p8_224": {"image_size": 64},
    # Rotary and learned positions, SwiGLU.
    "eva02_tiny_patch14_224": {"image_size": 112},
    # EVA with norms after the branches.
    "eva02_enormous_patch14_clip_224": {**NARROW, "image_size": 112},
    # Perception Encoder: a norm before, attention pooling behind.
    "vit_pe_core_tiny_patch16_384": {"image_size": 96},
    # DINOv3: another rotary table, layer scale, registers, no learned positions.
    "vit_small_patch16_dinov3": {**NARROW, "image_size": 128},
    # A rotary table for each block and head.
    "vit_small_patch16_rope_mixed_ape_224": {**NARROW, "image_size": 112},
    # Heads that share keys and values, norms of queries and keys.
    "vit_large_patch16_sapiens2": {**NARROW, "num_heads": 6, "num_kv_heads": 2, "image_size": 96},
    "swin_tiny_patch4_window7_224": {"image_size": 112},
    # Another window in each stage.
    "swin_s3_tiny_224": {"image_size": 112},
    "swinv2_tiny_window8_256": {"image_size": 128},
    # A grid of 20, 10 and 5 cells, padded to whole windows of 7.
    "swin_small_patch4_window7_224": {"image_size": 80},
}
SWIN = [name for name in CASES if name.startswith("swin")]
FLAT = [name for name in CASES if name not in SWIN]
ROTARY = [
    name for name in FLAT if name.startswith(("eva02_tiny", "vit_pe", "vit_small_patch16", "vit_large"))
]
LEARNED_ONLY = [name for name in FLAT if name not in ROTARY]


@functools.cache
def tower_of(name: str) -> Tower:
    """The tower of a case with two blocks (in each stage), compared with timm as it is built."""
    return compare(name, depth=2, **CASES[name])


def images_for(
    tower: Tower, batch: int = 2, height: int | None = None, width: int | None = None
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    shape = (batch, 3, height or tower.image_size, width or tower.image_size)
    return torch.randn(shape, generator=generator)
