"""Pretraining's updates: one batch or many pieces, recomputed or kept, in half precision, cut short and resumed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_clips import MadeUpClips
from pretraining_case import searched_clips, small_pretrainer, small_pretraining
from training_case import assert_equal, largest_difference

from avtune.train import NonFiniteLossError, Observer, Stopped
from avtune.train.log import read_log
from avtune.train.order import together
from avtune.train.pretraining_clips import OneFrame
from avtune.train.state import ResumeError
from avtune.transforms import Damaged, Sample, collate

# Sums over micro-batches in another order: some units in the last place of 24 bits, relative to a tensor's largest.
TOLERANCE = 2e-5
CASES: list[tuple[str, str | None, dict[str, Any]]] = [
    ("avsiam", "paper", {}),
    ("avsiam", "paper", {"stop_gradient": False, "contrast": "sigmoid"}),
    ("avsiam", "published", {}),
    ("avsiam", "paper", {"contrast": "none", "stop_gradient": False}),
    ("cav_mae", "paper", {}),
]


def first_update(
    folder: Path, case: tuple[str, str | None, dict[str, Any]], **train: Any
) -> tuple[Any, dict[str, Any]]:
    """Gradients of the first update's twelve clips, before clipping, and what the log would hold."""
    objective, preset, options = case
    config = small_pretraining(objective, preset, options, **train)
    config.optimizer.clip_norm = None
    trainer = small_pretrainer(config, folder, MadeUpClips(12))
    indices = trainer._windows(0)[0]
    clips = trainer._drawn()

    found = trainer._gradients([collate([clips[k] for k in batch]) for batch in indices])
    gradients = {
        name: weight.grad for name, weight in trainer.network.named_parameters() if weight.grad is not None
    }
    return gradients, {"loss": found.loss, **found.facts}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_micro_batches_are_each_others_negatives_as_one_batch(
    tmp_path: Path, case: tuple[str, str | None, dict[str, Any]]
) -> None:
    whole, whole_facts = first_update(tmp_path, case, batch_size=12)
    pieces, facts = first_update(tmp_path, case, batch_size=5, accumulate=3)
    assert len(whole) > 30
    assert largest_difference(pieces, whole) < TOLERANCE
    assert facts == pytest.approx(whole_facts, rel=1e-5)
    if "contrastive" in facts:
        # Each piece by itself would have fewer clips to confuse.
        assert abs(facts["contrastive"] - first_update(tmp_path, case, batch_size=4)[1]["contrastive"]) > 0.05


@pytest.mark.parametrize("objective", ["avsiam", "cav_mae"])
def test_recomputed_blocks_have_the_same_gradient(tmp_path: Path, objective: str) -> None:
    kept, _ = first_update(tmp_path, (objective, None, {}), batch_size=12)
    recomputed, _ = first_update(tmp_path, (objective, None, {}), batch_size=12, checkpoint=True)
    assert_equal(recomputed, kept)


def test_half_precision_comes_near_and_sums_its_losses_in_single(tmp_path: Path) -> None:
    single, facts = first_update(tmp_path, ("avsiam", None, {}), batch_size=12)
    half, half_facts = first_update(tmp_path, ("avsiam", None, {}), batch_size=12, precision="bf16")
    assert {weight.dtype for weight in half.values()} == {torch.float32}
    # Eight bits of a product: some per cent of the loss, whose own sums are single precision and so not a multiple.
    assert half_facts["loss"] == pytest.approx(facts["loss"], rel=0.05)
    assert half_facts["loss"] != float(torch.tensor(half_facts["loss"]).bfloat16())
    assert 0.001 < largest_difference(half, single) < 1


class At(Observer):
    """Sends this process a signal behind an update."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, row: dict[str, Any]) -> None:
        if row["step"] == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_log(folder / "log.jsonl")]


def test_a_run_that_is_stopped_within_an_epoch_ends_bit_for_bit_as_an_unbroken_one(tmp_path: Path) -> None:
    config, clips = small_pretraining(batch_size=2, accumulate=2), MadeUpClips(13, damaged=(4,))
    how: Any = {"validation": searched_clips(5)}
    unbroken = small_pretrainer(config, tmp_path / "unbroken", clips, **how)
    unbroken.fit()
    stopped = small_pretrainer(config, tmp_path / "stopped", clips, observer=At(5), **how)
    with pytest.raises(Stopped, match="stopped after update 6 of 8"):
        stopped.fit()
    resumed = small_pretrainer(config, tmp_path / "stopped", clips, **how)
    progress = resumed.fit()
    assert progress.finished
    assert list(progress.damaged) == ["clip4"]
    assert_equal(resumed.weights(), unbroken.weights())
    assert rows(tmp_path / "stopped") == rows(tmp_path / "unbroken")
    assert [row["step"] for row in rows(tmp_path / "unbroken") if row["event"] == "step"] == list(range(8))
    other = small_pretraining(batch_size=2, accumulate=2, seed=1)
    with pytest.raises(ResumeError, match=r"train\.seed was 0, now 1"):
        small_pretrainer(other, tmp_path / "stopped", clips).fit()


def test_masks_go_by_the_place_in_an_update_whatever_the_order_of_clips(tmp_path: Path) -> None:
    config, clips = small_pretraining(batch_size=2, accumulate=2), MadeUpClips(11)
    trainer = small_pretrainer(config, tmp_path, clips, order=together([k % 3 for k in range(11)]))
    view = trainer._drawn()
    (first, second), *_ = trainer._windows(0)
    batches = [collate([view[k] for k in batch]) for batch in (first, second)]
    whole = trainer._masks(collate([view[k] for k in first + second])).audio.visible
    pieces = [trainer._masks(batch).audio.visible for batch in batches]
    assert torch.equal(torch.cat(pieces), whole)
    assert trainer.fit().finished


def test_a_loss_that_is_no_number_names_the_clip_and_keeps_the_last_state(tmp_path: Path) -> None:
    clips = MadeUpClips(8, nan=(5,))
    with pytest.raises(
        NonFiniteLossError, match=r"the loss is nan at update 1 on the clips clip5; "
    ) as caught:
        small_pretrainer(small_pretraining(save_every=1), tmp_path, clips).fit()
    assert "\n" not in str(caught.value)
    assert (tmp_path / "state" / "last.pt").is_file()


def test_frames_change_between_epochs_and_depend_on_nothing_else() -> None:
    clips = MadeUpClips(40)
    epochs = [OneFrame(clips, seed=0, epoch=epoch) for epoch in (0, 0, 1)]
    frames = [torch.stack([view[k].prepared.frames for k in range(40)]) for view in epochs]
    assert torch.equal(frames[0], frames[1])
    whole = torch.stack([clips[k].prepared.frames for k in range(40)])
    first = (frames[0] == whole[:, :1]).flatten(1).all(1)
    second = (frames[0] == whole[:, 1:]).flatten(1).all(1)
    assert bool((first ^ second).all())
    valid = torch.stack([clips[k].prepared.valid[1] for k in range(40)])
    assert not bool((second & ~valid).any())
    assert 5 < int(second.sum()) < 22
    assert not torch.equal(frames[0], frames[2])


def test_a_clip_without_sound_takes_no_part() -> None:
    clips = MadeUpClips(1)
    sample = clips[0]
    assert isinstance(sample, Sample)
    sample.prepared.has_audio.fill_(False)
    found = OneFrame(clips)[0]
    assert isinstance(found, Damaged)
    assert found.problem == "has no sound, and pretraining needs both"
