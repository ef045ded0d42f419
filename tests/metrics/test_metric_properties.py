"""Scores against their definitions written as loops, and what has to hold for any data."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from avtune.metrics.classification import average_precision, average_precisions, top_k_hits
from avtune.metrics.parsing import event_scores, segment_scores
from avtune.metrics.retrieval import partner_ranks, retrieval_scores
from avtune.metrics.segmentation import MaskSums, f_curves, mask_ious
from avtune.metrics.semantic_segmentation import ClassSums

SEEDS = st.integers(0, 10_000)
# A few values only, so that ties are common.
COARSE = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@given(SEEDS, st.integers(1, 4))
def test_f_curves_are_counts_at_each_threshold(seed: int, frames: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.choice(np.linspace(0, 1, 9), (frames, 4, 5))
    true = rng.random((frames, 4, 5)) > 0.7
    curves, sounding = f_curves(probabilities, true)
    for frame in range(frames):
        assert sounding[frame] == true[frame].any()
        for k, threshold in enumerate(np.linspace(0, 1, 255, dtype=np.float32)):
            taken = probabilities[frame].astype(np.float32) >= threshold
            hits = (taken & true[frame]).sum()
            expected = 0.0
            if hits:
                precision, recall = hits / taken.sum(), hits / true[frame].sum()
                expected = 1.3 * precision * recall / (0.3 * precision + recall)
            assert curves[frame, k] == pytest.approx(expected, abs=1e-12)


@given(SEEDS, st.integers(1, 6))
def test_sums_of_videos_are_the_sums_of_all_whoever_counts_them(seed: int, videos: int) -> None:
    rng = np.random.default_rng(seed)
    clips = [(rng.random((3, 4, 4)), rng.random((3, 4, 4)) > rng.random()) for _ in range(videos)]
    each = [MaskSums.of_video(*clip).as_array() for clip in clips]
    half = rng.permutation(videos)[: videos // 2]
    mine = sum((each[k] for k in half), np.zeros_like(each[0]))
    theirs = sum((each[k] for k in range(videos) if k not in half), np.zeros_like(each[0]))
    together = MaskSums.from_array(mine + theirs)
    ious = np.concatenate([mask_ious(*clip) for clip in clips])
    assert together.miou == pytest.approx(ious.mean())
    assert together.f == pytest.approx(np.mean([MaskSums.of_video(*clip).f for clip in clips]))
    sounding = np.concatenate([clip[1].any(axis=(1, 2)) for clip in clips])
    assert together.miou_sounding == pytest.approx(ious[sounding].mean() if sounding.any() else 0.0)
    silent = [
        float((likely > 0.5).mean())
        for clip in clips
        for likely, true in zip(*clip, strict=True)
        if not true.any()
    ]
    assert together.lit_in_silence == pytest.approx(np.mean(silent) if silent else 0.0, abs=1e-6)
    assert together.videos == videos
    assert 0 <= together.pooled_f <= 1


@given(SEEDS)
def test_semantic_sums_are_those_of_each_class_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, true = rng.integers(0, 4, (2, 3, 5, 5))
    sums = ClassSums.of_frames(found, true, 6)
    for label in range(6):
        ious = []
        for guess, real in zip(found == label, true == label, strict=True):
            if (guess | real).any():
                ious.append((guess & real).sum() / (guess | real).sum())
        assert sums.frames[label] == len(ious)
        assert sums.iou[label] == pytest.approx(sum(ious))
    assert sums.miou <= sums.miou_present
    parts = [ClassSums.of_frames(found[k : k + 1], true[k : k + 1], 6).as_array() for k in range(3)]
    np.testing.assert_allclose(np.sum(parts, axis=0), sums.as_array())


@given(SEEDS)
def test_unlabelled_pixels_count_for_no_class(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, true = rng.integers(0, 4, (2, 3, 5, 5))
    told = np.array(true)
    told[:, 3:] = 255
    sums = ClassSums.of_frames(found, told, 4, unlabelled=255)
    expected = ClassSums.of_frames(found[:, :3], true[:, :3], 4)
    np.testing.assert_array_equal(sums.as_array(), expected.as_array())
    for mean, total, frames in zip(sums.per_class()[0], sums.iou, sums.frames, strict=True):
        assert mean == (total / frames if frames else None)
    with pytest.raises(ValueError, match="true classes lie in"):
        ClassSums.of_frames(found, told, 4)


@given(arrays.arrays(float, (7,), elements=COARSE), arrays.arrays(bool, (7,)))
def test_average_precision_is_the_sum_over_its_thresholds(scores: np.ndarray, true: np.ndarray) -> None:
    found = average_precision(scores, true)
    if not true.any():
        assert math.isnan(found)
        return
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        recall = (taken & true).sum() / true.sum()
        area += (recall - before) * (taken & true).sum() / taken.sum()
        before = recall
    assert found == pytest.approx(area)
    if len(set(scores)) == 1:
        assert found == pytest.approx(true.mean())


def test_classes_that_never_occur_have_no_precision() -> None:
    scores, true = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[1, 0], [0, 0]])
    each = average_precisions(scores, true)
    assert each[0] == np.nanmean(each) == 1
    assert math.isnan(each[1])
    with pytest.raises(ValueError, match="clips, classes"):
        average_precisions(scores, np.zeros((2, 3)))


@given(arrays.arrays(float, (5, 4), elements=COARSE), SEEDS)
def test_top_k_counts_ties_against_the_model(scores: np.ndarray, seed: int) -> None:
    true = np.random.default_rng(seed).integers(0, 4, 5)
    for k in (1, 2, 4):
        hits = top_k_hits(scores, true, k)
        for clip in range(5):
            ahead = sum(scores[clip, c] >= scores[clip, true[clip]] for c in range(4) if c != true[clip])
            assert hits[clip] == (ahead < k)
    assert not top_k_hits(np.zeros((5, 4)), true).any()


@given(arrays.arrays(bool, (4, 3, 8)))
def test_parsing_scores_lie_within_bounds_and_are_one_for_the_truth(masks: np.ndarray) -> None:
    heard, seen, true_heard, true_seen = masks
    for score in (segment_scores, event_scores):
        found = score(heard, seen, true_heard, true_seen)
        values = (found.audio, found.video, found.audio_video, found.event)
        assert all(0 <= value <= 1 for value in values)
        assert found.type == pytest.approx(sum(values[:3]) / 3)
        perfect = score(true_heard, true_seen, true_heard, true_seen)
        assert (perfect.audio, perfect.video, perfect.audio_video, perfect.event) == (1, 1, 1, 1)


def test_runs_match_from_half_of_their_union_on() -> None:
    true = np.array([[1, 1, 1, 1, 0, 0, 0, 0]], dtype=bool)
    nothing = np.zeros_like(true)
    for seconds, expected in ((2, 1.0), (1, 0.0)):
        found = np.zeros_like(true)
        found[0, :seconds] = True
        assert event_scores(found, nothing, true, nothing).audio == expected
        assert segment_scores(found, nothing, true, nothing).audio == pytest.approx(
            2 * seconds / (seconds + 4)
        )


@given(arrays.arrays(float, (5, 7), elements=COARSE), SEEDS)
def test_ranks_depend_on_no_order_and_ties_stand_where_they_are_put(table: np.ndarray, seed: int) -> None:
    first, middle, last = (partner_ranks(table, ties) for ties in ("first", "middle", "last"))
    assert np.array_equal(middle, (first + last) / 2)
    for query in range(5):
        others = np.delete(table[query], query)
        assert first[query] == 1 + (others > table[query, query]).sum()
        assert last[query] == 1 + (others >= table[query, query]).sum()
    order = np.random.default_rng(seed).permutation(5)
    shuffled = np.concatenate([table[order][:, order], table[order][:, 5:]], axis=1)
    assert np.array_equal(partner_ranks(shuffled), last[order])
    scores = retrieval_scores(last)
    assert scores.recall_at_1 <= scores.recall_at_5 <= scores.recall_at_10
    assert scores.queries == 5


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="masks are"):
        mask_ious(np.zeros((2, 3, 3)), np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="not within 3"):
        ClassSums.of_frames(np.full((1, 2, 2), 3), np.zeros((1, 2, 2)), 3)
    with pytest.raises(ValueError, match="a partner for each"):
        partner_ranks(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="finite"):
        partner_ranks(np.array([[np.nan]]))
    with pytest.raises(ValueError, match="no query"):
        retrieval_scores([])
    with pytest.raises(ValueError, match="of one shape"):
        segment_scores(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 3)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_no_answer(value: float) -> None:
    for score in (
        lambda: top_k_hits([[value, 1.0, 2.0]], [0]),
        lambda: average_precision([value, 0.5], [True, False]),
        lambda: average_precisions([[value], [0.5]], [[True], [False]]),
        lambda: mask_ious(np.full((1, 2, 2), value), np.ones((1, 2, 2))),
        lambda: f_curves(np.full((1, 2, 2), value), np.ones((1, 2, 2))),
        lambda: MaskSums.of_video(np.full((1, 2, 2), value), np.ones((1, 2, 2))),
        lambda: partner_ranks([[value]]),
    ):
        with pytest.raises(ValueError, match="must be finite"):
            score()


@pytest.mark.parametrize("truth", [-1, 3])
def test_a_truth_that_is_no_class_is_refused(truth: int) -> None:
    with pytest.raises(ValueError, match="indices of 3 classes"):
        top_k_hits([[0.0, 1.0, 2.0]], [truth])
