"""A model without weights and files without media: what is tested is the index, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avtune.media import MediaError
from avtune.retrieval import FileVectors
from avtune.tasks.retrieval import unit

WIDTH = 6


def write_made_up(path: Path, seed: int, *, windows: int = 1, streams: str = "both") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{seed} {windows} {streams}")
    return path


@dataclass
class MadeUpEmbedder:
    """Draws the vectors of a file by the seed that stands in it.

    Attributes:
        read: Names of the files that were embedded, in order.
        before: Called with each file first.
    """

    run: Path = Path("/runs/made_up")
    fingerprint: str = "first"
    width: int = WIDTH
    read: list[str] = field(default_factory=list)
    before: Callable[[Path], None] = lambda path: None

    def embed(self, path: Path, advanced: Callable[[int], None] | None = None) -> FileVectors:
        self.before(path)
        self.read.append(path.name)
        words = path.read_text().split()
        if len(words) != 3:
            raise MediaError(path, "holds no\nvideo", "copy it again")
        seed, windows, streams = int(words[0]), int(words[1]), words[2]
        drawn = unit(np.random.default_rng(seed).normal(size=(2, windows, self.width)))
        starts = 5 * np.arange(windows, dtype=np.float32)
        if advanced is not None:
            advanced(windows)
        return FileVectors(
            starts,
            starts + 10,
            None if streams == "picture" else drawn[0],
            None if streams == "sound" else drawn[1],
            () if streams == "both" else (f"only {streams}",),
        )


@dataclass
class Watcher:
    """Remembers what it is told."""

    files: int = -1
    windows: dict[str, int] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    def started(self, files: int) -> None:
        self.files = files

    def reading(self, file: Path, windows: int) -> None:
        self.windows[file.name] = windows

    def finished(self, file: Path) -> None:
        self.done.append(file.name)


def cosines(
    query: FileVectors, files: dict[str, FileVectors], of: str, to: str
) -> Iterable[tuple[float, str, float]]:
    """(cosine, file, start) of the first window of a query with every window that has what is compared."""
    vector = getattr(query, of)[0].astype(np.float64)
    for name, vectors in files.items():
        others = getattr(vectors, to)
        if others is not None:
            yield from (
                (float(vector @ other), name, float(start))
                for other, start in zip(others, vectors.starts, strict=True)
            )
