"""Event localization: one class for each segment, background last (AVE)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from avtune.config import HeadConfig, InputConfig
from avtune.datasets import Record, segment_labels
from avtune.encoder import Encoded
from avtune.heads import head_of
from avtune.metrics import SegmentCounts, majority_accuracy
from avtune.tasks.base import Counts, Loss, Scores, Task
from avtune.transforms import Batch


class LocalizationTask(Task):
    """Which event, if any, happens in each segment.

    The score is the share of segments whose class is right, background included, as AVE counts it.

    Args:
        labels: Names of the events; background is implicit and gets the last index.
        input: Segments per clip and their length.
        head: Which head and its settings.

    Raises:
        avtune.errors.AvtuneError: There is no such head or preset, or they do not fit together.
    """

    def __init__(self, labels: tuple[str, ...], input: InputConfig, head: HeadConfig) -> None:
        super().__init__(labels, input, head)
        self.classes = len(labels) + 1
        self.kind = head_of(head)

    def build_head(self, audio_dim: int, video_dim: int) -> nn.Module:
        """The head that the recipe names, of ``avtune.heads.HEADS``."""
        return self.kind.build(audio_dim, video_dim, self.classes, self.head)

    def target(self, record: Record) -> Tensor:
        """Class index of each segment, (T,) int64."""
        return torch.from_numpy(
            segment_labels(
                record.events, self.labels, self.input.segments, self.input.segment_seconds, record.start
            )
        )

    def loss(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> Loss:
        """The head's own loss over the valid segments."""
        assert batch.target is not None
        # In full precision: half precision cannot hold the sums, and refuses binary cross-entropy.
        with torch.autocast(outputs.device.type, enabled=False):
            total = self.kind.loss(outputs.float(), encoded.notes, batch.target, batch.valid, self.head)
        return Loss(total, int(batch.valid.sum()))

    def foreground(self, batch: Batch) -> Tensor:
        """Valid segments with an event, of clips with both streams, (batch * T,) bool."""
        assert batch.target is not None
        whole = (batch.has_audio & batch.has_video)[:, None]
        return (batch.valid & whole & (batch.target != len(self.labels))).flatten()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Softmax over classes (batch, T, classes)."""
        return outputs.float().softmax(-1)

    def count(self, outputs: Tensor, batch: Batch) -> Counts:
        """Confusion counts (classes, classes)."""
        assert batch.target is not None
        counts = SegmentCounts(self.classes)
        counts.update(outputs.argmax(-1), batch.target, batch.valid)
        return counts.confusion

    def score(self, counts: Counts) -> Scores:
        """Segment accuracy, with scores per class and the confusion counts beside it."""
        segments = SegmentCounts(self.classes, counts)
        scores = segments.per_class()
        names = (*self.labels, "background")
        rows = [
            {
                "label": name,
                "precision": float(scores.precision[k]),
                "recall": float(scores.recall[k]),
                "f1": float(scores.f1[k]),
                "segments": int(scores.support[k]),
            }
            for k, name in enumerate(names)
        ]
        details = {"segments": segments.segments, "per_class": rows, "confusion": counts.tolist()}
        return Scores("segment accuracy", segments.accuracy(), details)

    def majority(self, truths: Tensor, scores: Scores) -> float:
        """Share of the scored segments that are of the training segments' most frequent class."""
        support = np.asarray(scores.details["confusion"]).sum(axis=1)
        return majority_accuracy(np.repeat(np.arange(self.classes), support)[None], fitted_on=truths)
