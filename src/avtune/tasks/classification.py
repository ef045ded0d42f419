"""Classification of whole clips, with one label each or any number of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.config import HeadConfig, InputConfig
from avtune.datasets import Record
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.heads import head_of
from avtune.metrics.classification import average_precisions, top_k_hits
from avtune.tasks.base import Answer, Loss, Rows, Scores, Task, Truth
from avtune.tasks.predictions import ClassPrediction, Window, clip_mean, window_notes
from avtune.transforms import Batch

HEADS_WITHOUT_BACKGROUND = ("segment", "mbt")


class ClassificationTask(Task):
    """What a clip is: a segment head answers every segment, and the mean over those that exist is the clip's answer.

    With one label the loss is cross-entropy and the score top-1 accuracy; with any number of labels
    (``head.multi_label``) binary cross-entropy and mean average precision, as AudioSet counts it.

    Args:
        labels: Names of the classes.
        input: Segments per clip and their length.
        head: Which head and its settings.
        words: Not read.

    Raises:
        avtune.errors.AvtuneError: There is no such head or preset, they do not fit together, or the head has its own
            idea of background.
    """

    def __init__(
        self, labels: tuple[str, ...], input: InputConfig, head: HeadConfig, words: tuple[str, ...] = ()
    ) -> None:
        super().__init__(labels, input, head, words)
        self.kind = head_of(head)
        if head.name not in HEADS_WITHOUT_BACKGROUND:
            raise AvtuneError(
                f"the head {head.name!r} tells events from background and cannot classify whole clips; choose "
                f"head.name from {', '.join(HEADS_WITHOUT_BACKGROUND)}"
            )

    def build_head(self, audio_tower: Tower, video_tower: Tower) -> nn.Module:
        """The segment head that the recipe names, averaged over time."""
        return ClipHead(self.kind.build(audio_tower.dim, video_tower.dim, len(self.labels), self.head))

    def target(self, record: Record) -> Tensor:
        """Its class, () int64; or which classes it has, (classes,) bool.

        Of several events a clip with one label has that of the first.
        """
        indices = [self.labels.index(event.label) for event in record.events]
        if self.head.multi_label:
            return torch.zeros(len(self.labels), dtype=torch.bool).index_fill(
                0, torch.tensor(indices).long(), True
            )
        return torch.tensor(indices[0])

    def loss(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> Loss:
        """Cross-entropy of the class; or the mean over classes of each one's binary cross-entropy.

        Soft targets (mixed clips) are taken as well: (batch, classes) floats.
        """
        assert batch.target is not None
        counted = batch.valid.any(dim=1)
        logits, target = outputs[counted].float(), batch.target[counted]
        with torch.autocast(outputs.device.type, enabled=False):
            if self.head.multi_label:
                each = F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none")
                total = each.mean(dim=1).sum()
            else:
                total = F.cross_entropy(logits, target, reduction="sum")
        return Loss(total, int(counted.sum()))

    def tally(self, outputs: Tensor, batch: Batch) -> Rows:
        """Each clip's scores and truth."""
        assert batch.target is not None
        return Rows({"scores": outputs.float().cpu().numpy(), "true": batch.target.cpu().numpy()})

    def score(self, tally: Rows) -> Scores:
        """Top-1 accuracy, with top-5, classes and the confusion counts beside it; or mean average precision."""
        scores, true = tally.columns["scores"], tally.columns["true"]
        if self.head.multi_label:
            each = average_precisions(scores, true)
            rows = [
                {
                    "label": label,
                    "average_precision": None if np.isnan(value) else float(value),
                    "clips": int(count),
                }
                for label, value, count in zip(self.labels, each, true.sum(axis=0), strict=True)
            ]
            mean = 0.0 if np.isnan(each).all() else float(np.nanmean(each))
            return Scores("mean average precision", mean, {"clips": len(true), "per_class": rows})
        hits = top_k_hits(scores, true)
        classes = len(self.labels)
        confusion = np.bincount(classes * true + scores.argmax(axis=1), minlength=classes**2)
        rows = [
            {"label": label, "recall": float(hits[true == k].mean()) if (true == k).any() else None,
             "clips": int((true == k).sum())}
            for k, label in enumerate(self.labels)
        ]  # fmt: skip
        details = {
            "clips": len(true),
            "top_5": float(top_k_hits(scores, true, 5).mean()),
            "per_class": rows,
            "confusion": confusion.reshape(classes, classes).tolist(),
        }
        return Scores("top-1 accuracy", float(hits.mean()), details)

    def blind_answers(self, truths: Iterable[Truth]) -> Mapping[str, Answer]:
        """``majority``: the training clips' most frequent class; with any number of labels how frequent each is."""
        support = torch.zeros(len(self.labels))
        for truth in truths:
            support += truth.target if self.head.multi_label else F.one_hot(truth.target, len(self.labels))

        def majority(batch: Batch) -> Tensor:
            return support.to(batch.valid.device).expand(len(batch), -1)

        return {"majority": majority}

    def parts(self, outputs: Tensor, encoded: Encoded) -> dict[str, Tensor]:
        """``probabilities`` (batch, classes): softmax over classes, or a sigmoid of each."""
        scores = outputs.float()
        return {"probabilities": scores.sigmoid() if self.head.multi_label else scores.softmax(-1)}

    def predict(self, path: Path, windows: Sequence[Window], question: str | None = None) -> ClassPrediction:
        """The probability of each class, averaged over the windows of a long file."""
        mean, seconds = clip_mean(windows, "probabilities"), self.input.segment_seconds
        return ClassPrediction(
            path, self.labels, seconds, mean, self.head.multi_label, notes=window_notes(windows)
        )


class ClipHead(nn.Module):
    """A segment head's logits, averaged over the segments that exist.

    Args:
        segments: Gives class logits (batch, T, classes).
    """

    def __init__(self, segments: nn.Module) -> None:
        super().__init__()
        self.segments = segments

    def forward(self, encoded: Encoded) -> Tensor:
        """Class logits (batch, classes); a clip without any valid segment gets the mean of all."""
        logits: Tensor = self.segments(encoded)
        if encoded.valid is None:
            return logits.mean(dim=1)
        weights = encoded.valid | ~encoded.valid.any(dim=1, keepdim=True)
        weights = weights.to(logits.dtype).unsqueeze(-1)
        mean: Tensor = (logits * weights).sum(dim=1) / weights.sum(dim=1)
        return mean
