"""Audio-guided visual attention: what a segment sounds like decides where its frame is looked at."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from avtune.errors import AvtuneError

Guidance: TypeAlias = Literal["hidden", "cell"]
"""Where the sound enters the attention.

``hidden``: one term for each hidden unit, the same in all cells, as AVEL's equation. ``cell``: one term for each
cell, the same for all hidden units, as its authors' code, which thereby is tied to as many cells as hidden units.
"""


class AudioGuidedAttention(nn.Module):
    """A frame as the weighted sum of its cells (AVEL).

    ``v = Σ_c α_c V_c`` with ``α = softmax(w tanh(W_v relu(U_v V) + W_a relu(U_a a)))``.

    Args:
        audio_dim: Channels of the sound.
        video_dim: Channels of a cell.
        hidden: Width of the first layers, U.
        units: Width of the second layers, W; in the paper as many as a 7 x 7 grid has cells.
        guidance: Where the sound enters.
    """

    def __init__(
        self, audio_dim: int, video_dim: int, hidden: int, *, units: int = 49, guidance: Guidance = "hidden"
    ) -> None:
        super().__init__()
        self.audio = nn.Linear(audio_dim, hidden)
        self.video = nn.Linear(video_dim, hidden)
        self.audio_units = nn.Linear(hidden, units, bias=False)
        self.video_units = nn.Linear(hidden, units, bias=False)
        self.score = nn.Linear(units, 1, bias=False)
        self.guidance = guidance
        for layer in (self.audio, self.video, self.audio_units, self.video_units, self.score):
            nn.init.xavier_uniform_(layer.weight)

    def weights(self, audio: Tensor, video: Tensor) -> Tensor:
        """Where is looked: (batch, T, cells), each frame's weights summing to one; arguments as :meth:`forward`."""
        heard = self.audio_units(torch.relu(self.audio(audio)))
        seen = self.video_units(torch.relu(self.video(video)))
        if self.guidance == "hidden":
            hidden = seen + heard.unsqueeze(-2)
        else:
            if video.shape[-2] != heard.shape[-1]:
                raise AvtuneError(
                    f"the head's preset 'official' attends to a grid of {heard.shape[-1]} cells, but the tower gives "
                    f"{video.shape[-2]}; choose head.preset paper, which takes any grid"
                )
            hidden = seen + heard.unsqueeze(-1)
        scores: Tensor = self.score(torch.tanh(hidden)).squeeze(-1)
        return scores.softmax(dim=-1)

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        """Look at each frame where its sound says.

        Args:
            audio: (batch, T, audio dim).
            video: (batch, T, cells, video dim).

        Returns:
            (batch, T, video dim).

        Raises:
            AvtuneError: ``guidance`` is ``cell`` and the grid has another number of cells.
        """
        return (self.weights(audio, video).unsqueeze(-2) @ video).squeeze(-2)
