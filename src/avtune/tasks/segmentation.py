"""Audio-visual segmentation: which pixels of each second sound, and if wanted of what class (AVSBench)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.config import HeadConfig, InputConfig
from avtune.datasets import Record
from avtune.datasets.masks import UNLABELLED, load_masks
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.heads.segmentation import (
    PIXELS,
    PRESETS,
    SOUNDS,
    SegmentationSettings,
    build_mask_head,
    matching_divergence,
)
from avtune.heads.segments import full_precision
from avtune.metrics.segmentation import MaskSums
from avtune.metrics.semantic_segmentation import ClassSums
from avtune.options import chosen
from avtune.tasks.base import Answer, Loss, Scores, Task, Truth
from avtune.tasks.mask_prediction import MaskPrediction, surest_classes
from avtune.tasks.predictions import Window, segment_means, window_notes
from avtune.transforms import Batch

Sums = npt.NDArray[np.float64]
SILENT, SOUNDING = "silent", "sounding"


class SegmentationTask(Task):
    """Which pixels sound in the middle of each second.

    The score is AVSBench's mean Jaccard index (mIoU) over the frames that exist and are labelled; its F-score, at a
    batch of one video, stands beside it. With ``head.options.semantic`` it is the mean over classes.

    Args:
        labels: Names of the classes, read with ``semantic`` alone.
        input: Segments per clip, each a second long.
        head: ``preset`` and ``options`` name the settings, see
            :class:`avtune.heads.segmentation.SegmentationSettings`.
        words: Not read.

    Raises:
        avtune.errors.AvtuneError: A setting is unknown or impossible, or frames are not taken where masks are told.
    """

    target_per_segment = True
    target_is_picture = True
    needs_stages = True

    def __init__(
        self, labels: tuple[str, ...], input: InputConfig, head: HeadConfig, words: tuple[str, ...] = ()
    ) -> None:
        super().__init__(labels, input, head, words)
        self.settings: SegmentationSettings = chosen("segmentation", PRESETS, head.preset, head.options)
        if input.segment_seconds != 1 or input.video.placement != "grid":
            raise AvtuneError(
                "masks belong to the frame in the middle of each second; set input.segment_seconds to 1 and "
                "input.video.placement to grid"
            )
        if self.settings.semantic and not 0 < len(labels) < UNLABELLED - 1:
            raise AvtuneError(
                f"{len(labels)} classes cannot be told apart in masks; give 1 to {UNLABELLED - 2}, or set "
                "head.options.semantic to false"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Silence and the labels; one name where classes are not told apart."""
        return (SILENT, *self.labels) if self.settings.semantic else (SOUNDING,)

    def build_head(self, audio_tower: Tower, video_tower: Tower) -> nn.Module:
        """The mask head, :class:`avtune.heads.segmentation.MaskHead`."""
        frame = self.input.video.size or video_tower.image_size
        return build_mask_head(audio_tower, video_tower, frame, len(self.class_names), self.settings)

    def target(self, record: Record) -> Tensor:
        """What each pixel is, (T, size, size) uint8: 0 silent, 1 sounding or a class, ``UNLABELLED`` not told.

        With ``semantic``, masks that tell no classes get the label of the one event that happens in their second;
        where several do, or none, sounding pixels are not labelled.
        """
        masks = load_masks(record, self.input.segments, self.settings.size)
        if not self.settings.semantic:
            return torch.where(masks == UNLABELLED, masks, masks.clamp(max=1))
        if record.masks is not None and record.masks.classes:
            return masks
        for segment, mask in enumerate(masks):
            second = round(record.start) + segment
            happening = {
                event.label for event in record.events if event.start < second + 1 and event.end > second
            }
            only = self.labels.index(happening.pop()) + 1 if len(happening) == 1 else UNLABELLED
            mask[mask == 1] = only
        return masks

    def loss(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> Loss:
        """Mean over the labelled pixels of each labelled frame, summed over frames.

        Binary cross-entropy, or with ``semantic`` cross-entropy; and ``matching`` times the divergence between the
        sound and the pixels that the mask selects.
        """
        target, frames = self._labelled(batch)
        with full_precision(outputs):
            logits = outputs.float()
            if self.settings.semantic:
                each = F.cross_entropy(
                    logits[frames], target[frames].long(), ignore_index=UNLABELLED, reduction="none"
                )
            else:
                truth = (target[frames] == 1).float()
                each = F.binary_cross_entropy_with_logits(logits[frames][:, 0], truth, reduction="none")
            told = target[frames] != UNLABELLED
            total = ((each * told).sum(dim=(1, 2)) / told.sum(dim=(1, 2))).sum()
            if self.settings.matching:
                records = encoded.notes.records
                divergence = matching_divergence(logits, records[PIXELS], records[SOUNDS])
                total = total + self.settings.matching * divergence[frames].sum()
        return Loss(total, int(frames.sum()))

    def foreground(self, batch: Batch) -> Tensor:
        """Valid segments with a sounding pixel, of clips with both streams, (batch * T,) bool."""
        target, frames = self._labelled(batch)
        whole = (batch.has_audio & batch.has_video)[:, None]
        sounding = ((target != 0) & (target != UNLABELLED)).flatten(2).any(dim=2)
        return (frames & whole & sounding).flatten()

    def tally(self, outputs: Tensor, batch: Batch) -> Sums:
        """Sums over the clips' frames that exist and are labelled, each clip for itself."""
        target, frames = self._labelled(batch)
        zero = MaskSums.empty().as_array()
        if self.settings.semantic:
            zero = np.concatenate([[0.0], ClassSums.empty(len(self.class_names)).as_array().ravel()])
        total: Sums = zero
        for logits, truth, kept in zip(outputs, target, frames, strict=True):
            if kept.any():
                total = total + self._sums(logits[kept].float(), truth[kept].cpu().numpy())
        return total

    def _sums(self, logits: Tensor, truth: npt.NDArray[np.uint8]) -> Sums:
        if not self.settings.semantic:
            return MaskSums.of_video(logits[:, 0].sigmoid().cpu().numpy(), truth == 1).as_array()
        found = logits.argmax(dim=1).cpu().numpy()
        sums = ClassSums.of_frames(found, truth, len(self.class_names), unlabelled=UNLABELLED)
        return np.concatenate([[float(len(truth))], sums.as_array().ravel()])

    def score(self, tally: Sums) -> Scores:
        """mIoU, with the F-scores beside it; with ``semantic`` every class's own."""
        if self.settings.semantic:
            sums = ClassSums.from_array(tally[1:].reshape(3, -1))
            rows = [
                {"label": name, "iou": iou, "f_score": f, "frames": int(frames)}
                for name, iou, f, frames in zip(self.class_names, *sums.per_class(), sums.frames, strict=True)
            ]
            details: dict[str, Any] = {
                "frames": int(tally[0]), "f_score": sums.mean_f, "miou_present": sums.miou_present,
                "per_class": rows,
            }  # fmt: skip
            return Scores("mIoU over classes", sums.miou, details)
        masks = MaskSums.from_array(tally)
        details = {
            "frames": masks.frames,
            "sounding_frames": masks.sounding,
            "miou_sounding": masks.miou_sounding,
            "lit_in_silence": masks.lit_in_silence,
            "f_score": masks.f,
            "pooled_f": masks.pooled_f,
            "videos": masks.videos,
        }
        return Scores("mIoU", masks.miou, details)

    def blind_answers(self, truths: Iterable[Truth]) -> Mapping[str, Answer]:
        """``all silent``: nothing sounds, ever; ``mean mask``: what each pixel most often is in the training masks."""
        classes, size = len(self.class_names), self.settings.size
        counts = torch.zeros(max(classes, 2), size, size)
        for truth in truths:
            for mask in truth.target:
                for k in mask.unique().tolist():
                    if k != UNLABELLED:
                        counts[k] += mask == k
        shares = counts / counts.sum(dim=0).clamp(min=1)
        silent = torch.full((classes, size, size), -1.0)
        if self.settings.semantic:
            silent[0] = 1.0
            return {"all silent": _always(silent), "mean mask": _always(shares)}
        return {"all silent": _always(silent), "mean mask": _always(torch.logit(shares[1:], eps=1e-6))}

    def parts(self, outputs: Tensor, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """``probabilities`` (batch, T, size, size) that a pixel sounds; or of its class, in ``classes``."""
        logits = outputs.float()
        if not self.settings.semantic:
            return {"probabilities": logits[:, :, 0].sigmoid()}
        surest = logits.softmax(dim=2).max(dim=2)
        return {"probabilities": surest.values, "classes": surest.indices.to(torch.uint8)}

    def predict(self, path: Path, windows: Sequence[Window], question: str | None = None) -> MaskPrediction:
        """The mask of each second; where windows overlap probabilities are averaged, of classes the surer is taken."""
        seconds, notes = self.input.segment_seconds, window_notes(windows)
        if self.settings.semantic:
            classes, surest = surest_classes(windows, seconds)
            return MaskPrediction(path, self.class_names, seconds, surest, classes, notes=notes)
        means = segment_means(windows, "probabilities", seconds)
        return MaskPrediction(path, self.class_names, seconds, means, notes=notes)

    def _labelled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The target, and which frames exist and have a labelled pixel, (batch, T) bool."""
        assert batch.target is not None
        told = (batch.target != UNLABELLED).flatten(2).any(dim=2)
        return batch.target, batch.valid & told


def _always(answer: Tensor) -> Answer:
    def answered(batch: Batch) -> Tensor:
        return answer.to(batch.valid.device).expand(*batch.valid.shape, *answer.shape)

    return answered
