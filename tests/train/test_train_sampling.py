"""Balanced draws and mixed clips in the loop: they follow from the seed, resume, and are refused where impossible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up_clips import LABELS, MadeUpClips
from training_case import WITHOUT_BATCH_NORM, assert_equal, small_config, small_model, stop_after

from avtune.config import RunConfig
from avtune.errors import AvtuneError
from avtune.train import Stopped, Trainer
from avtune.train.log import read_log
from avtune.train.order import drawn
from avtune.transforms import Sample


class WholeClips(MadeUpClips):
    """The same clips with one class each."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        for k, clip in enumerate(self.clips):
            assert isinstance(clip, Sample)
            self.clips[k] = replace(clip, target=torch.tensor(k % len(LABELS)))


def classifying(**train: object) -> RunConfig:
    config = small_config(WITHOUT_BATCH_NORM, **train)
    return replace(config, head=replace(config.head, task="classification"))


def trainer(config: RunConfig, folder: Path, weights: list[float] | None = None) -> Trainer:
    model, clips = small_model(config), WholeClips(8)
    order = None if weights is None else drawn(weights)
    return Trainer(model.network, model.task, model.config, folder, clips, names=clips.names, order=order)


def losses(config: RunConfig, folder: Path, weights: list[float] | None = None) -> list[float]:
    trainer(config, folder, weights).fit()
    return [row["loss"] for row in read_log(folder / "log.jsonl") if row["event"] == "step"]


def test_mixing_and_weights_change_a_run_and_repeat_with_its_seed(tmp_path: Path) -> None:
    plain = losses(classifying(epochs=1), tmp_path / "plain")
    mixed = losses(classifying(epochs=1, mixup=1.0), tmp_path / "mixed")
    drawn = losses(classifying(epochs=1), tmp_path / "drawn", [9.0, *[1.0] * 7])
    assert len({tuple(plain), tuple(mixed), tuple(drawn)}) == 3
    assert len(drawn) == len(plain)
    assert mixed == losses(classifying(epochs=1, mixup=1.0), tmp_path / "again")


def test_a_weighted_run_of_mixed_clips_goes_on_where_it_stopped(tmp_path: Path) -> None:
    config = classifying(epochs=2, mixup=0.5)
    weights = [1.0 + k for k in range(8)]
    whole = trainer(config, tmp_path / "whole", weights).fit()
    cut = trainer(config, tmp_path / "cut", weights)
    stop_after(cut, 3)
    with pytest.raises(Stopped):
        cut.fit()
    resumed = trainer(config, tmp_path / "cut", weights).fit()
    assert resumed.progress.step == whole.progress.step == 4
    assert_equal(resumed.weights, whole.weights)


def test_what_a_tasks_truth_does_not_allow_is_refused_before_training(tmp_path: Path) -> None:
    localizing = small_config(mixup=0.5)
    weak = small_config(crop_segments=2)
    weak = replace(weak, head=replace(weak.head, supervision="clips"))
    model, clips = small_model(localizing), MadeUpClips(2)
    for config, own, words in (
        (localizing, model, "train.mixup mixes clips and their classes, which the task localization"),
        (classifying(mining="paper"), small_model(classifying()), "train.mining calls clips background"),
        (weak, small_model(weak), "train.crop_segments would tell which events each crop holds"),
    ):
        with pytest.raises(AvtuneError, match=words) as caught:
            Trainer(own.network, own.task, config, tmp_path, clips, names=clips.names)
        assert "\n" not in str(caught.value)
