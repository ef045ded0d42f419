"""TPAVI: temporal pixel-wise audio-visual interaction (Zhou et al., ECCV 2022), in its exact factored form.

Every pixel of every second attends to the sound of every second: ``Z = X + W_z(alpha g(X))`` with
``alpha = theta(X) phi(A)^T / N`` over the N = T H W places of a clip. The sound is the same at all places of a second,
so the N x N matrix alpha need not exist: ``alpha g(X) = theta(X) (1/T sum_s phi(A_s) g_s^T)`` with g_s the mean of g(X)
over the places of second s. That is a matrix of width x width for each clip.
"""

from __future__ import annotations

from torch import Tensor, nn

from avtune.tuning.bottleneck import TokenBatchNorm


class Tpavi(nn.Module):
    """The interaction at one scale of a mask decoder.

    It starts as a LayerNorm of its input: the last normalisation's weights are zero.

    Args:
        dim: Channels of the pixels.
        audio_dim: Channels of the sound.
        width: Channels in which they are compared; ``None``: half of ``dim``.
    """

    def __init__(self, dim: int = 256, audio_dim: int = 128, width: int | None = None) -> None:
        super().__init__()
        width = width or dim // 2
        self.align = nn.Linear(audio_dim, dim)
        self.theta, self.phi, self.g = (nn.Linear(dim, width) for _ in range(3))
        self.out = nn.Linear(width, dim)
        self.norm_out = TokenBatchNorm(dim)
        nn.init.zeros_(self.norm_out.weight)
        nn.init.zeros_(self.norm_out.bias)
        self.norm = nn.LayerNorm(dim)

    def forward(self, pixels: Tensor, audio: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Let every pixel hear the clip.

        Args:
            pixels: X (batch, T, places, dim).
            audio: A (batch, T, audio dim), one vector for each second.
            valid: Which seconds exist and are heard, (batch, T) bool, at least one of each clip; ``None``: all.

        Returns:
            Z (batch, T, places, dim), and the sound in the pixels' channels (batch, T, dim), which the loss
            compares with what the mask selects.
        """
        sound = self.align(audio)
        values = self.g(pixels.mean(dim=2))
        seconds: Tensor | int = pixels.shape[1]
        if valid is not None:
            values = values * valid.unsqueeze(-1)
            seconds = valid.sum(dim=1).view(-1, 1, 1)
        memory = self.phi(sound).transpose(1, 2) @ values / seconds
        heard: Tensor = self.theta(pixels) @ memory.unsqueeze(1)
        added = self.norm_out(self.out(heard).flatten(1, 2)).view_as(pixels)
        return self.norm(pixels + added), sound
