"""Which patches are seen: numbers, patterns, and that chance comes from the generator alone."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avtune.errors import AvtuneError
from avtune.pretrain.masking import Kept, draw_kept, draw_ratios, kept_count

RATIOS = (0.0, 0.2, 0.4, 0.6, 0.8)
SEEDS = st.integers(0, 2**32)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(SEEDS, st.lists(st.floats(0, 0.99), min_size=1, max_size=6), st.integers(1, 5), st.integers(1, 9),
       st.sampled_from(["unstructured", "time_frequency"]))  # fmt: skip
def test_each_clip_keeps_as_many_as_its_ratio_says(seed, ratios, rows, columns, pattern) -> None:  # type: ignore[no-untyped-def]
    kept = draw_kept(ratios, (rows, columns), seeded(seed), pattern)
    length = rows * columns
    assert kept.visible.sum(1).tolist() == [max(int(length * (1 - ratio)), 1) for ratio in ratios]
    again = draw_kept(ratios, (rows, columns), seeded(seed), pattern)
    assert again.visible.equal(kept.visible)
    assert again.order == kept.order


@given(SEEDS, st.lists(st.sampled_from(RATIOS), min_size=1, max_size=7), st.data())
def test_a_part_of_the_clips_keeps_what_it_keeps_among_all(
    seed: int, ratios: list[float], data: st.DataObject
) -> None:
    own = data.draw(st.lists(st.integers(0, len(ratios) - 1), unique=True, max_size=len(ratios)))
    everyone = draw_kept(ratios, (3, 5), seeded(seed), "time_frequency")
    part = draw_kept(ratios, (3, 5), seeded(seed), "time_frequency", own=own)
    assert part.visible.equal(everyone.visible[own])


@given(SEEDS, st.integers(1, 6), st.integers(1, 12))
def test_kept_patches_are_told_in_the_order_of_packing(seed: int, clips: int, length: int) -> None:
    visible = torch.rand(clips, length, generator=seeded(seed)) < 0.5
    visible[:, 0] = True
    kept = Kept.from_visible(visible)
    assert kept.visible.equal(visible)
    assert sorted(kept.order) == list(range(clips))
    assert list(kept.counts) == sorted(visible.sum(1).tolist())
    expected = [(clip, place) for clip in kept.order for place in visible[clip].nonzero().flatten().tolist()]
    assert list(zip(kept.clip.tolist(), kept.position.tolist(), strict=True)) == expected
    assert torch.tensor(kept.order)[kept.place].tolist() == list(range(clips))


def test_a_clip_that_sees_nothing_is_refused() -> None:
    with pytest.raises(AvtuneError, match="lower the masking ratio"):
        Kept.from_visible(torch.tensor([[True, False], [False, False]]))


def test_numbers_of_the_released_code() -> None:
    assert [kept_count(512, 0.2 * k) for k in range(5)] == [512, 409, 307, 204, 102]
    assert [kept_count(196, 0.2 * k) for k in range(5)] == [196, 156, 117, 78, 39]
    assert (kept_count(512, 0.75), kept_count(196, 0.75)) == (128, 49)


@given(SEEDS, st.integers(1, 40))
def test_even_assignment_gives_every_ratio_its_share(seed: int, clips: int) -> None:
    drawn = Counter(draw_ratios(clips, RATIOS, "even", seeded(seed)))
    counts = [drawn[ratio] for ratio in RATIOS]
    assert sum(counts) == clips
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("clips", "counts"), [(9, [2, 2, 2, 2, 1]), (6, [2, 2, 2, 0, 0]), (4, [1, 1, 1, 1, 0])]
)
def test_chunks_of_the_released_code_leave_out_the_last_ratios(clips: int, counts: list[int]) -> None:
    drawn = Counter(draw_ratios(clips, RATIOS, "chunks", seeded(0)))
    assert [drawn[ratio] for ratio in RATIOS] == counts


def test_ratios_reach_every_clip_and_differ_between_draws() -> None:
    generator = seeded(0)
    drawn = [draw_ratios(5, RATIOS, "even", generator) for _ in range(200)]
    assert all({ratios[clip] for ratios in drawn} == set(RATIOS) for clip in range(5))


def test_continuous_ratios_fill_the_range() -> None:
    drawn = torch.tensor(draw_ratios(4000, (0.1, 0.5), "continuous", seeded(0)))
    assert drawn.min() >= 0.1
    assert drawn.max() <= 0.5
    # Four standard errors of a uniform mean.
    assert abs(drawn.mean() - 0.3) < 4 * 0.4 / (12 * 4000) ** 0.5


def hidden_grid(ratio: float, clips: int) -> torch.Tensor:
    """(clips, 8, 64) bool, True where a patch is hidden."""
    kept = draw_kept((ratio,) * clips, (8, 64), seeded(3), "time_frequency")
    return ~kept.visible.unflatten(1, (8, 64))


def test_time_frequency_masking_hides_whole_stripes_where_it_may() -> None:
    # 35 columns and 4 rows are 396 patches, fewer than the 410 to hide: all of them are.
    hidden = hidden_grid(0.8, 50)
    assert (hidden.all(dim=1).sum(1) >= 35).all()
    assert (hidden.all(dim=2).sum(1) >= 4).all()


def test_time_frequency_masking_stays_within_stripes_that_hold_too_many() -> None:
    # 8 columns and one row are 120 patches, and only 103 are to be hidden.
    hidden = hidden_grid(0.2, 50)
    assert hidden.sum((1, 2)).tolist() == [103] * 50
    inside_columns = hidden.sum(1).topk(8, dim=1)
    in_fullest_row = hidden.sum(2).amax(1)
    outside = 103 - inside_columns.values.sum(1)
    assert (outside <= in_fullest_row).all()
    assert ((hidden.sum(1) >= 2).sum(1) <= 8).all()


def test_no_place_is_favoured_where_stripes_hold_too_many() -> None:
    clips = 3000
    hidden = hidden_grid(0.2, clips).float().mean(0)
    # Rows share one stripe among eight: a favoured row (as ties broken by index give) would stand out.
    spread = hidden.mean(1)
    assert (spread - 103 / 512).abs().max() < 0.02
    assert (hidden.mean(0) - 103 / 512).abs().max() < 0.04


@given(SEEDS)
def test_noise_of_a_clip_does_not_depend_on_the_others_ratios(seed: int) -> None:
    one = draw_kept((0.5, 0.0, 0.25), (4, 4), seeded(seed))
    other = draw_kept((0.5, 0.75, 0.5), (4, 4), seeded(seed))
    assert one.visible[0].equal(other.visible[0])
