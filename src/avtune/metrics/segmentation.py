"""Audio-visual segmentation: how well the sounding pixels are found (AVSBench).

Two numbers, as the benchmark's own code computes them. The Jaccard index ("mIoU") is a mean over frames. Its F-score is
the largest value over thresholds of a curve that is averaged over the frames of one *batch* first, so that it depends
on the batch size; :func:`f_score` takes one video for a batch, as the benchmark's test program does by default.
:func:`pooled_f_score` averages the curve over all frames and depends on no batch.

Everything is summed from values of one frame or one video, so sums over processes give the score of all the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

THRESHOLDS = 255
BETA_SQUARED = 0.3
EPSILON = 1e-7


def mask_ious(probabilities: Any, truth: Any) -> Floats:
    """Jaccard index of each frame, intersection over union at a probability above one half.

    A frame in which nothing sounds scores the share of its pixels that are rightly left out, as in the
    benchmark's code: half a frame predicted scores one half, not zero.

    Args:
        probabilities: (frames, height, width) in [0, 1].
        truth: (frames, height, width), anything but zero where an object sounds.

    Returns:
        (frames,) in [0, 1].

    Raises:
        ValueError: The shapes differ or are not those of frames.
    """
    likely, true = _frames(probabilities, truth)
    found = likely > 0.5
    both = np.count_nonzero(found & true, axis=(1, 2))
    either = np.count_nonzero(found | true, axis=(1, 2))
    neither = np.count_nonzero(~found & ~true, axis=(1, 2))
    silent = ~true.any(axis=(1, 2))
    pixels = true.shape[1] * true.shape[2]
    ious: Floats = np.where(silent, neither, both) / (np.where(silent, pixels, either) + EPSILON)
    return ious


def f_curves(probabilities: Any, truth: Any) -> tuple[Floats, Booleans]:
    """F at each of 255 thresholds from 0 to 1, for each frame: 1.3 P R / (0.3 P + R), 0 where that is undefined.

    The first threshold takes every pixel, so a frame scores above zero whatever is predicted.

    Args:
        probabilities: (frames, height, width) in [0, 1].
        truth: (frames, height, width), anything but zero where an object sounds.

    Returns:
        (frames, 255), and whether something sounds in a frame (frames,); frames in which nothing does take no
        part in any F-score, and their curves are zero.

    Raises:
        ValueError: The shapes differ or are not those of frames.
    """
    found, true = _frames(probabilities, truth)
    sounding = np.asarray(true.any(axis=(1, 2)), dtype=bool)
    curves = np.zeros((len(found), THRESHOLDS))
    thresholds = np.linspace(0, 1, THRESHOLDS, dtype=np.float32)
    for frame in np.flatnonzero(sounding):
        values, mask = found[frame].astype(np.float32).ravel(), true[frame].ravel()
        # How many of the pixels, and of the true ones, reach each threshold.
        predicted = len(values) - np.searchsorted(np.sort(values), thresholds)
        hits = int(mask.sum()) - np.searchsorted(np.sort(values[mask]), thresholds)
        curves[frame] = f_beta(hits, predicted, mask.sum())
    return curves, sounding


def f_beta(hits: Any, predicted: Any, true: Any) -> Floats:
    """F at beta squared 0.3 from numbers of pixels: 1.3 P R / (0.3 P + R), 0 where nothing is hit.

    Args:
        hits: Pixels that are predicted and true, of any shape.
        predicted: Pixels that are predicted.
        true: Pixels that are true.
    """
    precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(true, 1)
    weighed = np.maximum(BETA_SQUARED * precision + recall, 1e-20)
    found: Floats = (1 + BETA_SQUARED) * precision * recall / weighed
    return found


def f_score(curves: Any, sounding: Any) -> float:
    """The benchmark's F of one batch: the largest value of the mean curve of its sounding frames.

    Args:
        curves: (frames, 255).
        sounding: (frames,) booleans.

    Returns:
        In [0, 1]; 0 where nothing sounds in any frame, as in the benchmark's code.
    """
    taking_part = np.asarray(curves, dtype=np.float64)[np.asarray(sounding, dtype=bool)]
    return float(taking_part.mean(axis=0).max()) if len(taking_part) else 0.0


@dataclass
class MaskSums:
    """What scores of masks are made of; sums of two parts of the data are those of the whole.

    Attributes:
        iou: Sum of the Jaccard index over frames.
        frames: Number of frames.
        video_f: Sum of the F of each video.
        videos: Number of videos.
        curve: (255,) sum of the curves of the sounding frames.
        sounding: Number of sounding frames.
        sounding_iou: Sum of the Jaccard index over these.
    """

    iou: float
    frames: int
    video_f: float
    videos: int
    curve: Floats
    sounding: int
    sounding_iou: float

    @classmethod
    def empty(cls) -> MaskSums:
        """The sums of no video."""
        return cls(0.0, 0, 0.0, 0, np.zeros(THRESHOLDS), 0, 0.0)

    @classmethod
    def of_video(cls, probabilities: Any, truth: Any) -> MaskSums:
        """The sums of one video.

        Args:
            probabilities: (frames, height, width) in [0, 1], of the frames that have a truth.
            truth: (frames, height, width).
        """
        ious = mask_ious(probabilities, truth)
        curves, sounding = f_curves(probabilities, truth)
        return cls(
            float(ious.sum()), len(ious), f_score(curves, sounding), 1, curves.sum(axis=0),
            int(sounding.sum()), float(ious[sounding].sum()),
        )  # fmt: skip

    def as_array(self) -> Floats:
        """All of it as one vector, to be added up."""
        numbers = [self.iou, self.frames, self.video_f, self.videos, self.sounding, self.sounding_iou]
        return np.concatenate([numbers, self.curve])

    @classmethod
    def from_array(cls, sums: Floats) -> MaskSums:
        """What :meth:`as_array` gave, or a sum of such."""
        iou, frames, video_f, videos, sounding, sounding_iou = (float(value) for value in sums[:6])
        curve = np.asarray(sums[6:])
        return cls(iou, int(frames), video_f, int(videos), curve, int(sounding), sounding_iou)

    @property
    def miou(self) -> float:
        """Mean Jaccard index over frames."""
        return self.iou / max(self.frames, 1)

    @property
    def miou_sounding(self) -> float:
        """Mean Jaccard index over the sounding frames alone, which no empty answer raises."""
        return self.sounding_iou / max(self.sounding, 1)

    @property
    def lit_in_silence(self) -> float:
        """Share of the frame that is predicted to sound where nothing does, mean over those frames."""
        silent = self.frames - self.sounding
        return 1.0 - (self.iou - self.sounding_iou) / silent if silent else 0.0

    @property
    def f(self) -> float:
        """The benchmark's F-score at a batch of one video: mean over videos."""
        return self.video_f / max(self.videos, 1)

    @property
    def pooled_f(self) -> float:
        """F that depends on no batch: the largest value of the curve averaged over all sounding frames."""
        return float(self.curve.max()) / max(self.sounding, 1)


def _frames(probabilities: Any, truth: Any) -> tuple[Floats, Booleans]:
    found, true = np.asarray(probabilities, dtype=np.float64), np.asarray(truth) != 0
    check_frames(found, true)
    return found, true


def check_frames(found: npt.NDArray[Any], true: npt.NDArray[Any]) -> None:
    """Refuse what are not masks of the same frames.

    Raises:
        ValueError: The shapes differ or are not those of frames, or a probability is not finite.
    """
    if not np.isfinite(found).all():
        raise ValueError("probabilities must be finite")
    if found.shape != true.shape or found.ndim != 3:
        raise ValueError(
            f"masks are (frames, height, width) on both sides, not {found.shape} against {true.shape}"
        )
