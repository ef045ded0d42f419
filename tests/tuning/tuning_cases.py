"""Small encoders with tunings, and clips for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from avtune.config import EncoderConfig
from avtune.encoder import DualEncoder, create_encoder
from avtune.tuning import TUNINGS

EVERY = [(name, preset) for name, tuning in TUNINGS.items() for preset in tuning.presets]
# A Compacter's rules start as small random numbers, and a prompt is attended to from the start.
IDENTITIES = [(name, preset) for name, preset in EVERY if name not in ("compacter", "prompts")]


def tuned(
    tuning: str | None,
    preset: str | None = None,
    *,
    tower: str = "nano",
    fusion: str = "frozen",
    depth: int = 2,
    encoder: dict[str, Any] | None = None,
    **options: Any,
) -> DualEncoder:
    torch.manual_seed(0)
    config = EncoderConfig(
        tower=tower, pretrained=False, fusion=fusion, tuning=tuning, tuning_preset=preset,
        tuning_options=options, **(encoder or {}),
    )  # fmt: skip
    return create_encoder(config, depth=depth, segments=2)


def clips(encoder: DualEncoder, batch: int = 2, segments: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    sound, size = encoder.audio_tower.image_size, encoder.video_tower.image_size
    return (
        torch.randn(batch, segments, sound, sound, generator=generator),
        torch.randn(batch, segments, 3, size, size, generator=generator),
    )


@torch.no_grad()
def away_from_start(encoder: DualEncoder) -> DualEncoder:
    """Weights that start at zero, such as gates, hide others from the gradient: move them."""
    generator = torch.Generator().manual_seed(2)
    for name, weight in encoder.named_parameters():
        if weight.requires_grad and not weight.any():
            weight.normal_(std=0.1, generator=generator)
        elif weight.requires_grad and "gate" in name:
            weight.fill_(0.5)
    return encoder


@torch.no_grad()
def living_norms(encoder: DualEncoder) -> DualEncoder:
    """Swin-V2's norms stand behind its branches and start at zero, so that an untrained branch is nothing."""
    generator = torch.Generator().manual_seed(3)
    for tower in {encoder.audio_tower, encoder.video_tower}:
        for part in tower.modules():
            if isinstance(part, nn.LayerNorm):
                part.weight.normal_(1, 0.1, generator=generator)
    return encoder


def tuned_weights(encoder: DualEncoder) -> dict[str, Tensor]:
    """What the tuning trains: its own weights, and what it frees of the towers."""
    return {
        name: weight
        for name, weight in encoder.named_parameters()
        if weight.requires_grad and not name.startswith("fusion.")
    }
