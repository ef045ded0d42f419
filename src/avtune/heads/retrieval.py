"""Retrieval: one vector for a clip's sound and one for its frames, near each other where they belong together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.heads.segments import existing, full_precision


@dataclass(frozen=True)
class RetrievalSettings:
    """Settings of the retrieval head and of its loss.

    Attributes:
        width: Length of a vector, behind a layer norm and a linear layer for each stream; ``None``: the towers'
            pooled features themselves, as CAV-MAE and AVSiam search with.
        temperature: tau, by which similarities are divided before the softmax; where training begins.
        learned: Whether training changes it.
        coldest: Below which it never falls: near zero a single pair decides every gradient.
        warmest: Above which it never rises.
    """

    width: int | None = 256
    temperature: float = 0.07
    learned: bool = True
    coldest: float = 0.01
    warmest: float = 0.5


PRESETS = {
    "projected": RetrievalSettings(),
    "features": RetrievalSettings(width=None, temperature=0.05, learned=False),
}
"""Projections and a learned temperature, as CLIP; the towers' own features and the fixed temperature of AVSiam."""


class RetrievalHead(nn.Module):
    """The mean of a stream's existing segments, projected, of unit length.

    Args:
        audio_dim: Channels of the pooled sound.
        video_dim: Channels of the pooled frames.
        settings: See :class:`RetrievalSettings`.

    Attributes:
        width: Length of a vector.

    Raises:
        AvtuneError: The temperature is not between its bounds, or features of different widths are to be compared.
    """

    def __init__(self, audio_dim: int, video_dim: int, settings: RetrievalSettings) -> None:
        super().__init__()
        low, high = settings.coldest, settings.warmest
        if not 0 < low < settings.temperature < high:
            raise AvtuneError(
                f"retrieval's temperature {settings.temperature:g} must lie between coldest {low:g} and warmest "
                f"{high:g}, all above 0; mend head.options"
            )
        if settings.width is None and audio_dim != video_dim:
            raise AvtuneError(
                f"the towers' features have {audio_dim} and {video_dim} channels and cannot be compared as they are; "
                "set head.options.width"
            )
        self.width = settings.width or audio_dim
        self.audio = _projection(audio_dim, settings.width)
        self.video = _projection(video_dim, settings.width)
        self.low, self.high = math.log(low), math.log(high)
        share = (math.log(settings.temperature) - self.low) / (self.high - self.low)
        place = torch.tensor(math.log(share / (1 - share)))
        # A sigmoid between the bounds: a clamp would have no gradient to come back with.
        self.place = nn.Parameter(place, requires_grad=settings.learned)

    @property
    def temperature(self) -> Tensor:
        """tau, a scalar strictly between its bounds."""
        log: Tensor = self.low + (self.high - self.low) * self.place.sigmoid()
        return log.exp()

    def forward(self, encoded: Encoded) -> Tensor:
        """Vectors of unit length (batch, 2, width), sound first; zeros for a stream that a clip lacks.

        The temperature goes to the notes as ``temperature``.
        """
        valid = existing(encoded)
        weights = (valid / valid.sum(dim=1, keepdim=True)).unsqueeze(-1)
        audio = self.audio((encoded.audio_pooled * weights).sum(dim=1))
        video = self.video((encoded.video_pooled * weights).sum(dim=1))
        # Half precision keeps three digits of a similarity, too few to rank thousands of clips.
        with full_precision(audio):
            vectors = F.normalize(torch.stack([audio.float(), video.float()], dim=1), dim=-1)
            encoded.notes.record("temperature", self.temperature)
        if encoded.has_audio is None or encoded.has_video is None:
            return vectors
        return vectors * torch.stack([encoded.has_audio, encoded.has_video], dim=1).unsqueeze(-1)


def _projection(dim: int, width: int | None) -> nn.Module:
    return nn.Identity() if width is None else nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width))
