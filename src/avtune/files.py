"""Writing files so that a kill leaves the old one or the new one, never half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a file at, which takes that name once all of it is written.

    Args:
        path: The file; its folder must exist.

    Yields:
        Where to write it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` through a temporary file beside it.

    Args:
        path: The file; its folder is made if absent.
        content: All of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path) as partial:
        partial.write_bytes(content)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes left when they were writing ``path``.

    Args:
        path: A file that one process alone writes.
    """
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink()
