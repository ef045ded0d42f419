"""Event localization: one class per segment, background counted as a class like any other.

The benchmark's number (AVE) is the share of segments whose predicted class is the true one, pooled over all
segments of all clips: 402 test clips of 10 segments give 4020 decisions. Clips are not averaged first.

Arrays may be numpy arrays, torch tensors on any device or nested lists. Every score is computed from integer
counts, so that counts summed over batches or processes give exactly the score of all the data at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, in the order of the confusion matrix.

    No value is ever NaN: precision is 0 for a class that is never predicted, recall is 0 for a class that
    never occurs, F1 is 0 where both are 0. ``support`` tells these cases apart: leave classes of support 0
    out of averages.

    Attributes:
        precision: (classes,) share of a class's predictions that are right, in [0, 1].
        recall: (classes,) share of a class's segments that are found, in [0, 1].
        f1: (classes,) harmonic mean of precision and recall, in [0, 1].
        support: (classes,) number of segments that truly are of the class.
    """

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    support: Integers


def segment_accuracy(predicted: Any, true: Any, valid: Any = None) -> float:
    """Share of segments whose class is right.

    Args:
        predicted: (clips, segments) class indices.
        true: (clips, segments) class indices.
        valid: (clips, segments) booleans; ``False`` leaves a segment out (padding beyond the clip's end).

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: The shapes differ, the values are no class indices, or no segment is valid.
    """
    guesses, truths = _pairs(predicted, true, valid)
    if not truths.size:
        raise ValueError("accuracy of no valid segment is undefined")
    return int(np.count_nonzero(guesses == truths)) / truths.size


def confusion_matrix(predicted: Any, true: Any, classes: int, valid: Any = None) -> Integers:
    """Count each pair of true and predicted class.

    Args:
        predicted: (clips, segments) class indices.
        true: (clips, segments) class indices.
        classes: Number of classes, background included.
        valid: (clips, segments) booleans; ``False`` leaves a segment out.

    Returns:
        (classes, classes) counts; row: true class, column: predicted class.

    Raises:
        ValueError: The shapes differ, or an index lies outside ``[0, classes)``.
    """
    guesses, truths = _pairs(predicted, true, valid)
    for name, values in (("predicted", guesses), ("true", truths)):
        if values.size and not (values.min() >= 0 and values.max() < classes):
            raise ValueError(
                f"{name} classes lie in [{values.min()}, {values.max()}], expected [0, {classes - 1}]"
            )
    counts = np.bincount(truths * classes + guesses, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def per_class(confusion: Any) -> ClassScores:
    """Precision, recall, F1 and support of each class.

    Args:
        confusion: (classes, classes) counts; row: true class, column: predicted class.

    Returns:
        The scores; see :class:`ClassScores` for classes that never occur.

    Raises:
        ValueError: ``confusion`` is not square.
    """
    counts = _integers(confusion, "confusion")
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a confusion matrix is square, got shape {counts.shape}")
    hits, support, claimed = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return ClassScores(
        precision=hits / np.maximum(claimed, 1),
        recall=hits / np.maximum(support, 1),
        f1=2 * hits / np.maximum(claimed + support, 1),
        support=support,
    )


def majority_accuracy(true: Any, valid: Any = None, *, fitted_on: Any = None) -> float:
    """Accuracy of always answering one class: the floor that any model has to pass.

    Args:
        true: (clips, segments) class indices that are scored.
        valid: (clips, segments) booleans; ``False`` leaves a segment out.
        fitted_on: Class indices (any shape) whose most frequent one is the constant answer, normally the
            training split's; ``None``: the scored segments themselves, the best any constant can do. Of
            equally frequent classes the lowest index is taken.

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: There is no valid segment, or ``fitted_on`` is empty.
    """
    _, truths = _pairs(true, true, valid)
    source = truths if fitted_on is None else _integers(fitted_on, "fitted_on").ravel()
    if not truths.size or not source.size:
        raise ValueError("the majority class of no segment is undefined")
    return int(np.count_nonzero(truths == np.bincount(source).argmax())) / truths.size


class SegmentCounts:
    """Confusion counts that grow batch by batch and add up over processes.

    Adding the counts of any partition of the clips gives exactly the counts of all clips. A sampler that
    repeats clips to fill the last batch has to mark the repeats as not valid.

    Attributes:
        confusion: (classes, classes) counts; row: true class, column: predicted class. The array may be
            summed over processes (``all_reduce``) and handed back to the constructor.
    """

    def __init__(self, classes: int, confusion: Any = None) -> None:
        if confusion is None:
            self.confusion = np.zeros((classes, classes), dtype=np.int64)
            return
        self.confusion = _integers(confusion, "confusion").copy()
        if self.confusion.shape != (classes, classes):
            raise ValueError(
                f"counts of {classes} classes have shape {(classes, classes)}, got {self.confusion.shape}"
            )

    def update(self, predicted: Any, true: Any, valid: Any = None) -> None:
        """Count a batch; arguments as for :func:`confusion_matrix`."""
        self.confusion += confusion_matrix(predicted, true, len(self.confusion), valid)

    def __add__(self, other: SegmentCounts) -> SegmentCounts:
        if self.confusion.shape != other.confusion.shape:
            raise ValueError("counts of differing numbers of classes do not add up")
        return SegmentCounts(len(self.confusion), self.confusion + other.confusion)

    @property
    def segments(self) -> int:
        """Number of segments counted."""
        return int(self.confusion.sum())

    def accuracy(self) -> float:
        """Share of segments whose class is right, in [0, 1]; ``ValueError`` before the first segment."""
        if not self.segments:
            raise ValueError("accuracy of no valid segment is undefined")
        return int(np.trace(self.confusion)) / self.segments

    def per_class(self) -> ClassScores:
        """Precision, recall, F1 and support of each class."""
        return per_class(self.confusion)


def _integers(values: Any, name: str) -> Integers:
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, got {array.dtype}")
    return array.astype(np.int64)


def _pairs(predicted: Any, true: Any, valid: Any) -> tuple[Integers, Integers]:
    guesses, truths = _integers(predicted, "predicted"), _integers(true, "true")
    if guesses.shape != truths.shape:
        raise ValueError(f"predicted has shape {guesses.shape}, true has {truths.shape}")
    if valid is None:
        return guesses.ravel(), truths.ravel()
    keep = np.asarray(valid.detach().cpu() if hasattr(valid, "detach") else valid)
    if keep.shape != truths.shape or keep.dtype != np.bool_:
        raise ValueError(f"valid must be booleans of shape {truths.shape}, got {keep.dtype} of {keep.shape}")
    return guesses[keep], truths[keep]
