"""The same run gives the same weights on several threads, where rows that were taken several times meet again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_clips import MadeUpClips
from torch import Tensor
from training_case import small_config, small_trainer

from avtune.pretrain import create_pretraining
from avtune.train import Observer
from avtune.train.repeatable import repeatable

TIMES = 30


@pytest.fixture
def _threads(_one_thread: None) -> None:
    """Four threads, until ``_one_thread`` puts back what was: on one no order can vary."""
    torch.set_num_threads(4)


def distinct(gradient: Callable[[], Tensor]) -> int:
    """How many different gradients many computations of the same one give."""
    return len({gradient().numpy().tobytes() for _ in range(TIMES)})


def taken_often() -> Callable[[], Tensor]:
    """The gradient of a table by rows of which each is taken many times: enough of it for several threads."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(64, 192, generator=generator).requires_grad_()
    rows = torch.randint(0, 64, (2000,), generator=generator)
    pull = torch.randn(2000, 192, generator=generator)

    def gradient() -> Tensor:
        return torch.autograd.grad(table[rows], table, pull)[0]

    return gradient


@pytest.mark.usefixtures("_threads")
def test_within_a_run_gradients_add_up_in_one_order(tmp_path: Path) -> None:
    found: list[int] = []

    class Adding(Observer):
        def stepped(self, row: dict[str, Any]) -> None:
            found.append(distinct(taken_often()))

    small_trainer(small_config(epochs=1), tmp_path, MadeUpClips(4), observer=Adding()).fit()
    assert found == [1]
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_the_caller_asked_for_is_put_back() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with repeatable(torch.device("cpu")):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.utils.deterministic.fill_uninitialized_memory
    with repeatable(torch.device("meta")):
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("_threads")
def test_positions_of_patches_have_one_gradient_outside_of_runs_too() -> None:
    model = create_pretraining("avsiam", "nano", spectrogram=(32, 64), options={"decoder_depth": 1}, depth=2)
    embedding = model.encoder.video
    generator = torch.Generator().manual_seed(0)
    kept = model.draw(48, generator).video
    frames = torch.randn(48, 3, *embedding.size, generator=generator)
    pull = torch.randn(len(kept), embedding.positions.shape[1], generator=generator)

    def gradient() -> Tensor:
        return torch.autograd.grad(embedding(frames, kept).tokens, embedding.positions, pull)[0]

    assert len(kept) * embedding.positions.shape[1] > 2**17
    assert distinct(gradient) == 1
