"""Which of several labels hold in each segment of a clip, where any number of them may at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from avtune.datasets.records import Event, event_numbers


def presence(
    events: Sequence[Event],
    labels: Sequence[str],
    segments: int,
    segment_seconds: float,
    start: float = 0.0,
) -> npt.NDArray[np.bool_]:
    """Whether each label holds in each segment: where its events together cover at least half of it.

    On whole segments this is LLP's rule: segment t has a label iff one of its events has ``start <= t < end``.

    Args:
        events: What happens, seconds from the start of the file.
        labels: Names of the events in the order of their class indices.
        segments: Number of segments, T.
        segment_seconds: Length of a segment, seconds.
        start: Where the first segment begins in the file, seconds.

    Returns:
        (T, classes).

    Raises:
        DatasetError: An event's label is none of ``labels``.
    """
    ordered = sorted(events, key=lambda event: event.start)
    begins = np.arange(segments, dtype=np.float64) * segment_seconds + start
    covered = np.zeros((segments, len(labels)))
    reached = np.full(len(labels), -np.inf)
    for event, label in zip(ordered, event_numbers(ordered, labels), strict=True):
        # What an earlier event of the label covered already counts once.
        first = max(event.start, reached[label])
        reached[label] = max(reached[label], event.end)
        lasting = np.minimum(begins + segment_seconds, event.end) - np.maximum(begins, first)
        covered[:, label] += lasting.clip(min=0)
    present: npt.NDArray[np.bool_] = covered >= 0.5 * segment_seconds - 1e-9
    return present
