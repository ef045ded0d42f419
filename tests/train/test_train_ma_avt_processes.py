"""MA-AVT's contrast over two processes has the loss and the gradient of one."""

from __future__ import annotations

import json
from pathlib import Path

import ma_avt_driver as driver
import pytest
import torch
from training_case import largest_difference

from avtune.train.log import read_log
from torchrun import run_on_two_processes


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ma_avt_processes")
    run_on_two_processes(driver.__file__, root)
    return root


@pytest.mark.parametrize("split", driver.SPLITS)
@pytest.mark.parametrize("feature", driver.FEATURES)
@pytest.mark.parametrize("projection", driver.PROJECTIONS)
def test_gradients_of_the_contrast_are_those_of_one_process(
    root: Path, split: str, feature: str, projection: str
) -> None:
    one = driver.contrast_case(feature, projection, slice(0, 8))
    first, second = (
        torch.load(root / f"{split}_{feature}_{projection}_{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert one["loss"] > 0
    for name, whole in one.items():
        if name == "loss":
            torch.testing.assert_close(first[name], whole)
            torch.testing.assert_close(second[name], whole)
            continue
        assert whole.abs().sum() > 0
        parts = [first[name], second[name]]
        both = torch.cat(parts, 1) if name in ("audio", "video") else sum(parts)
        torch.testing.assert_close(both, whole, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("name", driver.RUNS)
def test_a_run_on_two_processes_is_that_on_one(root: Path, tmp_path: Path, name: str) -> None:
    one = driver.run(tmp_path, driver.RUNS[name], batch_size=4)
    two = [json.loads((root / f"facts_{rank}.json").read_text())[name] for rank in (0, 1)]
    assert one["error"] == two[0]["error"] == two[1]["error"] == ""
    assert one["step"] == two[0]["step"] == two[1]["step"] > 0
    logs = [read_log(folder / "log.jsonl") for folder in (tmp_path, root / name)]
    for mine, theirs in zip(*logs, strict=True):
        if mine["event"] == "step":
            assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-5)
    weights = [torch.load(f / "last_weights.pt", weights_only=True) for f in (root / name, tmp_path)]
    # Sums in another order, behind similarities that are multiplied by 14.
    assert largest_difference(*weights) < 1e-5
