"""Made-up streams as an encoder leaves them."""

from __future__ import annotations

from dataclasses import replace

import torch

from avtune.encoder import Encoded
from avtune.fusion.base import Notes


def streams(
    batch: int = 3,
    segments: int = 5,
    grid: int = 3,
    audio_dim: int = 12,
    video_dim: int = 20,
    *,
    prefix: int = 0,
    valid: torch.Tensor | None = None,
    seed: int = 0,
    device: str | None = None,
) -> Encoded:
    if device == "meta":
        with torch.device("meta"):
            tokens = [torch.zeros(batch * segments, grid**2 + prefix, dim) for dim in (audio_dim, video_dim)]
            pooled = [torch.zeros(batch, segments, dim) for dim in (audio_dim, video_dim)]
    else:
        generator = torch.Generator().manual_seed(seed)
        tokens = [
            torch.randn(batch * segments, grid**2 + prefix, dim, generator=generator)
            for dim in (audio_dim, video_dim)
        ]
        pooled = [torch.randn(batch, segments, dim, generator=generator) for dim in (audio_dim, video_dim)]
    notes = Notes(segments=segments)
    return Encoded(*tokens, *pooled, notes, audio_prefix=prefix, video_prefix=prefix, valid=valid)


def clips_of(encoded: Encoded, order: torch.Tensor) -> Encoded:
    """The clips in another order, or some of them."""
    batch, segments = encoded.video_pooled.shape[:2]

    def pick(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.view(batch, segments, *tokens.shape[1:])[order].flatten(0, 1)

    return replace(
        encoded,
        audio=pick(encoded.audio),
        video=pick(encoded.video),
        audio_pooled=encoded.audio_pooled[order],
        video_pooled=encoded.video_pooled[order],
        notes=Notes(segments=segments),
        valid=None if encoded.valid is None else encoded.valid[order],
    )
