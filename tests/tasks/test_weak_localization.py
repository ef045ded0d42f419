"""Event localization from clips' labels alone: the loss by hand, what it may read, and that it learns when."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtune.config import HeadConfig, InputConfig
from avtune.encoder import Encoded
from avtune.fusion.base import Notes
from avtune.tasks import LocalizationTask, create_task
from avtune.tasks.localization import clip_label_loss
from avtune.transforms import Batch

LABELS = ("bell", "drum", "horn")
BACKGROUND = len(LABELS)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def task_of(**head: Any) -> LocalizationTask:
    task = create_task(LABELS, InputConfig(segments=4), HeadConfig(supervision="clips", **head))
    assert isinstance(task, LocalizationTask)
    return task


def batch_of(target: torch.Tensor, valid: torch.Tensor) -> Batch:
    blank, yes = torch.zeros(len(target)), torch.ones(len(target), dtype=torch.bool)
    return Batch(blank, blank, yes, yes, valid, target, ["clip"] * len(target))


def test_by_hand() -> None:
    logits = random(4, 4, 4)
    # One event; background alone; two events; an event that lies in padding only: background.
    target = torch.tensor([[3, 1, 1, 3], [3, 3, 3, 3], [0, 2, 0, 3], [3, 3, 1, 1]])
    valid = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)
    told = [(1,), (BACKGROUND,), (0, 2), (BACKGROUND,)]
    expected = 0.0
    for clip in range(4):
        share = softmax(logits[clip].double().numpy())[valid[clip].numpy()].mean(0)
        expected -= sum(math.log(share[k]) for k in told[clip]) / len(told[clip])
    found = clip_label_loss(logits, target, valid)
    assert found.count == 4
    assert float(found.total) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.permutations(range(4)))
def test_only_the_set_of_events_is_read_not_when_they_happen(seed: int, order: list[int]) -> None:
    logits = random(3, 4, 4, seed=seed)
    target = torch.randint(0, 4, (3, 4), generator=torch.Generator().manual_seed(seed))
    valid = torch.ones(3, 4, dtype=torch.bool)
    moved = clip_label_loss(logits, target[:, order], valid)
    assert torch.equal(moved.total, clip_label_loss(logits, target, valid).total)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_padding_and_company_change_nothing(seed: int) -> None:
    logits = random(4, 4, 4, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 4, (4, 4), generator=generator)
    valid = torch.rand(4, 4, generator=generator) < 0.6
    found = clip_label_loss(logits, target, valid)
    noisy, other = logits.clone(), target.clone()
    noisy[~valid], other[~valid] = 77.0, 1
    assert torch.equal(clip_label_loss(noisy, other, valid).total, found.total)
    parts = [clip_label_loss(logits[k : k + 1], target[k : k + 1], valid[k : k + 1]) for k in (2, 0, 3, 1)]
    assert sum(part.count for part in parts) == found.count
    # The same terms in another order of summing.
    assert float(sum(part.total for part in parts)) == pytest.approx(float(found.total), rel=1e-5, abs=1e-6)


def test_gradients_are_those_of_finite_differences_and_padding_has_none() -> None:
    logits = random(3, 4, 4).double().requires_grad_()
    target = torch.tensor([[3, 1, 1, 3], [0, 2, 3, 3], [3, 3, 3, 3]])
    valid = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda x: clip_label_loss(x, target, valid).total, logits)
    clip_label_loss(logits, target, valid).total.backward()
    assert logits.grad is not None
    assert not logits.grad[~valid].any()
    assert logits.grad[valid].any(-1).all()


def test_a_batch_without_any_segment_has_no_loss_and_a_gradient() -> None:
    logits = random(2, 4, 4).requires_grad_()
    found = clip_label_loss(logits, torch.zeros(2, 4).long(), torch.zeros(2, 4, dtype=torch.bool))
    found.total.backward()
    assert found.count == 0
    assert float(found.total.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_task_counts_clips_and_scores_segments() -> None:
    task = task_of()
    target = torch.tensor([[3, 1, 1, 3], [3, 3, 3, 3]])
    valid = torch.ones(2, 4, dtype=torch.bool)
    nothing = torch.zeros(0)
    encoded = Encoded(nothing, nothing, nothing, nothing, Notes())
    outputs = random(2, 4, 4)
    assert task.loss(outputs, encoded, batch_of(target, valid)).count == 2
    perfect = torch.nn.functional.one_hot(target, 4).float()
    assert task.score(task.tally(perfect, batch_of(target, valid))).details["segments"] == 8


def test_when_is_learned_from_which() -> None:
    # Each class has a feature of its own in the seconds in which it happens; only the set is told.
    generator = torch.Generator().manual_seed(0)
    target = torch.full((60, 4), BACKGROUND)
    for clip in range(60):
        label, start = clip % 3, int(torch.randint(0, 3, (1,), generator=generator))
        target[clip, start : start + 2] = label
    features = torch.nn.functional.one_hot(target, 4).float()
    features[..., BACKGROUND] = 0
    features += 0.1 * torch.randn(features.shape, generator=generator)
    weight = torch.zeros(4, 4, requires_grad=True)
    bias = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.1)
    valid = torch.ones(60, 4, dtype=torch.bool)
    for _ in range(150):
        loss = clip_label_loss(features @ weight + bias, target, valid)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    answers = (features @ weight + bias).argmax(-1)
    events = target != BACKGROUND
    assert (answers[events] == target[events]).float().mean() > 0.95
