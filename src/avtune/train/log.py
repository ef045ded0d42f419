"""The run's log: one JSON object a line, always; TensorBoard beside it where it is installed."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any

from avtune.train.files import write_atomically


def _plain(value: Any) -> Any:
    # JSON has no NaN; a log that no parser reads is no log.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class RunLog:
    """Appends rows to ``log.jsonl``.

    Args:
        folder: The run folder.
        since: Rows of this update and later are dropped first: a resumed run makes them again.
        tensorboard: Also write scalars under ``folder/tensorboard`` if the package is there.
    """

    def __init__(self, folder: Path, *, since: int = 0, tensorboard: bool = True) -> None:
        self.path = folder / "log.jsonl"
        kept = [row for row in read_log(self.path) if row.get("step", 0) < since] if since else []
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = self.path.open("a", encoding="utf-8")
        self._board: Any = None
        if tensorboard and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=since)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row and push it to the disk's cache."""
        self._file.write(json.dumps({key: _plain(value) for key, value in row.items()}) + "\n")
        self._file.flush()
        if self._board is not None:
            for key, value in row.items():
                if isinstance(value, float) and math.isfinite(value):
                    self._board.add_scalar(f"{row['event']}/{key}", value, row["step"])

    def close(self) -> None:
        """Close the files."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; a last line that a kill cut short is left out.

    Args:
        path: A ``log.jsonl``; may be absent.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
