from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtune.train.order import balanced_weights, derangement, drawn, epoch_windows, together, update_seed

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


def test_balanced_weights_are_sums_of_inverse_frequencies() -> None:
    truths = [("a",), ("a",), ("a", "b"), ()]
    assert balanced_weights(truths) == pytest.approx([1 / 3, 1 / 3, 1 / 3 + 1, 1])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_balanced_draws_show_every_label_equally_often_on_average(classes: list[int]) -> None:
    weights = balanced_weights([(str(label),) for label in classes])
    for label in set(classes):
        own = sum(weight for weight, other in zip(weights, classes, strict=True) if other == label)
        assert own == pytest.approx(1)


@given(st.integers(1, 60), sizes, sizes, sizes, st.integers(0, 9))
def test_weighted_epochs_are_as_long_and_are_shared_out_alike(
    clips: int, batch: int, accumulate: int, processes: int, epoch: int
) -> None:
    weights = [1.0 + k % 3 for k in range(clips)]

    def windows(process: int, processes: int, batch: int, accumulate: int) -> list[list[list[int]]]:
        return epoch_windows(
            clips, batch, accumulate=accumulate, processes=processes, process=process, seed=3, epoch=epoch,
            order=drawn(weights),
        )  # fmt: skip

    whole = windows(0, 1, batch * accumulate * processes, 1)
    parts = [windows(k, processes, batch, accumulate) for k in range(processes)]
    assert sum(len(window[0]) for window in whole) == clips
    for number, window in enumerate(whole):
        spread = [clip for part in parts for piece in part[number] for clip in piece]
        assert sorted(spread) == sorted(window[0])


def test_rare_labels_are_drawn_as_often_as_frequent_ones() -> None:
    classes = [0] * 180 + [1] * 20
    weights = balanced_weights([(str(label),) for label in classes])
    seen: Counter[int] = Counter()
    orders = []
    for epoch in range(50):
        ((order,),) = epoch_windows(
            200, 200, accumulate=1, processes=1, process=0, seed=1, epoch=epoch, order=drawn(weights)
        )
        seen.update(classes[k] for k in order)
        orders.append(tuple(order))
    # 10,000 draws: five standard deviations of a fair coin are 250.
    assert abs(seen[1] - 5000) < 250
    assert len(set(orders)) == 50


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=40), st.integers(0, 9))
def test_items_of_a_group_stand_side_by_side_each_once(groups: list[str], seed: int) -> None:
    order = together(groups)(np.random.default_rng(seed)).tolist()
    assert sorted(order) == list(range(len(groups)))
    runs = [name for name, _ in itertools.groupby(groups[place] for place in order)]
    assert sorted(runs) == sorted(set(groups))


def test_groups_and_their_items_come_in_another_order_each_time() -> None:
    order = together([k // 10 for k in range(100)])
    one, other = (order(np.random.default_rng(seed)).tolist() for seed in (0, 1))
    assert [k // 10 for k in one] != [k // 10 for k in other]
    assert [k for k in one if k < 10] != [k for k in other if k < 10]


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 9))
def test_so_many_groups_at_once_are_mixed_and_no_more(groups: int, at_once: int, seed: int) -> None:
    order = together([k % groups for k in range(8 * groups)], at_once)(np.random.default_rng(seed)).tolist()
    assert sorted(order) == list(range(8 * groups))
    for first in range(0, groups, at_once):
        mixed = [place % groups for place in order[8 * first : 8 * (first + at_once)]]
        assert Counter(mixed) == dict.fromkeys(mixed, 8)
        assert len(set(mixed)) == min(at_once, groups - first)


def test_groups_at_once_are_mixed_item_by_item() -> None:
    order = together([k % 4 for k in range(400)], 2)(np.random.default_rng(0)).tolist()
    changes = sum(one % 4 != other % 4 for one, other in itertools.pairwise(order))
    # Of 199 pairs within each half, half are expected to change group; side by side it would be one.
    assert 150 < changes < 250
