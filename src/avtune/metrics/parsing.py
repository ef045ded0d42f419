"""Audio-visual video parsing: which events are heard, which are seen, and when (LLP).

As the dataset's own evaluation: F is computed in each video for each class that is predicted or true there, averaged
over these classes (1 where there is none), then over videos. *Segment* level compares second by second; *event* level
compares runs of seconds, which match where they share at least half of their union.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Booleans = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

LEAST_OVERLAP = 0.5


@dataclass(frozen=True)
class ParsingScores:
    """F of one video, or means over videos, in [0, 1].

    Attributes:
        audio: Of what is heard.
        video: Of what is seen.
        audio_video: Of what is heard and seen in the same second.
        event: Of what is heard and what is seen, counted together ("Event@AV").
    """

    audio: float
    video: float
    audio_video: float
    event: float

    @property
    def type(self) -> float:
        """Mean of the first three ("Type@AV")."""
        return (self.audio + self.video + self.audio_video) / 3


def segment_scores(audio: Any, video: Any, true_audio: Any, true_video: Any) -> ParsingScores:
    """F of one video, second by second.

    Args:
        audio: (classes, seconds) booleans: what is predicted to be heard.
        video: (classes, seconds) booleans: what is predicted to be seen.
        true_audio: (classes, seconds) booleans.
        true_video: (classes, seconds) booleans.

    Raises:
        ValueError: The shapes differ.
    """
    return _scores(_segment_counts, audio, video, true_audio, true_video)


def event_scores(audio: Any, video: Any, true_audio: Any, true_video: Any) -> ParsingScores:
    """F of one video, run by run; arguments as of :func:`segment_scores`."""
    return _scores(_event_counts, audio, video, true_audio, true_video)


def runs(present: Any) -> list[tuple[int, int]]:
    """The runs of true values: (first, behind the last) of each.

    Args:
        present: (seconds,) booleans.
    """
    edges = np.flatnonzero(np.diff(np.asarray(present, dtype=np.int8), prepend=0, append=0))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def _scores(
    count: Callable[[Booleans, Booleans], Counts], audio: Any, video: Any, true_audio: Any, true_video: Any
) -> ParsingScores:
    heard, seen, true_heard, true_seen = (
        np.asarray(part, dtype=bool) for part in (audio, video, true_audio, true_video)
    )
    if not heard.shape == seen.shape == true_heard.shape == true_seen.shape or heard.ndim != 2:
        raise ValueError("audio and video, predicted and true, are (classes, seconds) of one shape")
    of_audio, of_video = count(heard, true_heard), count(seen, true_seen)
    both = count(heard & seen, true_heard & true_seen)
    return ParsingScores(_mean_f(of_audio), _mean_f(of_video), _mean_f(both), _mean_f(of_audio + of_video))


def _segment_counts(found: Booleans, true: Booleans) -> Counts:
    """Right, wrong and missing seconds of each class (3, classes)."""
    return np.stack([(found & true).sum(1), (found & ~true).sum(1), (~found & true).sum(1)])


def _event_counts(found: Booleans, true: Booleans) -> Counts:
    """Right, wrong and missing runs of each class (3, classes)."""
    counts = np.zeros((3, len(found)), dtype=np.int64)
    for label, (guessed, real) in enumerate(zip(found, true, strict=True)):
        guesses, events = runs(guessed), runs(real)
        right = sum(any(_match(guess, event) for event in events) for guess in guesses)
        missed = sum(not any(_match(guess, event) for guess in guesses) for event in events)
        counts[:, label] = right, len(guesses) - right, missed
    return counts


def _match(one: tuple[int, int], other: tuple[int, int]) -> bool:
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    union = one[1] - one[0] + other[1] - other[0] - shared
    return shared >= LEAST_OVERLAP * union


def _mean_f(counts: Counts) -> float:
    right, wrong, missed = counts[:, counts.sum(axis=0) > 0]
    return float((2 * right / (2 * right + wrong + missed)).mean()) if right.size else 1.0
