"""Clips of all processes are each other's wrong answers, with the gradients of one process that holds them all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import retrieval_driver as driver

from torchrun import run_on_two_processes


def test_two_processes_sum_up_to_one(tmp_path: Path) -> None:
    out = tmp_path / "sums.json"
    run_on_two_processes(driver.__file__, out)
    total, count, *gradient = json.loads(out.read_text())
    one_total, one_count, one_gradient = driver.own_part(list(range(driver.CLIPS)))
    assert count == one_count == 6
    # Similarities are taken in single precision.
    assert total == pytest.approx(one_total, rel=1e-5)
    assert gradient == pytest.approx(one_gradient.tolist(), rel=1e-4, abs=1e-6)
