"""Event localization: one class for each segment, background last (AVE)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.config import HeadConfig, InputConfig
from avtune.datasets import Record, segment_labels
from avtune.encoder import Encoded
from avtune.heads import SegmentHead
from avtune.metrics import SegmentCounts, majority_accuracy
from avtune.tasks.base import Counts, Loss, Scores, Task
from avtune.transforms import Batch


class LocalizationTask(Task):
    """Which event, if any, happens in each segment.

    The score is the share of segments whose class is right, background included, as AVE counts it.

    Args:
        labels: Names of the events; background is implicit and gets the last index.
        input: Segments per clip and their length.
        head: Head width and loss.
    """

    def __init__(self, labels: tuple[str, ...], input: InputConfig, head: HeadConfig) -> None:
        super().__init__(labels, input, head)
        self.classes = len(labels) + 1

    def build_head(self, audio_dim: int, video_dim: int) -> nn.Module:
        """A :class:`avtune.heads.SegmentHead`."""
        return SegmentHead(audio_dim, video_dim, self.classes, self.head.hidden)

    def target(self, record: Record) -> Tensor:
        """Class index of each segment, (T,) int64."""
        return torch.from_numpy(
            segment_labels(
                record.events, self.labels, self.input.segments, self.input.segment_seconds, record.start
            )
        )

    def loss(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> Loss:
        """Cross-entropy (or the authors' binary form) over the valid segments."""
        assert batch.target is not None
        return self._segment_loss(outputs, batch.target, batch.valid)

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

    def _segment_loss(self, logits: Tensor, target: Tensor, valid: Tensor) -> Loss:
        chosen, truth = logits[valid].float(), target[valid]
        if self.head.loss == "cross_entropy":
            total = F.cross_entropy(chosen, truth, reduction="sum")
        else:
            # The authors' code: binary cross-entropy of softmax probabilities against the one-hot class.
            one_hot = F.one_hot(truth, self.classes).float()
            total = F.binary_cross_entropy(chosen.softmax(-1), one_hot, reduction="sum") / self.classes
        return Loss(total, int(valid.sum()))
