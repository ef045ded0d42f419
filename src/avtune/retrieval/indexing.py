"""Bringing an index up to date with a folder of videos: new and changed files are embedded, vanished ones dropped."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from avtune.datasets.records import VIDEO_SUFFIXES, printable
from avtune.media import MediaError
from avtune.retrieval.embedders import Embedder
from avtune.retrieval.store import Facts, FileEntry, FileState, SearchError, Store
from avtune.retrieval.vectors import VectorIndex

SOUND_SUFFIXES = frozenset({".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".wma", ".aiff"})
MOST_ATTEMPTS = 3
"""A file with which the process died so often is left out from then on, until it changes."""


class Progress(Protocol):
    """Watches the indexing."""

    def started(self, files: int) -> None:
        """``files`` files are about to be read."""

    def reading(self, file: Path, windows: int) -> None:
        """``windows`` windows of a file are done."""

    def finished(self, file: Path) -> None:
        """A file is in the index, or known to be damaged."""


@dataclass(frozen=True)
class Indexed:
    """What came of bringing an index up to date.

    Attributes:
        embedded: Files that were read now.
        unchanged: Files that were in the index already.
        removed: Files that were in the index and are gone.
        damaged: Why which files, old and new, could not be read.
        noted: Files in the index of which a person should know something; search results tell what.
        windows: Windows in the index now.
    """

    embedded: int
    unchanged: int
    removed: int
    damaged: dict[str, str]
    noted: int
    windows: int


def update_index(videos: Path, embedder: Embedder, folder: Path, progress: Progress) -> Indexed:
    """Make an index of a folder, or bring one up to date. Killed at any moment, the next call goes on.

    Args:
        videos: Folder of videos and sounds; folders in it are looked through, hidden ones are not.
        embedder: The model.
        folder: Folder of the index.
        progress: Is told what happens.

    Raises:
        SearchError: There is nothing to index, or the index is of another folder or model.
    """
    videos = videos.expanduser().resolve()
    found = find_media(videos)
    wanted = Facts(videos, embedder.run.resolve(), embedder.fingerprint, embedder.width)
    with Store(folder, wanted) as store:
        _refuse_others(store, wanted)
        known = store.files()
        removed = [path for path in known if path not in found]
        store.remove(removed)
        todo = [path for path, state in found.items() if _is_new(known.get(path), state)]
        progress.started(len(todo))
        embedded = 0
        for path in todo:
            embedded += _embed(store, embedder, path, progress)
            progress.finished(path)
        index = VectorIndex(store)
        if index.changed:
            index.save()
        entries = store.files()
        return Indexed(
            embedded=embedded,
            unchanged=len(found) - len(todo),
            removed=len(removed),
            damaged={
                printable(path.as_posix()): entry.problem
                for path, entry in entries.items()
                if entry.problem is not None
            },
            noted=sum(bool(entry.notes) for entry in entries.values()),
            windows=len(index),
        )


def find_media(videos: Path) -> dict[Path, FileState]:
    """Every video and sound below a folder, by its path below it, in the order of names.

    Raises:
        SearchError: It is no folder, or holds none.
    """
    if not videos.is_dir():
        raise SearchError(f"{videos} is not a folder; name the folder of the videos to index")
    found = {}
    for parent, folders, names in os.walk(videos):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if name.startswith(".") or path.suffix.lower() not in VIDEO_SUFFIXES | SOUND_SUFFIXES:
                continue
            try:
                found[path.relative_to(videos)] = FileState.of(path)
            except OSError:
                # Gone since the folder was listed, or a link to nowhere.
                continue
    if not found:
        # An index must not be emptied because a disk is not there.
        raise SearchError(
            f"{videos}: no video or sound in it; check that the folder is the right one, and mounted"
        )
    return dict(sorted(found.items()))


def _refuse_others(store: Store, wanted: Facts) -> None:
    has = store.facts
    mend = f"name another --out, or delete {store.folder}"
    if has.fingerprint != wanted.fingerprint:
        raise SearchError(
            f"{store.folder}: its vectors are of another model, that of {has.run} at the time, and cannot be compared "
            f"with those of {wanted.run}; {mend}"
        )
    if has.videos != wanted.videos:
        raise SearchError(f"{store.folder}: is the index of {has.videos}, not of {wanted.videos}; {mend}")


def _is_new(entry: FileEntry | None, state: FileState) -> bool:
    return entry is None or entry.state != state or entry.attempts > 0


def _embed(store: Store, embedder: Embedder, path: Path, progress: Progress) -> bool:
    """Read one file into the index, if it can be read; one that cannot is written down and never fatal."""
    whole = store.facts.videos / path
    done = 0

    def advanced(windows: int) -> None:
        nonlocal done
        done += windows
        progress.reading(path, done)

    try:
        state = FileState.of(whole)
    except OSError:
        # It vanished since it was found; the next call removes what is known of it.
        return False
    attempts = store.begin(path, state)
    if attempts > MOST_ATTEMPTS:
        store.refuse(
            path, f"the process died {MOST_ATTEMPTS} times while reading it; convert it to H.264 and AAC"
        )
        return False
    progress.reading(path, 0)
    try:
        store.add(path, embedder.embed(whole, advanced))
    except MediaError as error:
        store.refuse(path, " ".join(f"{error.problem}; {error.remedy}".split()))
        return False
    except BaseException:
        store.withdraw(path)
        raise
    return True
