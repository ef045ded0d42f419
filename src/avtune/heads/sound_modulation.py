"""Pixels scaled and shifted by the sound of their own second (FiLM: Perez et al., AAAI 2018)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SoundModulation(nn.Module):
    """``Z = (1 + gamma) LN(X) + beta``, gamma and beta of each channel from the sound of the pixel's second.

    Where TPAVI gives every second of a clip the same sum over all of its sounds, this tells *when* something sounds.

    Args:
        dim: Channels of the pixels.
        audio_dim: Channels of the sound.
    """

    def __init__(self, dim: int = 256, audio_dim: int = 128) -> None:
        super().__init__()
        self.align = nn.Linear(audio_dim, dim)
        self.scale_shift = nn.Linear(dim, 2 * dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, pixels: Tensor, audio: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Let every pixel hear its second.

        Args:
            pixels: X (batch, T, places, dim).
            audio: (batch, T, audio dim), one vector for each second.
            valid: Not read: a second knows of no other.

        Returns:
            Z (batch, T, places, dim), and the sound in the pixels' channels (batch, T, dim).
        """
        sound = self.align(audio)
        scale, shift = self.scale_shift(F.relu(sound)).unsqueeze(2).chunk(2, dim=-1)
        return self.norm(pixels) * (1 + scale) + shift, sound
