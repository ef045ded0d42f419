"""Pretraining on two processes, whole or sharded, equals one process that holds all clips of an update."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pretraining_processes_driver as driver
import pytest
import torch
from training_case import assert_equal, largest_difference

from avtune.train.log import read_log
from torchrun import run_on_two_processes

# Sums in another order, over up to ten updates: units in the last place of 24 bits.
TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two_processes")
    run_on_two_processes(driver.__file__, root)
    return root


def facts(root: Path, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / f"facts_{rank}.json").read_text())
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(folder / "last_weights.pt", weights_only=True)
    return loaded


@pytest.mark.parametrize("name", driver.CASES)
def test_two_processes_equal_one(root: Path, tmp_path: Path, name: str) -> None:
    one = driver.run_case(tmp_path, driver.CASES[name], "one")
    assert one == facts(root, 0)[name] == facts(root, 1)[name]
    assert one["error"] == ""
    logs = [
        [row for row in read_log(folder / "log.jsonl") if row["event"] == "step"]
        for folder in (tmp_path, root / name)
    ]
    assert len(logs[0]) == len(logs[1]) >= 4
    for mine, theirs in zip(*logs, strict=True):
        assert mine.keys() == theirs.keys()
        for fact in mine.keys() - {"seconds", "event"}:
            assert theirs[fact] == pytest.approx(mine[fact], rel=1e-4), fact
    assert largest_difference(weights(root / name), weights(tmp_path)) < TOLERANCE


def test_a_signal_to_one_process_stops_both_and_the_sharded_run_resumes_exactly(root: Path) -> None:
    for rank in (0, 1):
        found = facts(root, rank)
        assert found["stopped"]["error"].startswith("Stopped: stopped after update 2 of 4")
        assert found["resumed"] == found["sharded"]
    assert_equal(weights(root / "stopped"), weights(root / "sharded"))
