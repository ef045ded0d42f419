"""Random sound and frames of the sizes that an encoder's towers take."""

from __future__ import annotations

import torch
from torch import Tensor

from avtune.encoder import DualEncoder


def clips(encoder: DualEncoder, batch: int = 2, segments: int = 3) -> tuple[Tensor, Tensor]:
    """Spectrograms (batch, segments, size, size) and frames (batch, segments, 3, size, size), always the same."""
    generator = torch.Generator().manual_seed(1)
    sound, frames = encoder.audio_tower.image_size, encoder.video_tower.image_size
    spectrogram = torch.randn(batch, segments, sound, sound, generator=generator)
    return spectrogram, torch.randn(batch, segments, 3, frames, frames, generator=generator)
