from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtune.train.order import derangement, epoch_windows, update_seed

sizes = st.integers(1, 6)


@given(st.integers(1, 80), sizes, sizes, sizes, st.integers(0, 9), st.integers(0, 9))
def test_each_clip_is_seen_once_an_epoch(
    clips: int, batch: int, accumulate: int, processes: int, seed: int, epoch: int
) -> None:
    parts = [
        epoch_windows(
            clips, batch, accumulate=accumulate, processes=processes, process=k, seed=seed, epoch=epoch
        )
        for k in range(processes)
    ]
    seen = [clip for part in parts for window in part for piece in window for clip in piece]
    assert sorted(seen) == list(range(clips))
    assert len({tuple(len(window) for window in part) for part in parts}) == 1
    assert max(len(piece) for part in parts for window in part for piece in window) <= batch
    assert all(len(window) <= accumulate for part in parts for window in part)
    if batch > 1 and clips >= processes:
        assert all(piece for part in parts for window in part for piece in window)


@given(st.integers(1, 80), sizes, sizes, sizes, st.integers(0, 9))
def test_updates_do_not_depend_on_what_makes_up_their_size(
    clips: int, batch: int, accumulate: int, processes: int, epoch: int
) -> None:
    whole = epoch_windows(
        clips, batch * accumulate * processes, accumulate=1, processes=1, process=0, seed=3, epoch=epoch
    )
    parts = [
        epoch_windows(
            clips, batch, accumulate=accumulate, processes=processes, process=k, seed=3, epoch=epoch
        )
        for k in range(processes)
    ]
    for number, window in enumerate(whole):
        spread = [clip for part in parts for piece in part[number] for clip in piece]
        assert sorted(spread) == sorted(window[0])
    sizes_of = [len(window[0]) for window in whole]
    assert max(sizes_of) - min(sizes_of) <= 1


def test_epochs_and_seeds_differ() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        windows = epoch_windows(50, 50, accumulate=1, processes=1, process=0, seed=seed, epoch=epoch)
        return windows[0][0]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_update_seeds_differ_between_seeds_updates_and_processes() -> None:
    seeds = {
        update_seed(seed, step, process) for seed in range(3) for step in range(50) for process in range(3)
    }
    assert len(seeds) == 450
    assert update_seed(1, 2, 3) == update_seed(1, 2, 3)


@given(st.integers(2, 60), st.integers(0, 99))
def test_derangement_is_one_cycle(clips: int, seed: int) -> None:
    partner = derangement(clips, seed)
    assert sorted(partner) == list(range(clips))
    assert all(partner[k] != k for k in range(clips))
    at, steps = partner[0], 1
    while at != 0:
        at, steps = partner[at], steps + 1
    assert steps == clips


def test_one_clip_has_no_derangement() -> None:
    with pytest.raises(ValueError, match="at least two"):
        derangement(1, 0)
