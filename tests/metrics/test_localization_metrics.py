import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from avtune.metrics import SegmentCounts, confusion_matrix, majority_accuracy, per_class, segment_accuracy

CLASSES = 5


@st.composite
def batches(draw):
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 10)))
    indices = arrays.arrays(np.int64, shape, elements=st.integers(0, CLASSES - 1))
    return draw(indices), draw(indices), draw(arrays.arrays(np.bool_, shape))


def test_accuracy_by_hand():
    predicted = [[0, 1, 2, 2], [4, 4, 4, 4]]
    true = [[0, 1, 1, 2], [4, 0, 4, 1]]
    assert segment_accuracy(predicted, true) == 5 / 8
    valid = [[True, True, True, True], [True, False, False, False]]
    assert segment_accuracy(predicted, true, valid) == 4 / 5


def test_torch_tensors_equal_arrays():
    generator = torch.Generator().manual_seed(0)
    predicted, true = (torch.randint(0, CLASSES, (7, 10), generator=generator) for _ in range(2))
    valid = torch.rand(7, 10, generator=generator) > 0.3
    assert segment_accuracy(predicted, true, valid) == segment_accuracy(
        predicted.numpy(), true.numpy(), valid.numpy()
    )
    assert np.array_equal(
        confusion_matrix(predicted.int(), true, CLASSES, valid),
        confusion_matrix(predicted.tolist(), true.tolist(), CLASSES, valid.tolist()),
    )


@given(batches())
@settings(max_examples=60, deadline=None)
def test_confusion_counts_every_pair(batch):
    predicted, true, valid = batch
    expected = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    for guess, truth, keep in zip(predicted.flat, true.flat, valid.flat, strict=True):
        expected[truth, guess] += int(keep)
    counts = confusion_matrix(predicted, true, CLASSES, valid)
    assert np.array_equal(counts, expected)
    if valid.any():
        assert segment_accuracy(predicted, true, valid) == np.trace(counts) / counts.sum()


@given(batches())
@settings(max_examples=60, deadline=None)
def test_class_scores_follow_their_definitions_and_are_finite(batch):
    predicted, true, valid = batch
    scores = per_class(confusion_matrix(predicted, true, CLASSES, valid))
    guess, truth = predicted[valid], true[valid]
    for label in range(CLASSES):
        hits = np.sum((guess == label) & (truth == label))
        claimed, support = np.sum(guess == label), np.sum(truth == label)
        precision = hits / claimed if claimed else 0.0
        recall = hits / support if support else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        assert scores.support[label] == support
        assert scores.precision[label] == pytest.approx(precision)
        assert scores.recall[label] == pytest.approx(recall)
        assert scores.f1[label] == pytest.approx(f1)
    assert all(np.isfinite(values).all() for values in (scores.precision, scores.recall, scores.f1))


@given(batches(), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_counts_of_parts_add_up_to_the_counts_of_the_whole(batch, cut):
    predicted, true, valid = batch
    whole, first, second = (SegmentCounts(CLASSES) for _ in range(3))
    whole.update(predicted, true, valid)
    first.update(predicted[:cut], true[:cut], valid[:cut])
    second.update(predicted[cut:], true[cut:], valid[cut:])
    merged = first + second
    assert np.array_equal(merged.confusion, whole.confusion)
    assert merged.segments == valid.sum()
    assert np.array_equal(
        SegmentCounts(CLASSES, torch.from_numpy(merged.confusion)).confusion, whole.confusion
    )
    if valid.any():
        assert merged.accuracy() == segment_accuracy(predicted, true, valid)


def test_counts_are_not_shared_between_accumulators():
    first = SegmentCounts(2)
    first.update([0, 1], [0, 0])
    merged = first + SegmentCounts(2)
    first.update([1], [1])
    assert merged.segments == 2
    assert first.segments == 3


def test_majority_uses_the_training_class():
    true = [[0, 0, 0, 1], [1, 2, 2, 2]]
    assert majority_accuracy(true) == 3 / 8
    assert majority_accuracy(true, fitted_on=[1, 1, 0]) == 2 / 8
    assert majority_accuracy(true, fitted_on=[7]) == 0.0
    assert majority_accuracy(true, valid=np.array(true) != 0) == 3 / 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 1]], [[0], [1]]), "shape"),
        (([[0.0, 1.0]], [[0, 1]]), "integers"),
        (([[0, 1]], [[0, 1]], [[1, 0]]), "booleans"),
        (([[0, 1]], [[0, 1]], [[False, False]]), "undefined"),
        (([], []), "undefined"),
    ],
)
def test_accuracy_refuses_what_it_cannot_score(arguments, message):
    with pytest.raises(ValueError, match=message):
        segment_accuracy(*arguments)


def test_indices_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"predicted classes lie in \[0, 5\]"):
        confusion_matrix([0, 5], [0, 1], CLASSES)
    with pytest.raises(ValueError, match=r"true classes lie in \[-1, 1\]"):
        confusion_matrix([0, 1], [-1, 1], CLASSES)
    with pytest.raises(ValueError, match="square"):
        per_class(np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(ValueError, match="undefined"):
        SegmentCounts(3).accuracy()
    with pytest.raises(ValueError, match="add up"):
        SegmentCounts(3) + SegmentCounts(4)
