from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avtune.train.log import RunLog, read_log


def rows(epochs: int, per_epoch: int) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for epoch in range(epochs):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        made += [{"event": "step", "step": step, "epoch": epoch, "loss": 1.5} for step in steps]
        made.append(
            {"event": "epoch", "step": (epoch + 1) * per_epoch - 1, "epoch": epoch, "validation": 0.5}
        )
    return made


def write(folder: Path, written: list[dict[str, Any]], **position: int) -> Path:
    log = RunLog(folder, **position)
    for row in written:
        log.write(row)
    log.close()
    return folder / "log.jsonl"


def test_rows_are_json_even_where_values_are_no_numbers(tmp_path: Path) -> None:
    path = write(
        tmp_path, [{"event": "step", "step": 0, "loss": float("nan"), "gradient_norm": float("inf")}]
    )
    (line,) = path.read_text().splitlines()
    refuse = pytest.fail
    assert json.loads(line, parse_constant=refuse) == {
        "event": "step", "step": 0, "loss": "nan", "gradient_norm": "inf",
    }  # fmt: skip


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_a_log_that_a_kill_cut_anywhere_is_continued_without_gap_or_double(tmp_path: Path, data: Any) -> None:
    whole = rows(3, 4)
    path = write(tmp_path, whole)
    # The state was saved after `step` updates and `epoch` epochs; the log went on to any later byte.
    step = data.draw(st.integers(0, 12))
    epoch = step // 4 - (1 if step and step % 4 == 0 and data.draw(st.booleans()) else 0)
    position = {"step": step, "epoch": epoch}
    done = [row for row in whole if row[row["event"]] < position[row["event"]]]
    least = sum(len(json.dumps(row)) + 1 for row in done)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(least, len(content)))])
    assert read_log(path)[: len(done)] == done
    assert read_log(write(tmp_path, whole[len(done) :], **position)) == whole


def test_a_new_run_starts_a_new_log(tmp_path: Path) -> None:
    write(tmp_path, rows(1, 3))
    assert read_log(write(tmp_path, [])) == []
    assert read_log(tmp_path / "absent.jsonl") == []


@pytest.mark.parametrize(
    "tail", [b'{"event": "st', b"\xff\xfe\x00", b"12\n", b'{"event": "other", "step": 1}\n']
)
def test_what_is_no_row_ends_the_log(tmp_path: Path, tail: bytes) -> None:
    path = write(tmp_path, rows(1, 2))
    path.write_bytes(path.read_bytes() + tail)
    assert read_log(path) == rows(1, 2)


def test_without_tensorboard_the_log_is_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    # A folder of that name in the working directory looks like a package to import systems.
    (tmp_path / "tensorboard").mkdir()
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    assert read_log(write(run, rows(1, 2))) == rows(1, 2)
    assert [path.name for path in run.iterdir()] == ["log.jsonl"]


def test_scalars_go_to_tensorboard_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            calls.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            calls.append((name, value, step))

        def close(self) -> None:
            calls.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    write(
        tmp_path,
        [{"event": "step", "step": 4, "loss": 0.5, "epoch": 1, "gradient_norm": float("inf")}],
        step=4,
    )
    assert calls == [(str(tmp_path / "tensorboard"), 4), ("step/loss", 0.5, 4), "closed"]
