"""The run's log: one JSON object a line, always; TensorBoard beside it where it is installed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from avtune.files import remove_leftovers, write_atomically


class RunLog:
    """Appends rows to ``log.jsonl``.

    Rows have an ``event``: ``step`` rows carry the index of their update, ``epoch`` rows the index of their epoch.

    Args:
        folder: The run folder.
        step: Updates made so far: rows of later ones are dropped first, a resumed run makes them again.
        epoch: Epochs ended so far, likewise.
    """

    def __init__(self, folder: Path, *, step: int = 0, epoch: int = 0) -> None:
        self.path = folder / "log.jsonl"
        done = {"step": step, "epoch": epoch}
        kept = [row for row in read_log(self.path) if row[row["event"]] < done[row["event"]]]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        remove_leftovers(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = _tensorboard(folder / "tensorboard", step)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row and hand it to the system, so that it outlives this process."""
        self._file.write(json.dumps({key: _plain(value) for key, value in row.items()}) + "\n")
        self._file.flush()
        if self._board is not None:
            for key, value in row.items():
                if isinstance(value, float) and math.isfinite(value):
                    self._board.add_scalar(f"{row['event']}/{key}", value, row["step"])

    def close(self) -> None:
        """Close the files."""
        os.fsync(self._file.fileno())
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log, up to the first line that is none: a kill may have cut the last one short.

    Args:
        path: A ``log.jsonl``; may be absent.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(row, dict) or row.get("event") not in ("step", "epoch") or "step" not in row:
            break
        rows.append(row)
    return rows


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step)


def _plain(value: Any) -> Any:
    # JSON has no NaN; a log that no parser reads is no log.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
