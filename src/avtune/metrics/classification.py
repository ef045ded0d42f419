"""Classification of whole clips: one label each, or any number of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def top_k_hits(scores: Any, true: Any, k: int = 1) -> npt.NDArray[np.bool_]:
    """Whether the true class is among the k best of each clip.

    Args:
        scores: (clips, classes), higher is likelier.
        true: (clips,) class indices.
        k: How many guesses count, at least one.

    Returns:
        (clips,). A class that ties with the true one stands before it: equal scores for all are no answer.

    Raises:
        ValueError: The shapes do not fit, a score is not finite, or a truth is no index of a class.
    """
    values, classes = _finite(scores), np.asarray(true, dtype=np.int64)
    if values.ndim != 2 or classes.shape != values.shape[:1]:
        raise ValueError(
            f"scores are (clips, classes) and truths (clips,), not {values.shape}, {classes.shape}"
        )
    if ((classes < 0) | (classes >= values.shape[1])).any():
        raise ValueError(f"truths are indices of {values.shape[1]} classes")
    own = values[np.arange(len(values)), classes]
    hits: npt.NDArray[np.bool_] = (values >= own[:, None]).sum(axis=1) <= k
    return hits


def average_precision(scores: Any, true: Any) -> float:
    """Area under the steps of precision over recall, for one class: sum of P_n (R_n - R_{n-1}) over its thresholds.

    Args:
        scores: (clips,), higher is likelier; equal scores share a threshold.
        true: (clips,) booleans.

    Returns:
        In [0, 1]; NaN where no clip is of the class.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    values, positive = _finite(scores), np.asarray(true, dtype=bool)
    if values.shape != positive.shape or values.ndim != 1:
        raise ValueError(f"scores and truths are (clips,), not {values.shape} and {positive.shape}")
    if not positive.any():
        return float("nan")
    order = np.argsort(-values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    hits = np.cumsum(positive[order])[ends]
    precision, recall = hits / (ends + 1), hits / positive.sum()
    return float((precision * np.diff(recall, prepend=0)).sum())


def average_precisions(scores: Any, true: Any) -> Floats:
    """Average precision of each class; AudioSet's mAP is the unweighted mean over those that occur.

    Args:
        scores: (clips, classes).
        true: (clips, classes) booleans.

    Returns:
        (classes,), NaN for classes that do not occur.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(true, dtype=bool)
    if values.shape != positive.shape or values.ndim != 2:
        raise ValueError(f"scores and truths are (clips, classes), not {values.shape} and {positive.shape}")
    return np.array([average_precision(*pair) for pair in zip(values.T, positive.T, strict=True)])


def _finite(scores: Any) -> Floats:
    values = np.asarray(scores, dtype=np.float64)
    # In comparisons "not a number" would pass for the best guess.
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    return values
