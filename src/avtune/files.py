"""Writing files so that a kill leaves the old one or the new one, never half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avtune.errors import AvtuneError


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a file at, which takes that name once all of it is written.

    Args:
        path: The file; its folder must exist.

    Yields:
        Where to write it.

    Raises:
        AvtuneError: ``path`` is a folder.
    """
    if path.is_dir():
        raise AvtuneError(f"{path} is a folder; name a file")
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

    Raises:
        AvtuneError: ``path`` is a folder, or its folder is a file.
    """
    make_folder(path.parent)
    with appearing(path) as partial:
        partial.write_bytes(content)


def make_folder(path: Path) -> None:
    """Make a folder, and those that it lies in, where there is none.

    Raises:
        AvtuneError: A file has the name of one of them.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next(part for part in (path, *path.parents) if part.is_file())
        raise AvtuneError(f"{file} is a file, not a folder; name another place") from None


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes left when they were writing ``path``.

    Args:
        path: A file that one process alone writes.
    """
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink()
