from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avtune.datasets import Collection, DatasetError, Event, Record, existing, segment_labels
from avtune.datasets.records import file_name, relative_path

LABELS = ("bark", "horn", "bell")
WHOLE = st.integers(0, 12)


@st.composite
def fractional_events(draw):
    events = []
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, 96)) / 8
        events.append(Event(draw(st.sampled_from(LABELS)), start, start + draw(st.integers(1, 40)) / 8))
    return tuple(events)


@given(start=WHOLE, length=WHOLE, label=st.sampled_from(LABELS), segments=st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_whole_seconds_follow_the_rule_of_ave(start, length, label, segments):
    events = (Event(label, float(start), float(start + length)),) if length else ()
    expected = [LABELS.index(label) if start <= t < start + length else 3 for t in range(segments)]
    assert segment_labels(events, LABELS, segments, 1.0).tolist() == expected


@given(events=fractional_events(), segments=st.integers(1, 12), seconds=st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=100, deadline=None)
def test_a_segment_has_the_class_that_covers_most_of_it(events, segments, seconds):
    found = segment_labels(events, LABELS, segments, seconds)
    assert found.shape == (segments,)
    assert found.dtype == np.int64
    for t, label in enumerate(found):
        covers = [min(event.end, (t + 1) * seconds) - max(event.start, t * seconds) for event in events]
        best = max(covers, default=0.0)
        if best < seconds / 2:
            assert label == 3
        else:
            winner = max(index for index, cover in enumerate(covers) if cover == best)
            assert label == LABELS.index(events[winner].label)


@given(events=fractional_events(), shift=st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_a_window_into_the_file_sees_its_part_of_the_labels(events, shift):
    whole = segment_labels(events, LABELS, 20, 1.0)
    assert np.array_equal(
        segment_labels(events, LABELS, 10, 1.0, start=float(shift)), whole[shift : shift + 10]
    )


def test_half_a_segment_is_enough_and_less_is_not():
    events = (Event("bark", 0.51, 1.0), Event("horn", 1.5, 2.0), Event("bell", 2.0, 2.49))
    assert segment_labels(events, LABELS, 3, 1.0).tolist() == [3, 1, 3]


def test_an_event_to_the_end_covers_every_segment():
    assert segment_labels((Event("horn", 0.0, float("inf")),), LABELS, 4, 0.96).tolist() == [1, 1, 1, 1]
    assert segment_labels((Event("horn", 1.92, float("inf")),), LABELS, 4, 0.96).tolist() == [3, 3, 1, 1]


def test_unknown_labels_are_refused():
    with pytest.raises(DatasetError, match="'meow' is none of the 3 labels"):
        segment_labels((Event("meow", 0.0, 1.0),), LABELS, 4, 1.0)


def test_existing_refuses_a_collection_without_media(tmp_path):
    def collection(train: Path, test: Path) -> Collection:
        splits = {"train": (Record("a", train, ()),), "validation": (), "test": (Record("b", test, ()),)}
        return Collection("folder", tmp_path, LABELS, splits)

    here, absent = tmp_path / "here.mp4", tmp_path / "absent.mp4"
    here.touch()
    with pytest.raises(DatasetError, match="none of the 2 annotated clips is on disk"):
        existing(collection(absent, absent))
    with pytest.raises(DatasetError, match="none of the 1 training clips"):
        existing(collection(absent, here))
    assert existing(collection(here, absent)).missing == (f"b: {absent} is not there",)
    assert existing(collection(here, here)) == collection(here, here)


@given(st.text(max_size=12))
@settings(max_examples=200, deadline=None)
def test_whatever_is_accepted_stays_below_the_root(text):
    root = Path("/root/of/data")
    for accept in (file_name, relative_path):
        problem = ""
        try:
            path = root / accept(text, "line 1")
        except DatasetError as error:
            problem = str(error)
        if problem:
            assert problem.startswith("line 1: ")
            assert "\n" not in problem
        else:
            assert path.is_relative_to(root)
            assert ".." not in path.parts
            assert path != root
            assert accept is relative_path or path.parent == root


def test_one_file_has_one_spelling():
    assert relative_path("a//./b.mp4", "x") == relative_path("a/b.mp4", "x") == "a/b.mp4"
    with pytest.raises(DatasetError, match="plain file name"):
        file_name("a/b.mp4", "x")
