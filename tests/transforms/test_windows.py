import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avtune.transforms.windows import (
    Section,
    centred_starts,
    section_starts,
    spread_indices,
    spread_starts,
    spread_times,
)


@settings(max_examples=200, deadline=None)
@given(samples=st.integers(1, 2_000_000), segments=st.integers(1, 20))
def test_spread_starts_are_the_integers_of_linspace(samples, segments):
    starts = spread_starts(samples, segments, 16000, 1600)
    if samples <= 17600:
        assert starts is None
    else:
        assert starts == np.linspace(0, samples - 17600, segments, dtype=int).tolist()
        assert starts[-1] + 16000 <= samples


def test_spread_frames_of_a_ten_second_clip_at_25_frames_a_second():
    assert spread_indices(250, 10) == [0, 27, 55, 83, 110, 138, 166, 193, 221, 249]


@settings(max_examples=200, deadline=None)
@given(frames=st.integers(1, 5000), segments=st.integers(1, 20))
def test_spread_indices_are_the_integers_of_linspace_less_one(frames, segments):
    indices = spread_indices(frames, segments)
    assert indices == (np.linspace(1, frames, segments).astype(int) - 1).tolist()
    assert min(indices) >= 0
    assert indices[-1] <= frames - 1


@settings(max_examples=100, deadline=None)
@given(
    frames=st.integers(1, 2000),
    rate=st.sampled_from([1.0, 8.0, 24.0, 25.0, 29.97, 60.0]),
    segments=st.integers(1, 20),
)
def test_spread_times_fall_into_the_middle_of_the_authors_frames(frames, rate, segments):
    times = spread_times(0.0, frames / rate, rate, segments)
    np.testing.assert_allclose(np.array(times) * rate - 0.5, spread_indices(frames, segments), atol=1e-6)


def test_middles_and_validity_of_a_short_file():
    section = Section(0.0, 4, 1.0, 2.5)
    assert section.middles == [0.5, 1.5, 2.5, 3.5]
    assert section.valid == [True, True, False, False]
    assert Section(0.0, 4, 1.0, 2.51).valid == [True, True, True, False]
    assert Section(0.0, 2, 1.0, 0.04).valid == [True, False]


def test_centred_starts_may_begin_before_the_file():
    assert centred_starts([0.5, 1.5], 32000, 16000) == [-8000, 8000]


@settings(max_examples=200, deadline=None)
@given(
    duration=st.floats(0.01, 500),
    segments=st.integers(1, 12),
    segment_seconds=st.sampled_from([0.5, 1.0, 2.0]),
    data=st.data(),
)
def test_sections_cover_every_segment_of_a_file_and_stay_inside(duration, segments, segment_seconds, data):
    stride = data.draw(st.integers(1, segments))
    starts = section_starts(duration, segments, segment_seconds, stride)
    sections = [Section(start, segments, segment_seconds, duration) for start in starts]
    firsts = [round(start / segment_seconds) for start in starts]
    covered = {first + t for first in firsts for t in range(segments)}
    present = max(math.ceil(duration / segment_seconds - 0.5), 1)
    assert covered >= set(range(present))
    assert firsts == sorted(set(firsts))
    assert all(after - before <= stride for before, after in pairwise(firsts))
    if present >= segments:
        assert all(all(section.valid) for section in sections)
        assert max(covered) == present - 1
    else:
        assert len(sections) == 1


def test_sections_of_a_file_that_no_stride_divides():
    assert section_starts(25.0, 10, 1.0, 10) == [0.0, 10.0, 15.0]
    assert section_starts(25.2, 10, 1.0, 5) == [0.0, 5.0, 10.0, 15.0]
    assert section_starts(10.0, 10, 1.0, 10) == [0.0]
    assert section_starts(3.0, 10, 1.0, 1) == [0.0]


@pytest.mark.parametrize("stride", [0, 11])
def test_a_stride_that_leaves_gaps_is_refused(stride):
    with pytest.raises(ValueError, match="stride_segments"):
        section_starts(30.0, 10, 1.0, stride)
