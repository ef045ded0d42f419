"""Indexing that is killed loses at most the file it was reading, and ends as if nothing had been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import kill_index_driver
import pytest

WINDOWS = [1 + number % 3 for number in range(1, kill_index_driver.FILES + 1)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("killed_index")
    done = subprocess.run(
        [sys.executable, kill_index_driver.__file__, str(root)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads((root / "results.json").read_text())
    return found


@pytest.mark.parametrize(("place", "number"), kill_index_driver.PLACES)
def test_a_killed_index_goes_on_and_ends_as_an_unbroken_one(
    results: dict[str, Any], place: str, number: int
) -> None:
    result = results[f"{place}-{number}"]
    assert result["killed"], "the process was not killed, so nothing was tested"
    kept = kill_index_driver.FILES if place in ("saving", "vouching") else number - 1
    # What was indexed before can be searched at once.
    assert result["searched"] == sum(WINDOWS[:kept])
    assert result["again"] == 0
    assert result["read"] == [f"{k}.mp4" for k in range(kept + 1, kill_index_driver.FILES + 1)]
    assert len(result["content"]["windows"]) == sum(WINDOWS)
    assert result["content"] == results["unbroken"]
