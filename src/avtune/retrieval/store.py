"""The files of an index, their windows and vectors, in one SQLite database: what is in it is whole, whatever is killed.

Vectors are kept here too, since only a database can add a file's windows, times and vectors all at once. The vector
index beside it (:mod:`avtune.retrieval.vectors`) follows from them and can always be made again.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from avtune.errors import AvtuneError
from avtune.files import make_folder
from avtune.retrieval.embedders import FileVectors, Floats
from avtune.tasks.retrieval import unit

DATABASE, VECTORS = "index.sqlite", "vectors.faiss"
FORMAT = "1"
WAIT_SECONDS = 60.0
LENGTH_TOLERANCE = 1e-3
"""Of a stored vector's squared length, which single precision makes differ from 1 by some 1e-6."""
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
Read = TypeVar("Read")


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
        SearchError: There is no index, it is damaged or of another version, or of other videos or another model. All
            methods raise it too, where the database turns out to be damaged or cannot be used.
        AvtuneError: A file lies where the folder is to be made.
    """

    def __init__(self, folder: Path, facts: Facts | None = None) -> None:
        self.folder = folder
        path = folder / DATABASE
        if facts is None and not path.is_file():
            raise SearchError(
                f"{folder}: no index; make one with `avtune index VIDEOS --run RUN --out {folder}`"
            )
        if facts is not None:
            make_folder(folder)
        with self._errors_told():
            # What a killed process left half done is undone by whoever opens the file next, a reader too.
            mode = "rw" if facts is None else "rwc"
            self._database = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=WAIT_SECONDS, isolation_level=None
            )
        try:
            with self._errors_told():
                self._database.execute("PRAGMA foreign_keys = ON")
            if facts is not None:
                self._create(facts)
            with self._errors_told():
                self.facts = self._read_facts()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        """Turn what SQLite reports, or what cannot be made of a value that it returns, into a SearchError."""
        path = self.folder / DATABASE
        try:
            yield
        except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
            # SQLITE_ERROR is a statement that does not fit the tables; text that is no UTF-8 has no code at all.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
                raise SearchError(
                    f"{path}: cannot be used now ({error}), and is left as it was; see that its folder may be written "
                    "to, that the disk has space, and that no other command is busy with it"
                ) from error
            raise SearchError(
                f"{path}: damaged, or of another version ({error}); delete {self.folder} and make the index again"
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors_told():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                # After some errors, such as a full disk, SQLite has rolled back by itself.
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _query(
        self, statement: str, read: Callable[..., Read], values: Sequence[object] = ()
    ) -> Iterator[Read]:
        """What ``read`` makes of each row that a statement selects."""
        with self._errors_told():
            for row in self._database.execute(statement, values):
                yield read(*row)

    def _create(self, facts: Facts) -> None:
        with self._transaction():
            if self._database.execute("SELECT name FROM sqlite_master WHERE name = 'facts'").fetchone():
                return
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

    def files(self) -> dict[Path, FileEntry]:
        """All files by their path below the folder of videos, in the order of their names."""
        rows = self._query(
            "SELECT path, size, changed, attempts, problem, notes FROM files ORDER BY path",
            lambda path, size, changed, attempts, problem, notes: (
                _below(path),
                FileEntry(FileState(size, changed), attempts, problem, _notes(notes)),
            ),
        )
        return dict(rows)

    def begin(self, path: Path, state: FileState) -> int:
        """Write down that a file is about to be read, and forget what was known of it in another state.

        Returns:
            How often that was written down of the file in this state, this time included, and was not followed by
            :meth:`add`, :meth:`refuse` or :meth:`withdraw`.
        """
        stored = os.fsencode(path)
        with self._transaction():
            self._database.execute(
                "DELETE FROM files WHERE path = ? AND (size, changed) != (?, ?)",
                (stored, state.size, state.changed),
            )
            (attempts,) = self._database.execute(
                "INSERT INTO files (path, size, changed, attempts, notes) VALUES (?, ?, ?, 1, '[]') "
                "ON CONFLICT (path) DO UPDATE SET attempts = attempts + 1 RETURNING attempts",
                (stored, state.size, state.changed),
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
        # Without an order SQLite reads its small index of the windows, and not past all of their vectors.
        return np.sort(np.fromiter(self._query("SELECT number FROM windows", int), np.int64))

    def rows(self, numbers: Numbers) -> dict[int, WindowRow]:
        """Windows by number."""
        below, told = cache(_below), cache(_notes)
        found = self._query(
            "SELECT windows.number, path, beginning, ending, sound IS NOT NULL, picture IS NOT NULL, "
            "notes FROM windows JOIN files ON files.number = windows.file "
            "WHERE windows.number IN (SELECT value FROM json_each(?))",
            lambda number, path, start, end, sound, picture, notes: (
                number,
                WindowRow(below(path), start, end, bool(sound), bool(picture), told(notes)),
            ),
            (json.dumps(numbers.tolist()),),
        )
        return dict(found)

    def vectors(self, above: int = 0, at_once: int = 4096) -> Iterator[tuple[Numbers, Floats]]:
        """Numbers and vectors of the windows with a number above ``above``, ascending, some at a time.

        Yields:
            Numbers (n,), and vectors (n, 2, width), sound first; zeros where a window lacks one.
        """
        rows = self._query(
            "SELECT number, sound, picture FROM windows WHERE number > ? ORDER BY number",
            lambda number, *streams: (number, self._vectors(*streams)),
            (above,),
        )
        while part := list(islice(rows, at_once)):
            numbers, vectors = zip(*part, strict=True)
            yield np.asarray(numbers, np.int64), np.stack(vectors)

    def file_vectors(self) -> dict[Path, Floats]:
        """The mean vectors (2, width) of each file that has sound and frames, sound first, of unit length.

        Windows weigh by their length.
        """
        rows = self._query(
            "SELECT path, ending - beginning, sound, picture FROM windows JOIN files ON files.number = windows.file "
            "WHERE sound IS NOT NULL AND picture IS NOT NULL ORDER BY path, windows.number",
            lambda path, seconds, *streams: (
                _below(path),
                seconds * self._vectors(*streams).astype(np.float64),
            ),
        )
        sums: dict[Path, npt.NDArray[np.float64]] = {}
        for path, window in rows:
            sums[path] = sums.get(path, 0.0) + window
        return {path: unit(total) for path, total in sums.items()}

    def vectors_digest(self) -> str | None:
        """What :meth:`vouch` was told last; ``None``: nothing yet."""
        return next(self._query("SELECT value FROM facts WHERE name = 'vectors'", str), None)

    def vouch(self, digest: str) -> None:
        """Write down the digest of the file of vectors that was made of this database."""
        with self._transaction():
            self._database.execute("INSERT OR REPLACE INTO facts VALUES ('vectors', ?)", (digest,))

    def _vectors(self, *streams: bytes | None) -> Floats:
        """A window's vectors as they are stored (2, width).

        Raises:
            ValueError: One is not of unit length, nor zeros.
        """
        vectors = np.zeros((2, self.facts.width), np.float32)
        for vector, content in zip(vectors, streams, strict=True):
            if content is not None:
                vector[:] = np.frombuffer(content, "<f4").reshape(self.facts.width)
                square = float(vector @ vector)
                if not (square == 0 or abs(square - 1) < LENGTH_TOLERANCE):
                    raise ValueError(f"a vector of length {square**0.5:g} instead of 1")
        return vectors


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
