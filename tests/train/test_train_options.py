"""Options that change how a run is computed, not what comes out of it."""

from __future__ import annotations

import copy
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_up_clips import MadeUpClips
from torch import Tensor
from training_case import largest_difference, small_config, small_model, small_trainer

from avtune.train.log import read_log
from avtune.train.stop import StopRequest
from avtune.transforms import collate


def gradients_and_statistics(recompute: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of one batch of four clips."""
    model = small_model(small_config(checkpoint=recompute))
    assert model.network.encoder.recompute is recompute
    network = model.network.train()
    batch = collate([MadeUpClips(4)[k] for k in range(4)])
    outputs, encoded = network(batch)
    model.task.loss(outputs, encoded, batch).total.backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    statistics = {name: value for name, value in network.named_buffers() if "running" in name}
    return gradients, statistics


def test_recomputed_steps_give_identical_gradients() -> None:
    plain, recomputed = (gradients_and_statistics(recompute)[0] for recompute in (False, True))
    assert len(plain) > 30
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        assert gradient.abs().sum() > 0, name
        assert torch.equal(gradient, recomputed[name]), name


def test_recomputed_steps_leave_identical_statistics() -> None:
    plain, recomputed = (gradients_and_statistics(recompute)[1] for recompute in (False, True))
    assert len(plain) > 8
    assert all(torch.equal(value, recomputed[name]) for name, value in plain.items())


@pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler"
)
def test_a_compiled_encoder_trains_as_the_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Scalar kernels are compiled several times faster, and one process is enough for them.
    monkeypatch.setattr("torch._inductor.config.cpp.simdlen", 0)
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    config = small_config({"batch_norm": False, "groups": 1}, epochs=1, batch_size=4)
    rows = []
    for name in ("plain", "compiled"):
        trainer = small_trainer(config, tmp_path / name, MadeUpClips(4))
        if name == "compiled":
            trainer.network.encoder.compile(dynamic=False)
        trainer.fit()
        rows += [row for row in read_log(tmp_path / name / "log.jsonl") if row["event"] == "step"]
    plain, compiled = rows
    assert plain["gradient_norm"] > 0
    assert compiled["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert compiled["gradient_norm"] == pytest.approx(plain["gradient_norm"], rel=1e-4)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in a terminal: a shell's background process begins with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_first_signal_is_a_wish_and_the_second_is_not() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with StopRequest() as request:
        assert not request.asked
        signal.raise_signal(signal.SIGINT)
        assert request.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert {number: signal.getsignal(number) for number in before} == before


def test_outside_the_main_thread_signals_are_left_alone(tmp_path: Path) -> None:
    config = small_config(epochs=1)
    steps: list[int] = []

    def train() -> None:
        steps.append(small_trainer(config, tmp_path, MadeUpClips(4)).fit().progress.step)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert steps == [1]


def test_settings_without_effect_do_not_hinder_resuming(tmp_path: Path) -> None:
    trainer = small_trainer(small_config(), tmp_path, MadeUpClips(8))
    weights = trainer.fit().weights
    changed = copy.deepcopy(small_config(save_every=1))
    changed.data.workers = 5
    again = small_trainer(changed, tmp_path, MadeUpClips(8)).fit()
    assert largest_difference(again.weights, weights) == 0
