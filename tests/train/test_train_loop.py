from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from made_up_clips import LABELS, MadeUpClips
from training_case import (
    WITHOUT_BATCH_NORM,
    assert_equal,
    largest_difference,
    small_config,
    small_model,
    small_trainer,
)

from avtune.datasets import Event, Record
from avtune.datasets.clips import ClipDataset
from avtune.errors import AvtuneError
from avtune.media import write_video
from avtune.tasks import Scores
from avtune.train import NonFiniteLossError, Observer, Trainer
from avtune.train.evaluate import Evaluation
from avtune.train.log import read_log
from avtune.train.state import ResumeError, load_state
from avtune.transforms import collate

# Sums in another order, in single precision.
TOLERANCE = 2e-6


def descent(network: torch.nn.Module, _: object) -> torch.optim.Optimizer:
    """Plain gradient descent: Adam turns the rounding noise of a gradient that is exactly zero into a full step."""
    return torch.optim.SGD(network.parameters(), lr=0.1)


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [row for row in read_log(folder / "log.jsonl") if row["event"] == "step"]


@pytest.mark.parametrize("clips", [MadeUpClips(16), MadeUpClips(11), MadeUpClips(13, damaged=(1, 7))])
def test_accumulating_equals_a_larger_batch(tmp_path: Path, clips: MadeUpClips) -> None:
    """Also where windows are incomplete, and where micro-batches differ in how many segments count."""
    weights = []
    for name, size in (("parts", {"batch_size": 4, "accumulate": 2}), ("whole", {"batch_size": 8})):
        with patch("avtune.train.updates.build_optimizer", descent):
            trainer = small_trainer(small_config(WITHOUT_BATCH_NORM, **size), tmp_path / name, clips)
        weights.append(trainer.fit().weights)
    parts, whole = steps_of(tmp_path / "parts"), steps_of(tmp_path / "whole")
    assert len(parts) == len(whole) == 4
    assert [row["loss"] for row in parts] == pytest.approx([row["loss"] for row in whole], rel=TOLERANCE)
    norms = [[row["gradient_norm"] for row in rows] for rows in (parts, whole)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert largest_difference(*weights) < TOLERANCE


def test_an_update_is_the_mean_over_items(tmp_path: Path) -> None:
    """Against a gradient written out by hand: sum of the segments' losses over their number."""
    clips = MadeUpClips(6)
    config = small_config(WITHOUT_BATCH_NORM, batch_size=2, accumulate=3, epochs=1)
    config.optimizer.clip_norm = None
    with patch("avtune.train.updates.build_optimizer", descent):
        trainer = small_trainer(config, tmp_path, clips)
    by_hand = small_model(config).network.train()
    losses, total = [], 0
    for clip in clips.clips:
        batch = collate([clip])
        outputs, _ = by_hand(batch)
        chosen = outputs[batch.valid]
        losses.append(torch.nn.functional.cross_entropy(chosen, batch.target[batch.valid], reduction="sum"))
        total += len(chosen)
    assert total == 10
    (sum(losses) / total).backward()
    expected = {
        name: weight.detach() - 0.1 * weight.grad
        for name, weight in by_hand.named_parameters()
        if weight.grad is not None
    }
    found = trainer.fit().weights
    assert largest_difference({name: found[name] for name in expected}, expected) < TOLERANCE


@pytest.mark.parametrize("save_every", [1, None])
def test_a_loss_that_is_no_number_stops_and_keeps_a_good_state(
    tmp_path: Path, save_every: int | None
) -> None:
    clips = MadeUpClips(13, nan=(6,))
    trainer = small_trainer(small_config(save_every=save_every), tmp_path, clips)
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan at update \d") as caught:
        trainer.fit()
    named = str(caught.value).split("on the clips ")[1].split(";")[0].split(", ")
    assert "clip6" in named
    assert len(named) <= 4
    assert "\n" not in str(caught.value)
    state = load_state(tmp_path / "state", trainer.identity)
    if save_every is None:
        assert trainer.progress.epoch == 0
        assert state is None
    else:
        assert state is not None
        assert all(torch.isfinite(value).all() for value in state.network.values())
        assert state.progress.step == trainer.progress.step > 0
    assert len(steps_of(tmp_path)) == trainer.progress.step
    with pytest.raises(NonFiniteLossError, match="clip6"):
        small_trainer(small_config(save_every=save_every), tmp_path, clips).fit()


def test_a_gradient_that_is_no_number_stops_before_it_is_applied(tmp_path: Path) -> None:
    trainer = small_trainer(small_config(save_every=1), tmp_path, MadeUpClips(4))
    trainer.network.head.classes.bias.register_hook(lambda gradient: gradient * math.inf)
    before = trainer.network.head.classes.bias.detach().clone()
    with pytest.raises(
        NonFiniteLossError, match=r"gradient's norm is (nan|inf) at update 0 on the clips clip"
    ):
        trainer.fit()
    assert torch.equal(trainer.network.head.classes.bias, before)


def test_damaged_clips_are_left_out_and_listed(tmp_path: Path) -> None:
    clips = MadeUpClips(9, damaged=(0, 3))
    result = small_trainer(small_config(batch_size=1), tmp_path, clips, MadeUpClips(3, seed=1)).fit()
    assert result.progress.damaged == {f"clip{k}": "no media file; replace it" for k in (0, 3)}
    # A batch without a readable clip is no update.
    assert result.progress.step == len(steps_of(tmp_path)) == 2 * 7
    assert result.progress.finished


def test_clips_that_are_all_damaged_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        AvtuneError, match=r"not one training clip could be read \(clip\d: no media"
    ) as caught:
        small_trainer(small_config(), tmp_path, MadeUpClips(5, damaged=(0, 1, 2, 3, 4))).fit()
    assert "\n" not in str(caught.value)


def test_no_clips_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(AvtuneError, match="no clip to train on"):
        small_trainer(small_config(), tmp_path, MadeUpClips(0))


def test_real_files_with_a_damaged_one(tmp_path: Path) -> None:
    config = small_config(batch_size=2, epochs=1)
    model = small_model(config)
    records = []
    for k in range(6):
        path = tmp_path / f"{k}.mp4"
        if k == 2:
            path.write_bytes(b"no video at all")
        else:
            generator = np.random.default_rng(k)
            picture = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            sound = generator.normal(0, 0.1, 32000).astype(np.float32)
            write_video(path, [picture] * 8, 4.0, sound)
        records.append(Record(f"{k}", path, (Event(LABELS[k % 2], 0.0, 1.0),)))
    clips = ClipDataset(records, model.preprocessing, model.task.target)
    trainer = Trainer(
        model.network, model.task, config, tmp_path / "run", clips, clips, names=[r.name for r in records]
    )
    result = trainer.fit()
    assert list(result.progress.damaged) == ["2"]
    assert "\n" not in result.progress.damaged["2"]
    assert [math.isfinite(row["loss"]) for row in steps_of(tmp_path / "run")] == [True] * 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precisions_train_and_leave_the_network_exact(tmp_path: Path, precision: str) -> None:
    config = small_config(precision=precision, epochs=6, batch_size=8)
    trainer = small_trainer(config, tmp_path, MadeUpClips(8))
    kinds = []
    trainer.network.encoder.fusion.layers[0].audio_mlp.bottleneck.down.register_forward_hook(
        lambda module, given, out: kinds.append(out.dtype)
    )
    weights = trainer.fit().weights
    assert set(kinds) == {torch.bfloat16 if precision == "bf16" else torch.float32}
    losses = [row["loss"] for row in steps_of(tmp_path)]
    assert losses[-1] < losses[0]
    assert all(value.dtype != torch.bfloat16 for value in weights.values())
    # Outside training the network is what a loaded one is.
    twin = small_model(config)
    twin.network.load_trained_state(trainer.network.trained_state())
    batch = collate([MadeUpClips(1)[0]])
    with torch.no_grad():
        assert torch.equal(trainer.network.eval()(batch)[0], twin.network.eval()(batch)[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can train in fp16")
def test_fp16_without_cuda_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AvtuneError, match=r"fp16 needs a CUDA device.*choose bf16 or fp32"):
        small_trainer(small_config(precision="fp16"), tmp_path, MadeUpClips(4))


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "step"])
@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_rates_follow_the_schedule_in_every_group(tmp_path: Path, name: str, schedule: str) -> None:
    config = small_config(epochs=3, batch_size=2)
    config.optimizer.name, config.optimizer.schedule = name, schedule  # type: ignore[assignment]
    config.optimizer.lr_head, config.optimizer.warmup_share, config.optimizer.step_epochs = 0.1, 0.4, 1
    seen = []

    class Watch(Observer):
        def stepped(self, row: dict[str, Any]) -> None:
            rates = {g["name"].split(" ")[0]: g["lr"] for g in trainer.optimizer.param_groups}
            seen.append((row["lr"], rates["method"], rates["head"]))

    trainer = small_trainer(config, tmp_path, MadeUpClips(4), observer=Watch())
    frozen = {n: w.detach().clone() for n, w in trainer.network.named_parameters() if not w.requires_grad}
    trainer.fit()
    for step, (logged, method, head) in enumerate(seen):
        assert logged == method == pytest.approx(0.01 * trainer.factor(step))
        assert head == pytest.approx(0.1 * trainer.factor(step))
    assert len(seen) == trainer.steps == 6
    now = dict(trainer.network.named_parameters())
    assert frozen
    assert all(torch.equal(now[n], value) for n, value in frozen.items())


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    steps = {}
    for limit in (None, 1e-3):
        config = small_config(epochs=1, batch_size=8)
        config.optimizer.clip_norm = limit
        with patch("avtune.train.updates.build_optimizer", descent):
            trainer = small_trainer(config, tmp_path / str(limit), MadeUpClips(8))
        before = {n: w.detach().clone() for n, w in trainer.network.named_parameters() if w.requires_grad}
        trainer.fit()
        now = dict(trainer.network.named_parameters())
        moved = math.sqrt(sum(float((now[n].detach() - before[n]).square().sum()) for n in before))
        (row,) = steps_of(tmp_path / str(limit))
        steps[limit] = (moved, row["gradient_norm"])
    assert steps[None][1] == pytest.approx(steps[1e-3][1])
    assert steps[None][0] == pytest.approx(0.1 * steps[None][1], rel=1e-3)
    assert steps[1e-3][0] == pytest.approx(0.1 * 1e-3, rel=1e-2)


def test_best_weights_are_chosen_by_validation_and_patience_ends_the_run(tmp_path: Path) -> None:
    scores = iter([0.2, 0.6, 0.6, 0.1, 0.9])
    at_epoch: list[dict[str, torch.Tensor]] = []

    def scripted(network: Any, *args: object, **how: object) -> Evaluation:
        at_epoch.append({name: value.clone() for name, value in network.trained_state().items()})
        return Evaluation(Scores("score", next(scores)), 1)

    config = small_config(epochs=9, patience=2)
    with patch("avtune.train.loop.evaluate", scripted):
        trainer = small_trainer(config, tmp_path, MadeUpClips(8), MadeUpClips(2, seed=1))
        result = trainer.fit()
    progress = result.progress
    assert len(at_epoch) == progress.epoch == 4
    assert (progress.best, progress.best_step, progress.finished) == (0.6, 4, True)
    assert_equal(result.weights, at_epoch[1])
    assert largest_difference(result.weights, at_epoch[3]) > 1e-4
    again = small_trainer(config, tmp_path, MadeUpClips(8), MadeUpClips(2, seed=1)).fit()
    assert_equal(again.weights, at_epoch[1])


def test_without_a_score_the_last_weights_are_taken(tmp_path: Path) -> None:
    trainer = small_trainer(
        small_config(patience=1), tmp_path, MadeUpClips(4), MadeUpClips(2, damaged=(0, 1))
    )
    result = trainer.fit()
    assert result.progress.epoch == 2
    assert_equal(result.weights, trainer.network.trained_state())
    assert len(result.progress.damaged) == 2


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    clips, validation = MadeUpClips(8), MadeUpClips(3, seed=1)
    weights = small_trainer(small_config(), tmp_path, clips, validation).fit().weights
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()
    }

    class Forbidden(Observer):
        def stepped(self, row: dict[str, Any]) -> None:
            pytest.fail("a finished run made an update")

    result = small_trainer(small_config(), tmp_path, clips, validation, observer=Forbidden()).fit()
    assert result.progress.finished
    assert_equal(result.weights, weights)
    after = {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()
    }
    assert after == before


def test_other_settings_or_clips_are_refused(tmp_path: Path) -> None:
    small_trainer(small_config(), tmp_path, MadeUpClips(4)).fit()
    with pytest.raises(ResumeError, match=r"optimizer\.lr|train\.seed") as caught:
        small_trainer(small_config(seed=5), tmp_path, MadeUpClips(4)).fit()
    assert "\n" not in str(caught.value)
    with pytest.raises(ResumeError, match="training clips"):
        small_trainer(small_config(), tmp_path, MadeUpClips(5)).fit()
    shutil.rmtree(tmp_path / "state")
    small_trainer(small_config(seed=5), tmp_path, MadeUpClips(4)).fit()
    assert len(steps_of(tmp_path)) == 2
