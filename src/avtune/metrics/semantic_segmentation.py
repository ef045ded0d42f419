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
    def of_frames(cls, predicted: Any, truth: Any, classes: int) -> ClassSums:
        """The sums of some frames.

        Args:
            predicted: (frames, height, width) class indices.
            truth: (frames, height, width) class indices.
            classes: Number of classes, background included.

        Raises:
            ValueError: The shapes differ, or an index lies outside ``[0, classes)``.
        """
        found, true = np.asarray(predicted, dtype=np.int64), np.asarray(truth, dtype=np.int64)
        check_frames(found, true)
        for name, values in (("predicted", found), ("true", true)):
            if values.size and not (values.min() >= 0 and values.max() < classes):
                raise ValueError(
                    f"{name} classes lie in {values.min()} to {values.max()}, not within {classes}"
                )
        sums = cls(np.zeros(classes), np.zeros(classes), np.zeros(classes))
        for guess, real in zip(found, true, strict=True):
            pairs = np.bincount(classes * real.ravel() + guess.ravel(), minlength=classes**2)
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
