"""Two processes under torchrun equal one process with the same global batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import two_processes_driver as driver
from training_case import assert_equal, largest_difference

from avtune.train.log import read_log
from torchrun import run_on_two_processes, torchrun

# Sums in another order: a few units in the last place of 24 bits, over up to eight updates.
TOLERANCE = 2e-6

Facts = list[dict[str, Any]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two_processes")
    first = torchrun(driver.__file__, root, timeout=600)
    assert (root / "facts_1.json").exists(), first.stderr[-4000:]
    assert "exitcode: -9" in first.stderr, "no process was killed"
    run_on_two_processes(driver.__file__, root, timeout=600)
    return root


@pytest.fixture(scope="module")
def facts(root: Path) -> Facts:
    return [json.loads((root / f"facts_{rank}.json").read_text()) for rank in (0, 1)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(folder / "last_weights.pt", weights_only=True)
    return loaded


@pytest.mark.parametrize("name", driver.CASES)
def test_two_processes_equal_one(root: Path, facts: Facts, tmp_path: Path, name: str) -> None:
    one = driver.run_case(tmp_path, driver.CASES[name], "one")
    two = [rank[name] for rank in facts]
    assert one["error"] == two[0]["error"] == two[1]["error"] == ""
    assert one["step"] == two[0]["step"] == two[1]["step"]
    assert one["damaged"] == two[0]["damaged"] == two[1]["damaged"]
    logs = [read_log(folder / "log.jsonl") for folder in (tmp_path, root / name)]
    assert [row["event"] for row in logs[0]] == [row["event"] for row in logs[1]]
    for mine, theirs in zip(*logs, strict=True):
        assert mine["step"] == theirs["step"]
        if mine["event"] == "step":
            assert theirs["loss"] == pytest.approx(mine["loss"], rel=TOLERANCE)
        else:
            assert theirs["validation"] == mine["validation"]
    if name != "paper_adamw":
        assert largest_difference(weights(root / name), weights(tmp_path)) < TOLERANCE


def test_scores_count_each_clip_once(facts: Facts) -> None:
    one = driver.scored(batch_size=2)
    assert one["clips"] == 6
    for rank in facts:
        for two in rank["scored"]:
            assert json.loads(json.dumps(one)) == two


def test_every_process_knows_every_damaged_clip(facts: Facts) -> None:
    for rank in facts:
        assert set(rank["damaged"]["damaged"]) == {f"clip{k}" for k in (0, 2, 3, 4, 5, 6, 8)}


def test_clips_that_are_all_damaged_stop_every_process(facts: Facts) -> None:
    for rank in facts:
        assert rank["all_damaged"]["error"].startswith("AvtuneError: not one training clip could be read")
        assert "\n" not in rank["all_damaged"]["error"]


def test_every_process_names_the_clips_of_a_non_finite_loss(root: Path, facts: Facts) -> None:
    for rank in facts:
        error = rank["nan"]["error"]
        assert error.startswith("NonFiniteLossError: the loss is nan at update")
        assert "on the clips clip4;" in error


def test_a_signal_to_one_process_stops_both_and_the_run_resumes(root: Path, facts: Facts) -> None:
    for rank in facts:
        assert rank["asked"]["error"].startswith("Stopped: stopped after update 5 of 8")
        assert rank["resumed"]["step"] == rank["unbroken"]["step"] == 8
    assert_equal(weights(root / "asked"), weights(root / "unbroken"))


def test_killing_one_process_loses_nothing(root: Path) -> None:
    assert_equal(weights(root / "killed"), weights(root / "unbroken"))
    steps = [row["step"] for row in read_log(root / "killed" / "log.jsonl") if row["event"] == "step"]
    assert steps == list(range(8))
