"""The floors of event localization: an audio-only and a video-only model, trained in one walk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from avtune.config import HeadConfig, InputConfig
from avtune.encoder import Encoded
from avtune.heads import SingleStreamHeads
from avtune.tasks.base import Counts, Loss, Scores
from avtune.tasks.localization import LocalizationTask
from avtune.transforms import Batch


class SingleStreamLocalization(LocalizationTask):
    """Localization from the sound alone and from the frames alone.

    Meant for an encoder whose streams do not hear each other (LAVISH with ``direction: none``). Outputs are
    stacked: sound first, frames second. A head that the recipe names is for two streams; here each has the plain
    one.
    """

    def __init__(self, labels: tuple[str, ...], input: InputConfig, head: HeadConfig) -> None:
        super().__init__(labels, input, replace(head, name="segment", preset=None))

    def build_head(self, audio_dim: int, video_dim: int) -> nn.Module:
        """:class:`avtune.heads.SingleStreamHeads`."""
        return SingleStreamHeads(audio_dim, video_dim, self.classes, self.head.hidden, self.head.dropout)

    def loss(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> Loss:
        """Sum of both models' losses; no weight is in both, so each trains as if alone."""
        audio, video = (super(SingleStreamLocalization, self).loss(part, encoded, batch) for part in outputs)
        return Loss(audio.total + video.total, audio.count)

    def count(self, outputs: Tensor, batch: Batch) -> Counts:
        """Confusion counts (2, classes, classes)."""
        return np.stack([super(SingleStreamLocalization, self).count(part, batch) for part in outputs])

    def score(self, counts: Counts) -> Scores:
        """The better stream's accuracy, both beside it."""
        audio, video = (super(SingleStreamLocalization, self).score(part).value for part in counts)
        return Scores("best single stream", max(audio, video), {"audio only": audio, "video only": video})
