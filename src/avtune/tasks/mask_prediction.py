"""What a segmentation model says of a file, and how the windows over a long one are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avtune.tasks.predictions import Floats, Prediction, Window

Classes = npt.NDArray[np.uint8]
THRESHOLD = 0.5
"""A pixel sounds above this probability, as AVSBench counts it."""


@dataclass(frozen=True)
class MaskPrediction(Prediction):
    """Which pixels sound, second by second.

    Masks cover the whole frame, squeezed to a square.

    Attributes:
        labels: What a pixel can be: silent, then the classes, or one name for all that sounds.
        probabilities: (segments, size, size) that a pixel sounds; with ``classes`` that it is of its class.
        classes: (segments, size, size) index of each pixel's class, 0: silent; ``None``: classes are not told.
    """

    probabilities: Floats
    classes: Classes | None = None

    @property
    def sounding(self) -> npt.NDArray[np.bool_]:
        """(segments, size, size) whether a pixel sounds."""
        sounding: npt.NDArray[np.bool_] = (
            self.probabilities > THRESHOLD if self.classes is None else self.classes > 0
        )
        return sounding

    @property
    def shares(self) -> Floats:
        """(segments,) share of the frame that sounds, in [0, 1]."""
        shares: Floats = self.sounding.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
        return shares

    @property
    def times(self) -> Floats:
        """(segments,) seconds in the file of the frames that the masks belong to: the middles of the segments."""
        times: Floats = ((np.arange(len(self.probabilities)) + 0.5) * self.segment_seconds).astype(np.float32)
        return times

    def class_shares(self, segment: int) -> list[tuple[str, float]]:
        """Names of the classes that sound in a segment with their share of the frame, the largest first."""
        if self.classes is None:
            return []
        counts = np.bincount(self.classes[segment].ravel(), minlength=len(self.labels))
        order = np.argsort(-counts[1:], kind="stable") + 1
        return [(self.labels[k], float(counts[k]) / counts.sum()) for k in order if counts[k]]


def surest_classes(windows: Sequence[Window], segment_seconds: float) -> tuple[Classes, Floats]:
    """The class of each pixel of each segment of a file: where windows overlap that of the surer one.

    Args:
        windows: Windows over the file, with ``classes`` (T, size, size) and their ``probabilities``.
        segment_seconds: Length of a segment.

    Returns:
        Class indices (segments, size, size) and their probabilities, segments beyond the file's end left out.
    """
    found: dict[int, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
    for window in windows:
        first = round(window.start / segment_seconds)
        for k in np.flatnonzero(window.valid):
            classes, sure = window.parts["classes"][k], window.parts["probabilities"][k]
            if (place := first + int(k)) in found:
                before, as_sure = found[place]
                classes, sure = np.where(sure > as_sure, classes, before), np.maximum(sure, as_sure)
            found[place] = classes, sure
    ordered = [found[place] for place in sorted(found)]
    return (
        np.stack([classes for classes, _ in ordered]).astype(np.uint8),
        np.stack([sure for _, sure in ordered]).astype(np.float32),
    )
