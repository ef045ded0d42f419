"""Scores as pure functions on arrays: nothing of avtune is imported here, so anything may use them."""

from avtune.metrics.localization import (
    ClassScores,
    SegmentCounts,
    confusion_matrix,
    majority_accuracy,
    per_class,
    segment_accuracy,
)

__all__ = [
    "ClassScores",
    "SegmentCounts",
    "confusion_matrix",
    "majority_accuracy",
    "per_class",
    "segment_accuracy",
]
