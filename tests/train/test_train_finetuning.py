"""Training whole encoders with streams left out: resumption, several processes, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import finetuning_driver as driver
import pytest
import torch
from finetuning_case import WholeClips, finetuner, finetuning_config
from training_case import assert_equal, largest_difference, small_config, small_model, stop_after

from avtune.counting import saved_bytes
from avtune.errors import AvtuneError
from avtune.train import Stopped, Trainer
from avtune.train.log import read_log
from avtune.transforms import collate
from torchrun import run_on_two_processes

ALL = {"drop_stream": 0.6, "mixup": 0.5, "mask_mels": 20, "mask_steps": 20, "noise": 0.1, "roll_steps": 64}


@pytest.mark.parametrize("objective", ["avsiam", "cav_mae"])
def test_a_run_goes_on_where_it_stopped(objective: str, tmp_path: Path) -> None:
    config, clips = (
        finetuning_config(objective, epochs=3, batch_size=2, crop_segments=1, **ALL),
        WholeClips(6),
    )
    whole = finetuner(config, tmp_path / "whole", clips).fit()
    cut = finetuner(config, tmp_path / "cut", clips)
    stop_after(cut, 4)
    with pytest.raises(Stopped):
        cut.fit()
    resumed = finetuner(config, tmp_path / "cut", clips).fit()
    assert resumed.progress.step == whole.progress.step == 9
    assert_equal(resumed.weights, whole.weights)
    losses = [row["loss"] for row in read_log(tmp_path / "cut/log.jsonl") if row["event"] == "step"]
    assert all(map(math.isfinite, losses))


def test_each_augmentation_changes_a_run(tmp_path: Path) -> None:
    def losses(name: str, **train: object) -> tuple[float, ...]:
        finetuner(finetuning_config(epochs=1, **train), tmp_path / name, WholeClips(6)).fit()
        return tuple(row["loss"] for row in read_log(tmp_path / name / "log.jsonl") if row["event"] == "step")

    single = {losses(name, **{name: value if name != "drop_stream" else 1.0}) for name, value in ALL.items()}
    assert len({losses("plain"), *single}) == 1 + len(ALL)


def test_the_result_can_be_the_mean_over_epochs(tmp_path: Path) -> None:
    config = finetuning_config(epochs=4, batch_size=3, average_from=2)
    clips, behind = WholeClips(6), []
    trainer = finetuner(config, tmp_path / "whole", clips, validation=WholeClips(2, seed=1))
    end = trainer._end_epoch

    def keep() -> None:
        behind.append({name: value.clone() for name, value in trainer.network.trained_state().items()})
        end()

    trainer._end_epoch = keep  # type: ignore[method-assign]
    mean = trainer.fit().weights
    for name, value in mean.items():
        expected = torch.stack([weights[name] for weights in behind[1:]]).mean(0)
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)
    cut = finetuner(config, tmp_path / "cut", clips)
    cut.observer = SimpleNamespace(**{  # type: ignore[assignment]
        **{name: lambda *told: None for name in ("started", "stepped", "message")},
        "evaluated": lambda row: setattr(cut.request, "asked", row["epoch"] == 2),
    })  # fmt: skip
    with pytest.raises(Stopped):
        cut.fit()
    assert_equal(finetuner(config, tmp_path / "cut", clips).fit().weights, mean)
    for wrong, words in (({"average_from": 5}, "from 1 to the 4 epochs"), ({"patience": 2}, "leave one out")):
        with pytest.raises(AvtuneError, match=words):
            finetuner(replace(config, train=replace(config.train, **wrong)), tmp_path / "no", clips)


def test_blocks_that_are_recomputed_keep_less_and_learn_the_same(tmp_path: Path) -> None:
    config = finetuning_config(epochs=1, batch_size=3, drop_stream=0.5)
    weights, kept = [], []
    for name in ("kept", "recomputed"):
        config = replace(config, train=replace(config.train, checkpoint=name == "recomputed"))
        trainer = finetuner(config, tmp_path / name, WholeClips(6))
        with saved_bytes(trainer.network) as count:
            trainer.network(collate([trainer.clips[0]]))  # type: ignore[list-item]
        kept.append(count[0])
        weights.append(trainer.fit().weights)
    assert_equal(*weights)
    assert kept[1] < kept[0] / 2


def test_batches_without_sound_leave_what_only_sound_trains(tmp_path: Path) -> None:
    trainer = finetuner(finetuning_config(epochs=1, drop_stream=1.0), tmp_path, WholeClips(6))
    before = {name: weight.clone() for name, weight in trainer.network.trained_state().items()}
    after = trainer.fit().weights
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any("joint" in name for name in changed)
    assert any(".trunks.shared." in name and name.endswith("fc1.weight") for name in changed)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finetuning_processes")
    run_on_two_processes(driver.__file__, root)
    return root


@pytest.mark.parametrize("name", driver.RUNS)
def test_all_processes_have_the_same_weights(root: Path, name: str) -> None:
    first, second = (torch.load(root / f"{name}_{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_equal(first, second)
    assert all(value.isfinite().all() for value in first.values())


@pytest.mark.parametrize(
    ("name", "alone"),
    [
        ("both_streams", {"batch_size": 4}),
        ("cav_mae", {"batch_size": 4}),
        # Batches of one clip lose the same streams, whichever process draws.
        ("mixed", {"accumulate": 4}),
        ("damaged", {"accumulate": 2}),
    ],
)
def test_two_processes_are_one_with_twice_the_batch(
    root: Path, tmp_path: Path, name: str, alone: dict[str, int]
) -> None:
    one = driver.run(tmp_path, name, **alone)
    two = torch.load(root / f"{name}_0.pt", weights_only=True)
    # Sums in another order, in single precision, over four updates.
    assert largest_difference(one, two) < 1e-3


def test_streams_are_not_left_out_where_both_together_are_the_task(tmp_path: Path) -> None:
    config = small_config(drop_stream=0.5)
    model, clips = small_model(config), WholeClips(2)
    with pytest.raises(
        AvtuneError, match=r"train\.drop_stream leaves out a stream, and the task localization"
    ):
        Trainer(model.network, model.task, config, tmp_path, clips, names=clips.names)
    config = replace(config, head=replace(config.head, task="classification"))
    classifying = small_model(config)
    Trainer(classifying.network, classifying.task, config, tmp_path, clips, names=clips.names)
