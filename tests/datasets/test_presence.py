"""Which labels hold in which segment, against counting fine slices of time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtune.datasets import DatasetError, Event
from avtune.datasets.presence import presence

LABELS = ("bell", "drum")
TENTHS = st.integers(0, 60)


@given(
    st.lists(st.tuples(st.sampled_from(LABELS), TENTHS, TENTHS), max_size=6),
    st.sampled_from([1.0, 0.5, 2.0]),
    st.sampled_from([0.0, 1.5]),
)
def test_half_of_a_segment_makes_a_label(
    spans: list[tuple[str, int, int]], seconds: float, start: float
) -> None:
    events = [Event(label, min(a, b) / 10, max(a, b) / 10) for label, a, b in spans if a != b]
    found = presence(events, LABELS, 3, seconds, start)
    for k, label in enumerate(LABELS):
        for t in range(3):
            tenths = round(10 * (start + t * seconds)) + np.arange(round(10 * seconds))
            covered = [
                any(e.label == label and 10 * e.start - 1e-6 <= x < 10 * e.end - 1e-6 for e in events)
                for x in tenths
            ]
            assert found[t, k] == (2 * sum(covered) >= len(tenths))


def test_an_event_without_end_lasts_and_a_foreign_label_is_refused() -> None:
    assert presence([Event("drum", 1.0, math.inf)], LABELS, 3, 1.0)[:, 1].tolist() == [False, True, True]
    with pytest.raises(DatasetError, match="event 'gong' is none of the 2 labels: bell, drum"):
        presence([Event("gong")], LABELS, 3, 1.0)
