"""The files of an index, their windows and vectors, in one SQLite database: what is in it is whole, whatever is killed.

Vectors are kept here too, since only a database can add a file's windows, times and vectors all at once. The vector
index beside it (:mod:`avtune.retrieval.vectors`) follows from them and can always be made again.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from avtune.errors import AvtuneError
from avtune.retrieval.embedders import FileVectors, Floats
from avtune.tasks.retrieval import unit

DATABASE, VECTORS = "index.sqlite", "vectors.faiss"
FORMAT = "1"
WAIT_SECONDS = 60.0
SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (
    number INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, changed INTEGER NOT NULL,
    attempts INTEGER NOT NULL, problem TEXT, notes TEXT NOT NULL
);
CREATE TABLE windows (
    number INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE,
    beginning REAL NOT NULL, ending REAL NOT NULL, sound BLOB, picture BLOB
);
CREATE INDEX windows_of_a_file ON windows (file);
"""
# Numbers of windows are never given twice (AUTOINCREMENT): a vector index that knows one knows its vector.

Numbers = npt.NDArray[np.int64]


class SearchError(AvtuneError):
    """An index or a query that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Facts:
    """What an index is of.

    Attributes:
        videos: The folder whose files it holds.
        run: The run whose model made its vectors.
        fingerprint: Of that model, see :class:`avtune.retrieval.Embedder`.
        width: Length of a vector.
    """

    videos: Path
    run: Path
    fingerprint: str
    width: int


@dataclass(frozen=True)
class FileState:
    """What tells whether a file is still the one that was indexed.

    Attributes:
        size: Bytes.
        changed: Time of its last change, nanoseconds since 1970.
    """

    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """The state of a file on disk.

        Raises:
            OSError: It cannot be looked at.
        """
        state = path.stat()
        return cls(state.st_size, state.st_mtime_ns)


@dataclass(frozen=True)
class FileEntry:
    """What the index knows of a file.

    Attributes:
        state: The file's when it was read.
        attempts: How often reading it began and never ended; 0 where it did.
        problem: Why it has no windows; ``None`` where it has.
        notes: What a person should know of it.
    """

    state: FileState
    attempts: int
    problem: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class WindowRow:
    """A window of a file.

    Attributes:
        file: Path below the folder of videos.
        start: Where it begins, seconds.
        end: Where it ends, seconds.
        has_sound: Whether it has a vector of its sound.
        has_picture: Whether it has one of its frames.
        notes: What a person should know of the file.
    """

    file: Path
    start: float
    end: float
    has_sound: bool
    has_picture: bool
    notes: tuple[str, ...]


class Store:
    """The database of an index; use as a context manager.

    Args:
        folder: Folder of the index.
        facts: Make an index of this where there is none, and refuse one of something else; ``None``: read what
            there is.

    Raises:
        SearchError: There is no index, it is damaged or of another version, or of other videos or another model.
    """

    def __init__(self, folder: Path, facts: Facts | None = None) -> None:
        self.folder = folder
        path = folder / DATABASE
        if facts is None and not path.is_file():
            raise SearchError(
                f"{folder}: no index; make one with `avtune index VIDEOS --run RUN --out {folder}`"
            )
        try:
            if facts is not None:
                folder.mkdir(parents=True, exist_ok=True)
            # What a killed process left half done is undone by whoever opens the file next, a reader too.
            mode = "rw" if facts is None else "rwc"
            self._database = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=WAIT_SECONDS, isolation_level=None
            )
            self._database.execute("PRAGMA foreign_keys = ON")
            if facts is not None:
                self._create(facts)
            self.facts = self._read_facts()
        except (sqlite3.DatabaseError, KeyError, ValueError) as error:
            raise SearchError(
                f"{path}: damaged, or of another version ({error}); delete {folder} and make the index again"
            ) from error

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _create(self, facts: Facts) -> None:
        with self._transaction():
            if self._database.execute("SELECT name FROM sqlite_master WHERE name = 'facts'").fetchone():
                return
            # Of an index whose database is gone; its numbers are about to be given anew.
            (self.folder / VECTORS).unlink(missing_ok=True)
            for statement in SCHEMA.strip().removesuffix(";").split(";"):
                self._database.execute(statement)
            values = {
                "format": FORMAT,
                "videos": json.dumps(os.fspath(facts.videos)),
                "run": json.dumps(os.fspath(facts.run)),
                "fingerprint": facts.fingerprint,
                "width": str(facts.width),
            }
            self._database.executemany("INSERT INTO facts VALUES (?, ?)", values.items())

    def _read_facts(self) -> Facts:
        values = dict(self._database.execute("SELECT name, value FROM facts"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}, this avtune reads {FORMAT}")
        # JSON's escapes keep names that are no valid text, which a database would refuse.
        videos, run = Path(json.loads(values["videos"])), Path(json.loads(values["run"]))
        return Facts(videos, run, values["fingerprint"], int(values["width"]))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def files(self) -> dict[Path, FileEntry]:
        """All files by their path below the folder of videos, in the order of their names."""
        rows = self._database.execute(
            "SELECT path, size, changed, attempts, problem, notes FROM files ORDER BY path"
        )
        return {
            _below(path): FileEntry(FileState(size, changed), attempts, problem, _notes(notes))
            for path, size, changed, attempts, problem, notes in rows
        }

    def begin(self, path: Path, state: FileState) -> int:
        """Write down that a file is about to be read, and forget what was known of it in another state.

        Returns:
            How often that was written down of the file in this state, this time included, and was not followed by
            :meth:`add`, :meth:`refuse` or :meth:`withdraw`.
        """
        known = self._database.execute(
            "SELECT number, size, changed FROM files WHERE path = ?", (os.fsencode(path),)
        ).fetchone()
        with self._transaction():
            if known is not None and known[1:] != (state.size, state.changed):
                self._database.execute("DELETE FROM files WHERE number = ?", known[:1])
            self._database.execute(
                "INSERT INTO files (path, size, changed, attempts, notes) VALUES (?, ?, ?, 1, '[]') "
                "ON CONFLICT (path) DO UPDATE SET attempts = attempts + 1",
                (os.fsencode(path), state.size, state.changed),
            )
        (attempts,) = self._database.execute(
            "SELECT attempts FROM files WHERE path = ?", (os.fsencode(path),)
        ).fetchone()
        return int(attempts)

    def withdraw(self, path: Path) -> None:
        """Take a :meth:`begin` back: reading was interrupted by a person, which is not the file's fault."""
        with self._transaction():
            self._database.execute("DELETE FROM files WHERE path = ? AND attempts > 0", (os.fsencode(path),))

    def add(self, path: Path, vectors: FileVectors) -> None:
        """Write down the windows of a file that :meth:`begin` named."""
        with self._transaction():
            number = self._end(path, None, vectors.notes)
            self._database.executemany(
                "INSERT INTO windows (file, beginning, ending, sound, picture) VALUES (?, ?, ?, ?, ?)",
                (
                    (
                        number,
                        float(vectors.starts[k]),
                        float(vectors.ends[k]),
                        None if vectors.sound is None else _bytes(vectors.sound[k]),
                        None if vectors.picture is None else _bytes(vectors.picture[k]),
                    )
                    for k in range(len(vectors.starts))
                ),
            )

    def refuse(self, path: Path, problem: str) -> None:
        """Write down why a file that :meth:`begin` named has no windows."""
        with self._transaction():
            self._end(path, problem, ())

    def _end(self, path: Path, problem: str | None, notes: Sequence[str]) -> int:
        (number,) = self._database.execute(
            "UPDATE files SET attempts = 0, problem = ?, notes = ? WHERE path = ? RETURNING number",
            (problem, json.dumps(notes), os.fsencode(path)),
        ).fetchone()
        return int(number)

    def remove(self, paths: Sequence[Path]) -> None:
        """Forget files and their windows."""
        with self._transaction():
            self._database.executemany(
                "DELETE FROM files WHERE path = ?", [(os.fsencode(path),) for path in paths]
            )

    def numbers(self) -> Numbers:
        """The numbers of all windows, ascending (windows,)."""
        rows = self._database.execute("SELECT number FROM windows ORDER BY number").fetchall()
        return np.fromiter((number for (number,) in rows), dtype=np.int64, count=len(rows))

    def rows(self, numbers: Numbers) -> dict[int, WindowRow]:
        """Windows by number."""
        found = self._database.execute(
            "SELECT windows.number, path, beginning, ending, sound IS NOT NULL, picture IS NOT NULL, "
            "notes FROM windows JOIN files ON files.number = windows.file "
            "WHERE windows.number IN (SELECT value FROM json_each(?))",
            (json.dumps(numbers.tolist()),),
        )
        below, told = cache(_below), cache(_notes)
        return {
            number: WindowRow(below(path), start, end, bool(sound), bool(picture), told(notes))
            for number, path, start, end, sound, picture, notes in found
        }

    def vectors(self, above: int = 0, at_once: int = 4096) -> Iterator[tuple[Numbers, Floats]]:
        """Numbers and vectors of the windows with a number above ``above``, ascending, some at a time.

        Yields:
            Numbers (n,), and vectors (n, 2, width), sound first; zeros where a window lacks one.
        """
        width = self.facts.width
        rows = self._database.execute(
            "SELECT number, sound, picture FROM windows WHERE number > ? ORDER BY number", (above,)
        )
        while part := rows.fetchmany(at_once):
            vectors = np.zeros((len(part), 2, width), np.float32)
            for k, (_, *streams) in enumerate(part):
                for stream, content in enumerate(streams):
                    if content is not None:
                        vectors[k, stream] = np.frombuffer(content, "<f4")
            yield np.asarray([number for number, *_ in part], np.int64), vectors

    def file_vectors(self) -> dict[Path, Floats]:
        """The mean vectors (2, width) of each file that has sound and frames, sound first, of unit length.

        Windows weigh by their length.
        """
        rows = self._database.execute(
            "SELECT path, ending - beginning, sound, picture FROM windows JOIN files ON files.number = windows.file "
            "WHERE sound IS NOT NULL AND picture IS NOT NULL ORDER BY path, windows.number"
        )
        sums: dict[Path, npt.NDArray[np.float64]] = {}
        for stored, seconds, *streams in rows:
            path = _below(stored)
            window = np.stack([np.frombuffer(content, "<f4") for content in streams]).astype(np.float64)
            sums[path] = sums.get(path, 0.0) + seconds * window
        return {path: unit(total) for path, total in sums.items()}


def _below(stored: bytes) -> Path:
    """A path from the database, which may be someone else's.

    Raises:
        SearchError: It leads out of the folder of videos.
    """
    path = Path(os.fsdecode(stored))
    if path.is_absolute() or ".." in path.parts:
        raise SearchError(f"the index names {path}, which is not below its videos; make it again")
    return path


def _notes(stored: str) -> tuple[str, ...]:
    return tuple(json.loads(stored))


def _bytes(vector: Floats) -> bytes:
    return vector.astype("<f4").tobytes()
