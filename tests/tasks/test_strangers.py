"""Frames of other files: true strangers, whatever the order, the padding and what is missing."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from avtune.tasks.strangers import stranger_tokens, strangers
from avtune.transforms import Batch


def batch_of(
    sources: list[str], valid: torch.Tensor, names: list[str] | None = None, blind: tuple[int, ...] = ()
) -> Batch:  # fmt: skip
    clips = len(sources)
    blank, has_audio, has_video = torch.zeros(clips), torch.ones(clips).bool(), torch.ones(clips).bool()
    has_video[list(blind)] = False
    named = [f"clip {k}" for k in range(clips)] if names is None else names
    return Batch(blank, blank, has_audio, has_video, valid, None, named, sources=sources)


@given(
    sources=st.lists(st.sampled_from("abc"), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_each_segment_meets_an_existing_frame_of_another_file_in_any_order(
    sources: list[str], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(len(sources), 4, generator=generator) > 0.4
    valid[:, 0] = True
    batch = batch_of(sources, valid)
    places, found = strangers(batch)
    assert found.tolist() == [len(set(sources)) > 1] * len(sources)
    for k, row in enumerate(places.tolist()):
        for t, place in enumerate(row):
            other, segment = divmod(place, 4)
            if found[k]:
                assert sources[other] != sources[k]
                assert valid[other, segment]
            else:
                assert (other, segment) == (k, t)
    order = torch.randperm(len(sources), generator=generator).tolist()
    names = [f"clip {k}" for k in order]
    moved, _ = strangers(batch_of([sources[k] for k in order], valid[order], names))
    met = [[(names[place // 4], place % 4) for place in row] for row in moved.tolist()]
    expected = [[(f"clip {place // 4}", place % 4) for place in places[k].tolist()] for k in order]
    assert met == expected


def test_seconds_meet_several_files_where_there_are() -> None:
    places, _ = strangers(batch_of(["a", "b", "c"], torch.ones(3, 4, dtype=torch.bool)))
    assert (places // 4).tolist() == [[1, 2, 1, 2], [2, 0, 2, 0], [0, 1, 0, 1]]
    assert (places % 4).tolist() == [[0, 1, 2, 3]] * 3


def test_files_without_frames_are_taken_only_where_all_are_so() -> None:
    valid = torch.ones(4, 2, dtype=torch.bool)
    valid[3] = False
    places, found = strangers(batch_of(["a", "b", "c", "d"], valid, blind=(1,)))
    assert found.tolist() == [True, True, True, False]
    assert (places // 2).tolist() == [[2, 2], [2, 0], [0, 0], [3, 3]]
    places, found = strangers(batch_of(["a", "b"], valid[:2], blind=(0, 1)))
    assert found.all()
    assert (places // 2).tolist() == [[1, 1], [0, 0]]


def test_tokens_follow_the_places() -> None:
    video = torch.arange(6.0).view(6, 1, 1)
    batch = batch_of(["a", "b", "a"], torch.ones(3, 2, dtype=torch.bool))
    assert stranger_tokens(video, batch).flatten().tolist() == [2, 3, 0, 5, 2, 3]


def test_files_of_unknown_origin_are_no_strangers_to_each_other() -> None:
    _, found = strangers(batch_of(["", ""], torch.ones(2, 2, dtype=torch.bool)))
    assert not found.any()
