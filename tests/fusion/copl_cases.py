"""Small towers with CoPL around them, and clips to walk them with."""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from avtune.backbones import Tower, create_tower
from avtune.config import EncoderConfig
from avtune.encoder import DualEncoder, create_encoder

SMALL = {"global_prompts": 3, "interaction_prompts": 2, "bank_size": 4}
SEGMENTS = 3


NARROW = {
    "swinv2_tiny_window8_256": {"image_size": 64, "embed_dim": 32, "num_heads": (1, 2, 4, 8)},
    "vit_tiny_patch16_224": {"image_size": 64, "embed_dim": 48, "num_heads": 2},
    "vit_small_patch16_dinov3": {"image_size": 64, "embed_dim": 48, "num_heads": 2},
}


@functools.cache
def tower_of(name: str, depth: int = 2) -> Tower:
    torch.manual_seed(1)
    tower = create_tower(name, pretrained=False, depth=depth, **NARROW[name])
    for module in tower.modules():
        # Swin-V2 starts with norms of zero behind its branches, which would hide all that attention does.
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return tower


def vit() -> tuple[Tower, Tower]:
    return tower_of("vit_tiny_patch16_224"), tower_of("vit_tiny_patch16_224")


def swin() -> tuple[Tower, Tower]:
    tower = tower_of("swinv2_tiny_window8_256")
    return tower, tower


def unshared() -> tuple[Tower, Tower]:
    return tower_of("vit_tiny_patch16_224", 3), tower_of("swinv2_tiny_window8_256")


TOWERS = {"vit": vit, "swin": swin, "unshared": unshared}


def encoder_of(towers: str = "vit", segments: int = SEGMENTS, **options: Any) -> DualEncoder:
    preset = options.pop("preset", None)
    torch.manual_seed(0)
    config = EncoderConfig(pretrained=False, fusion="copl", preset=preset, options={**SMALL, **options})
    return create_encoder(config, towers=TOWERS[towers](), segments=segments).eval()


def clips(encoder: DualEncoder, batch: int = 2, segments: int = SEGMENTS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    sound, frames = encoder.audio_tower.image_size, encoder.video_tower.image_size
    spectrogram = torch.randn(batch, segments, sound, sound, generator=generator)
    return spectrogram, torch.randn(batch, segments, 3, frames, frames, generator=generator)
