"""Semantic audio-visual segmentation: which pixels sound, and of what class (AVSBench, 71 classes).

As the benchmark's own code: Jaccard index and F of each class are computed in each frame, summed over the frames in
which the class is predicted or true, and divided by the number of these; the scores are means over classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avtune.metrics.segmentation import check_frames, f_beta

Floats = npt.NDArray[np.float64]


@dataclass
class ClassSums:
    """Sums over frames for each class; sums of two parts of the data are those of the whole.

    Attributes:
        iou: (classes,) sum of the Jaccard index.
        f: (classes,) sum of F at beta squared 0.3.
        frames: (classes,) frames in which the class is predicted or true.
    """

    iou: Floats
    f: Floats
    frames: Floats

    @classmethod
    def empty(cls, classes: int) -> ClassSums:
        """The sums of no frame."""
        return cls(np.zeros(classes), np.zeros(classes), np.zeros(classes))

    @classmethod
    def of_frames(cls, predicted: Any, truth: Any, classes: int, unlabelled: int | None = None) -> ClassSums:
        """The sums of some frames.

        Args:
            predicted: (frames, height, width) class indices.
            truth: (frames, height, width) class indices.
            classes: Number of classes, background included.
            unlabelled: Value of true pixels that do not count; ``None``: all count.

        Raises:
            ValueError: The shapes differ, or an index lies outside ``[0, classes)``.
        """
        found, true = np.asarray(predicted, dtype=np.int64), np.asarray(truth, dtype=np.int64)
        check_frames(found, true)
        told = np.ones(true.shape, dtype=bool) if unlabelled is None else true != unlabelled
        for name, values in (("predicted", found), ("true", true[told])):
            if values.size and not (values.min() >= 0 and values.max() < classes):
                raise ValueError(
                    f"{name} classes lie in {values.min()} to {values.max()}, not within {classes}"
                )
        sums = cls.empty(classes)
        for guess, real, counted in zip(found, true, told, strict=True):
            pairs = np.bincount(classes * real[counted] + guess[counted], minlength=classes**2)
            counts = pairs.reshape(classes, classes)
            both, has, says = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
            either = has + says - both
            sums.iou += both / np.maximum(either, 1)
            sums.f += f_beta(both, says, has)
            sums.frames += either > 0
        return sums

    def as_array(self) -> Floats:
        """All of it as (3, classes), to be added up."""
        return np.stack([self.iou, self.f, self.frames])

    @classmethod
    def from_array(cls, sums: Floats) -> ClassSums:
        """What :meth:`as_array` gave, or a sum of such."""
        return cls(*np.asarray(sums, dtype=np.float64))

    def per_class(self) -> tuple[list[float | None], list[float | None]]:
        """Jaccard index and F of each class; ``None`` where it neither occurs nor is predicted."""

        def means(sums: Floats) -> list[float | None]:
            return [float(s / n) if n else None for s, n in zip(sums, self.frames, strict=True)]

        return means(self.iou), means(self.f)

    @property
    def miou(self) -> float:
        """Mean over all classes; one that never occurs counts as zero, as in the benchmark's code."""
        return float((self.iou / np.maximum(self.frames, 1)).mean())

    @property
    def miou_present(self) -> float:
        """Mean over the classes that occur or are predicted; 0 where none does."""
        present = self.frames > 0
        return float((self.iou[present] / self.frames[present]).mean()) if present.any() else 0.0

    @property
    def mean_f(self) -> float:
        """Mean F over all classes; one that never occurs counts as zero, as in the benchmark's code."""
        return float((self.f / np.maximum(self.frames, 1)).mean())
