"""What a model says of a file, one form for each kind of answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """One input of the model and what came out.

    Attributes:
        start: Where it begins in the file, seconds.
        valid: Which of its segments exist in the file, (T,) bool.
        notes: What a person should know of it.
        parts: What :meth:`avtune.tasks.Task.parts` kept of its outputs, by name.
    """

    start: float
    valid: npt.NDArray[np.bool_]
    notes: tuple[str, ...]
    parts: dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class TimelineEvent:
    """A stretch of time with one answer.

    Attributes:
        start: Seconds.
        end: Seconds.
        label: What happens.
        probability: Mean over its segments, in [0, 1].
    """

    start: float
    end: float
    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What every prediction tells.

    Attributes:
        path: The file.
        labels: Names of the classes or answers.
        segment_seconds: Length of one segment.
        notes: What a reader should know: a stream that is missing, damage, padding.
    """

    path: Path
    labels: tuple[str, ...]
    segment_seconds: float
    notes: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class TimelinePrediction(Prediction):
    """Which one event happens in each segment.

    Attributes:
        labels: Class names, background last.
        probabilities: (segments, classes), rows sum to one; segments cover the file from 0 on.
    """

    probabilities: Floats

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """The most probable class of each segment (segments,)."""
        classes: npt.NDArray[np.int64] = self.probabilities.argmax(-1).astype(np.int64)
        return classes

    @property
    def timeline(self) -> list[TimelineEvent]:
        """Runs of equal answers, background left out."""
        classes = self.classes
        bounds = [0, *(int(k) + 1 for k in np.flatnonzero(np.diff(classes))), len(classes)]
        return [
            TimelineEvent(
                start * self.segment_seconds,
                end * self.segment_seconds,
                self.labels[classes[start]],
                float(self.probabilities[start:end, classes[start]].mean()),
            )
            for start, end in pairwise(bounds)
            if start < end and classes[start] != len(self.labels) - 1
        ]


def by_probability(labels: Sequence[str], probabilities: Floats) -> list[tuple[str, float]]:
    """Labels with their probabilities, the likeliest first; of equally likely ones the one listed first.

    Args:
        labels: Names.
        probabilities: (labels,).
    """
    order = np.argsort(-probabilities, kind="stable")
    return [(labels[k], float(probabilities[k])) for k in order]


@dataclass(frozen=True)
class ClassPrediction(Prediction):
    """What a whole clip is.

    Attributes:
        probabilities: (classes,); they sum to one where a clip has one label, and each stands alone where it has any
            number.
        multi_label: Whether a clip can have any number of labels.
    """

    probabilities: Floats
    multi_label: bool = False

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Labels with their probabilities, the likeliest first."""
        return by_probability(self.labels, self.probabilities)


def window_notes(windows: Sequence[Window]) -> tuple[str, ...]:
    """The remarks of all windows, each once."""
    return tuple(dict.fromkeys(note for window in windows for note in window.notes))


def segment_means(windows: Sequence[Window], part: str, segment_seconds: float) -> Floats:
    """One value for each segment of a file: the mean over the windows that see it.

    Args:
        windows: Windows over the file.
        part: Name of what they kept, (T, ...) each.
        segment_seconds: Length of a segment.

    Returns:
        (segments, ...), from the file's beginning on, segments beyond its end left out.
    """
    total: dict[int, Any] = {}
    votes: dict[int, int] = {}
    for window in windows:
        first, rows = round(window.start / segment_seconds), window.parts[part]
        for k in np.flatnonzero(window.valid):
            place = first + int(k)
            total[place] = total.get(place, np.zeros(rows.shape[1:])) + rows[k]
            votes[place] = votes.get(place, 0) + 1
    means: Floats = np.stack([total[place] / votes[place] for place in sorted(total)]).astype(np.float32)
    return means


def clip_mean(windows: Sequence[Window], part: str) -> Floats:
    """One value for a whole file: the mean over its windows, each weighing as many segments as it has.

    Args:
        windows: Windows over the file.
        part: Name of what they kept.
    """
    weights = [int(window.valid.sum()) for window in windows]
    mean: Floats = np.average([window.parts[part] for window in windows], axis=0, weights=weights).astype(
        np.float32
    )
    return mean
