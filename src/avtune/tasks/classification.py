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
from avtune.datasets import DatasetError, Record
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.heads import head_of
from avtune.heads.mbt import mbt_settings
from avtune.heads.segments import full_precision
from avtune.metrics.classification import average_precisions, top_k_hits
from avtune.tasks.base import Answer, Loss, Rows, Scores, Task, Truth
from avtune.tasks.predictions import ClassPrediction, Window, clip_mean, window_notes
from avtune.transforms import Batch

HEADS = ("segment", "mbt", "ma_avt")
"""Heads whose answers for the segments of a clip have a mean that is an answer for the clip."""


class ClassificationTask(Task):
    """What a clip is: a segment head answers every segment, and the mean over those that exist is the clip's answer.

    With one label the loss is cross-entropy and the score top-1 accuracy; with any number of labels
    (``head.multi_label``) binary cross-entropy and mean average precision, as AudioSet counts it.

    The head ``ma_avt`` learns besides whether sound and frames belong together, from the pairs that ``train.mining``
    mismatches; its classes alone are the answer, as in MA-AVT's scores on VGGSound and CREMA-D.

    Args:
        labels: Names of the classes.
        input: Segments per clip and their length.
        head: Which head and its settings.
        words: Not read.

    Raises:
        avtune.errors.AvtuneError: There is no such head or preset, they do not fit together, or the head is for event
            localization alone.
    """

    def __init__(
        self, labels: tuple[str, ...], input: InputConfig, head: HeadConfig, words: tuple[str, ...] = ()
    ) -> None:
        super().__init__(labels, input, head, words)
        self.kind = head_of(head)
        if head.name not in HEADS:
            raise AvtuneError(
                f"the head {head.name!r} tells events from background and cannot classify whole clips; choose "
                f"head.name from {', '.join(HEADS)}"
            )
        if head.loss != HeadConfig().loss:
            raise AvtuneError(f"head.loss {head.loss} is for event localization; leave it out")
        if head.name == "ma_avt":
            if head.multi_label or head.label_smoothing:
                raise AvtuneError(
                    "the head ma_avt gives a clip one label and brings its own loss; leave head.multi_label and "
                    "head.label_smoothing out"
                )
            self.background = len(labels)
        self.mixable = self.background is None

    def build_head(self, audio_tower: Tower, video_tower: Tower) -> nn.Module:
        """The segment head that the recipe names, averaged over time."""
        classes = len(self.labels)
        outputs = classes if self.background is None else classes + 1
        return ClipHead(self.kind.build(audio_tower.dim, video_tower.dim, outputs, self.head), classes)

    def target(self, record: Record) -> Tensor:
        """Its class, () int64; or which classes it has, (classes,) bool.

        Of several events a clip with one label has that of the first.

        Raises:
            DatasetError: A label is unknown, or a clip that needs one has none.
        """
        if unknown := [event.label for event in record.events if event.label not in self.labels]:
            raise DatasetError(f"label {unknown[0]!r} is none of the {len(self.labels)} that the model knows")
        indices = [self.labels.index(event.label) for event in record.events]
        if self.head.multi_label:
            return torch.zeros(len(self.labels), dtype=torch.bool).index_fill(
                0, torch.tensor(indices).long(), True
            )
        if not indices:
            raise DatasetError("the clip has no label; give it one, or classify with head.multi_label")
        return torch.tensor(indices[0])

    def soft_target(self, target: Tensor) -> Tensor:
        """Each class's share, (batch, classes)."""
        return target.float() if self.head.multi_label else F.one_hot(target, len(self.labels)).float()

    def loss(self, outputs: Tensor, encoded: Encoded | None, batch: Batch) -> Loss:
        """Cross-entropy of the class; or the mean over classes of each one's binary cross-entropy.

        Soft targets (mixed clips) are taken as well: (batch, classes) floats. The head ``ma_avt`` and MBT's
        ``class_token`` bring their own losses, the first for each segment (the papers' clips have one); other heads
        need no ``encoded``.
        """
        assert batch.target is not None
        with full_precision(outputs):
            if self.background is not None:
                assert encoded is not None
                segments = encoded.notes.records[SEGMENT_LOGITS][-1].float()
                told = batch.target[:, None].expand_as(batch.valid)
                total = self.kind.loss(segments, encoded.notes, told, batch.valid, self.head)
                return Loss(total, int(batch.valid.sum()))
            counted = batch.valid.any(dim=1)
            answers = [outputs]
            if self.head.name == "mbt" and mbt_settings(self.head).read == "class_token":
                assert encoded is not None
                own = encoded.notes.records["stream_logits"][-1]
                answers = [clip_mean_logits(part, batch.valid) for part in own]
            losses = [self._loss(part[counted].float(), batch.target[counted]) for part in answers]
        return Loss(torch.stack(losses).mean(), int(counted.sum()))

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        smoothing = self.head.label_smoothing
        if self.head.multi_label:
            soft = (1 - smoothing) * target.float() + smoothing / len(self.labels)
            return F.binary_cross_entropy_with_logits(logits, soft, reduction="none").mean(dim=1).sum()
        return F.cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing)

    def foreground(self, batch: Batch) -> Tensor:
        """Valid segments of clips with both streams that belong together, (batch * T,) bool."""
        if self.background is None:
            return super().foreground(batch)
        assert batch.target is not None
        matched = batch.has_audio & batch.has_video & (batch.target != self.background)
        return (batch.valid & matched[:, None]).flatten()

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

    def parts(self, outputs: Tensor, encoded: Encoded | None, batch: Batch) -> dict[str, Tensor]:
        """``probabilities`` (batch, classes): softmax over classes, or a sigmoid of each."""
        scores = outputs.float()
        return {"probabilities": scores.sigmoid() if self.head.multi_label else scores.softmax(-1)}

    def predict(self, path: Path, windows: Sequence[Window], question: str | None = None) -> ClassPrediction:
        """The probability of each class, averaged over the windows of a long file."""
        mean, seconds = clip_mean(windows, "probabilities"), self.input.segment_seconds
        return ClassPrediction(
            path, self.labels, seconds, mean, self.head.multi_label, notes=window_notes(windows)
        )


SEGMENT_LOGITS = "segment_logits"


class ClipHead(nn.Module):
    """A segment head's logits, averaged over the segments that exist.

    Args:
        segments: Gives logits (batch, T, outputs); they go to the notes as ``segment_logits``.
        classes: How many of the outputs, from the first on, are classes of clips.
    """

    def __init__(self, segments: nn.Module, classes: int) -> None:
        super().__init__()
        self.segments, self.classes = segments, classes

    def forward(self, encoded: Encoded) -> Tensor:
        """Class logits (batch, classes); a clip without any valid segment gets the mean of all."""
        logits: Tensor = self.segments(encoded)
        encoded.notes.record(SEGMENT_LOGITS, logits)
        return clip_mean_logits(logits[..., : self.classes], encoded.valid)


def clip_mean_logits(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over the segments that exist.

    Args:
        logits: (batch, T, classes).
        valid: (batch, T) bool; ``None``: all exist. Of a clip without any, all are taken.

    Returns:
        (batch, classes).
    """
    if valid is None:
        return logits.mean(dim=1)
    weights = (valid | ~valid.any(dim=1, keepdim=True)).to(logits.dtype).unsqueeze(-1)
    mean: Tensor = (logits * weights).sum(dim=1) / weights.sum(dim=1)
    return mean
