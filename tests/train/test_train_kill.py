"""Runs that are killed or asked to stop, and resumed, end bit for bit as unbroken ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import kill_driver
import pytest

KILLED = [f"{name}-{place}-{number}" for name, kills in kill_driver.KILLS.items() for place, number in kills]
ASKED = [f"{name}-{which}-{how}" for name, which, how in kill_driver.SIGNALS]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, kill_driver.__file__, str(root)], env=environment, capture_output=True, text=True, timeout=900
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads((root / "results.json").read_text())
    return found


def assert_ended_as_unbroken(result: dict[str, Any]) -> None:
    assert result["resumed"] == 0
    assert result["weights"] > 100
    assert result["differing"] == []
    assert result["log"] == result["unbroken_log"]
    steps = [row["step"] for row in result["log"] if row["event"] == "step"]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 4
    assert list(result["damaged"]) == ["clip4"]
    assert result["left_behind"] == []


@pytest.mark.parametrize("name", KILLED)
def test_killed_run_resumes_exactly(results: dict[str, Any], name: str) -> None:
    assert results[name]["killed"], "the run was not killed, so nothing was tested"
    assert_ended_as_unbroken(results[name])


@pytest.mark.parametrize("name", ASKED)
def test_run_that_is_asked_to_stop_saves_and_resumes_exactly(results: dict[str, Any], name: str) -> None:
    result = results[name]
    step = 4 if name.endswith("epoch end") else 2
    assert result["code"] == 7, "the run did not stop"
    assert result["stopped"].startswith(f"{step} stopped after update {step} of ")
    assert "\n" not in result["stopped"]
    assert_ended_as_unbroken(result)
