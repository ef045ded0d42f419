"""Writing files so that a kill leaves the old one or the new one, never half of one."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` through a temporary file beside it.

    Args:
        path: The file; its folder is made if absent.
        content: All of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes left when they were writing ``path``.

    Args:
        path: A file that one process alone writes.
    """
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink()
