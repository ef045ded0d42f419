"""Event localization: one class for each segment, background last (AVE)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.config import HeadConfig, InputConfig
from avtune.datasets import BACKGROUND, Record, segment_labels
from avtune.encoder import Encoded
from avtune.heads import head_of
from avtune.heads.segments import full_precision
from avtune.metrics import SegmentCounts
from avtune.tasks.base import Answer, Loss, Scores, Task, Truth
from avtune.tasks.predictions import TimelinePrediction, Window, segment_means, window_notes
from avtune.transforms import Batch

Counts = npt.NDArray[np.int64]


class LocalizationTask(Task):
    """Which event, if any, happens in each segment.

    The score is the share of segments whose class is right, background included, as AVE counts it.

    Args:
        labels: Names of the events; background is implicit and gets the last index.
        input: Segments per clip and their length.
        head: Which head and its settings; ``supervision: clips`` trains on the clips' labels alone.
        words: Not read.

    Raises:
        avtune.errors.AvtuneError: There is no such head or preset, or they do not fit together.
    """

    target_per_segment = True

    def __init__(
        self, labels: tuple[str, ...], input: InputConfig, head: HeadConfig, words: tuple[str, ...] = ()
    ) -> None:
        super().__init__(labels, input, head, words)
        self.classes = len(labels) + 1
        self.background = len(labels)
        self.kind = head_of(head)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Labels with background behind them."""
        return (*self.labels, BACKGROUND)

    def build_head(self, audio_tower: Tower, video_tower: Tower) -> nn.Module:
        """The head that the recipe names, of ``avtune.heads.HEADS``."""
        return self.kind.build(audio_tower.dim, video_tower.dim, self.classes, self.head)

    def target(self, record: Record) -> Tensor:
        """Class index of each segment, (T,) int64."""
        return torch.from_numpy(
            segment_labels(
                record.events, self.labels, self.input.segments, self.input.segment_seconds, record.start
            )
        )

    def loss(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> Loss:
        """The head's own loss over the valid segments, or that of the clips' labels."""
        assert batch.target is not None
        # In full precision: half precision cannot hold the sums, and refuses binary cross-entropy.
        with full_precision(outputs):
            if self.head.supervision == "clips":
                return clip_label_loss(outputs.float(), batch.target, batch.valid)
            total = self.kind.loss(outputs.float(), encoded.notes, batch.target, batch.valid, self.head)
        return Loss(total, int(batch.valid.sum()))

    def foreground(self, batch: Batch) -> Tensor:
        """Valid segments with an event, of clips with both streams, (batch * T,) bool."""
        assert batch.target is not None
        whole = (batch.has_audio & batch.has_video)[:, None]
        return (batch.valid & whole & (batch.target != len(self.labels))).flatten()

    def tally(self, outputs: Tensor, batch: Batch) -> Counts:
        """Confusion counts (classes, classes)."""
        assert batch.target is not None
        counts = SegmentCounts(self.classes)
        counts.update(outputs.argmax(-1), batch.target, batch.valid)
        return counts.confusion

    def score(self, tally: Counts) -> Scores:
        """Segment accuracy, with scores per class and the confusion counts beside it."""
        segments = SegmentCounts(self.classes, tally)
        scores = segments.per_class()
        rows = [
            {
                "label": name,
                "precision": float(scores.precision[k]),
                "recall": float(scores.recall[k]),
                "f1": float(scores.f1[k]),
                "segments": int(scores.support[k]),
            }
            for k, name in enumerate(self.class_names)
        ]
        details = {"segments": segments.segments, "per_class": rows, "confusion": tally.tolist()}
        return Scores("segment accuracy", segments.accuracy(), details)

    def blind_answers(self, truths: Iterable[Truth]) -> Mapping[str, Answer]:
        """``majority``: the training segments' most frequent class, always."""
        support = np.zeros(self.classes, dtype=np.int64)
        for truth in truths:
            support += np.bincount(truth.target.flatten().numpy(), minlength=self.classes)
        chosen = int(support.argmax())

        def majority(batch: Batch) -> Tensor:
            answer = torch.zeros(*batch.valid.shape, self.classes, device=batch.valid.device)
            answer[..., chosen] = 1
            return answer

        return {"majority": majority}

    def parts(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """Softmax over classes, ``probabilities`` (batch, T, classes)."""
        return {"probabilities": outputs.float().softmax(-1)}

    def predict(
        self, path: Path, windows: Sequence[Window], question: str | None = None
    ) -> TimelinePrediction:
        """The class of each segment; where windows overlap their probabilities are averaged."""
        seconds = self.input.segment_seconds
        rows = segment_means(windows, "probabilities", seconds)
        return TimelinePrediction(path, self.class_names, seconds, rows, notes=window_notes(windows))


def clip_label_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Loss:
    """Weak supervision: which events a clip holds is told, not when.

    The clip's probabilities are the mean of its segments' (multiple instance learning by average pooling); their
    cross-entropy against the clip's events, equally likely, or against background where it has none.

    Args:
        logits: (batch, T, classes), background last.
        target: Class indices (batch, T), of which only the set of a clip's events is read.
        valid: (batch, T) bool.

    Returns:
        Sum over the clips with a valid segment.
    """
    present = valid.unsqueeze(-1)
    events = (torch.nn.functional.one_hot(target, logits.shape[-1]).bool() & present).any(dim=1)
    events[:, -1] &= ~events[:, :-1].any(dim=1)
    counted = valid.any(dim=1)
    log_mean = logits.log_softmax(-1).masked_fill(~present, -torch.inf)[counted].logsumexp(dim=1)
    log_mean = log_mean - valid[counted].sum(dim=1, keepdim=True).log()
    told = events[counted].float()
    total = -(told / told.sum(dim=1, keepdim=True) * log_mean).sum()
    return Loss(total, int(counted.sum()))
