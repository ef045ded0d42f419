"""Clips that stand several times in a row in a batch, each time with another question, need encoding once."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from avtune.encoder import Encoded


class Repeats(NamedTuple):
    """Which clips of a batch are distinct; by default all.

    Attributes:
        places: Of the distinct clips in the batch.
        which: For each clip of the batch its place among the distinct ones.
    """

    places: Tensor | slice = slice(None)
    which: Tensor | slice = slice(None)

    @classmethod
    def find(cls, spectrogram: Tensor, frames: Tensor) -> Repeats:
        """Compare each clip with the one before it.

        Args:
            spectrogram: (batch, T or 1, steps, mels).
            frames: (batch, T, 3, height, width).
        """
        distinct = torch.ones(len(frames), dtype=torch.bool, device=frames.device)
        distinct[1:] = _differs_from_the_one_before(spectrogram) | _differs_from_the_one_before(frames)
        return cls(distinct.nonzero().flatten(), distinct.cumsum(dim=0) - 1)

    def tokens(self, values: Tensor, segments: int) -> Tensor:
        """Tokens of the distinct clips, (distinct * T, length, dim), as those of the batch (batch * T, ...)."""
        clips = values.reshape(-1, segments, *values.shape[1:])
        return clips[self.which].flatten(0, 1)

    def streams(self, encoded: Encoded) -> Encoded:
        """Streams of the distinct clips as those of the batch; the notes stay those of the distinct clips."""
        segments = encoded.audio_pooled.shape[1]
        return replace(
            encoded,
            audio=self.tokens(encoded.audio, segments),
            video=self.tokens(encoded.video, segments),
            audio_pooled=encoded.audio_pooled[self.which],
            video_pooled=encoded.video_pooled[self.which],
            video_stages=tuple(self.tokens(stage, segments) for stage in encoded.video_stages),
        )


def _differs_from_the_one_before(values: Tensor) -> Tensor:
    return (values[1:] != values[:-1]).flatten(1).any(dim=1)
