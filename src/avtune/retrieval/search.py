"""From the vectors of a query to places in files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from avtune.retrieval.embedders import FileVectors, Floats
from avtune.retrieval.store import SearchError, Store, WindowRow
from avtune.retrieval.vectors import VectorIndex

Compared = Literal["sound", "picture", "both"]
"""What of a query or of the indexed files is compared."""

NEAR = 0.05
"""Windows beside a result whose score is lower by at most this belong to it."""
WINDOWS_PER_RESULT = 5
"""How many windows are looked at for each result that is asked for, before looking at more."""

SHARES: dict[Compared, tuple[float, float]] = {"sound": (1.0, 0.0), "picture": (0.0, 1.0), "both": (0.5, 0.5)}
"""How much of a score comes from a window's sound and from its frames."""


@dataclass(frozen=True)
class Found:
    """A place in a file that fits a query.

    Attributes:
        file: Path below the folder of videos.
        start: Where the place begins, seconds.
        end: Where it ends.
        at: Where its best window begins.
        score: Of the best window: the cosine of what was compared, a mean where it was several; in [-1, 1].
        notes: What a person should know of the file.
    """

    file: Path
    start: float
    end: float
    at: float
    score: float
    notes: tuple[str, ...] = ()

    def touches(self, window: WindowRow) -> bool:
        """Whether a window of the same file overlaps or adjoins it."""
        return self.start <= window.end and window.start <= self.end and self.file == window.file


class SearchIndex:
    """An index that is open to be searched; use as a context manager.

    Args:
        folder: What ``avtune index`` wrote.

    Raises:
        SearchError: There is no index or it is damaged, or faiss is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        try:
            self._vectors = VectorIndex(self.store)
        except BaseException:
            self.store.close()
            raise
        self.facts = self.store.facts

    def __enter__(self) -> SearchIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._vectors)

    def refuse_other(self, fingerprint: str, run: Path) -> None:
        """Refuse a model whose vectors cannot be compared with those of the index.

        Raises:
            SearchError: It is another.
        """
        if fingerprint != self.facts.fingerprint:
            raise SearchError(
                f"{self.store.folder}: its vectors are of another model than {run} holds now; name the run that made "
                f"them with --run, or make the index again from {run}"
            )

    def search(
        self, query: FileVectors, by: Compared | None = None, within: Compared | None = None, top: int = 10
    ) -> list[Found]:
        """The places that fit a query best.

        A window's score is its best over the query's windows. Without a word on what to compare, the query's sound is
        compared with sounds and its frames with frames, as far as it has them.

        Args:
            query: Of the model that made the index.
            by: What of the query is compared; ``None``: what it has.
            within: What of the files it is compared with; ``None``: the same.
            top: How many places, at least 1.

        Returns:
            At most ``top`` places, the best first; equally good ones in the order of the index. Windows of a file that
            touch are one place.

        Raises:
            SearchError: The query lacks what is to be compared.
        """
        by = by or what_it_has(query)
        rows = query_rows(query, by, within or by)
        needs_sound, needs_picture = (bool(part.any()) for part in np.split(rows, 2, axis=1))
        count, found = WINDOWS_PER_RESULT * top, list[Found]()
        while len(self._vectors):
            ranked = list(self._ranked(rows, count))
            windows = self.store.rows(np.asarray([number for number, _ in ranked], np.int64))
            # A window may be gone from the store since the index was opened.
            rated = ((windows[number], score) for number, score in ranked if number in windows)
            found = places(
                (
                    (window, score)
                    for window, score in rated
                    if (needs_sound and window.has_sound) or (needs_picture and window.has_picture)
                ),
                top,
            )
            if len(found) == top or count >= len(self._vectors):
                break
            count *= 4
        return found

    def _ranked(self, rows: Floats, count: int) -> Iterator[tuple[int, float]]:
        """Numbers and scores of the best windows over all rows of a query, the best first."""
        scores, numbers = (part.ravel() for part in self._vectors.search(rows, count))
        order = np.lexsort((numbers, -scores))
        order = order[numbers[order] >= 0]
        _, first = np.unique(numbers[order], return_index=True)
        best = order[np.sort(first)][:count]
        return zip(numbers[best].tolist(), scores[best].clip(-1.0, 1.0).tolist(), strict=True)


def what_it_has(query: FileVectors) -> Compared:
    """What of a query can be compared."""
    if query.sound is None:
        return "picture"
    return "sound" if query.picture is None else "both"


def query_rows(query: FileVectors, by: Compared, within: Compared) -> Floats:
    """A query as the vector index takes it: what each of its windows compares with sounds, and with frames.

    The inner product with a window's two vectors is the mean of the cosines that are compared: both with both compares
    like with like; any other pairing each of the one with each of the other.

    Args:
        query: (windows, width) each.
        by: What of the query is compared.
        within: What of the files it is compared with.

    Returns:
        (windows, 2 x width).

    Raises:
        SearchError: The query lacks what is to be compared.
    """
    parts = {"sound": query.sound, "picture": query.picture}
    if by != "both":
        parts = {by: parts[by]}
    for name, vectors in parts.items():
        if vectors is None:
            other = "sound" if name == "picture" else "picture"
            raise SearchError(f"the query has no {name}; search by {other} instead (--by {other})")
    chosen: list[Floats] = [vectors for vectors in parts.values() if vectors is not None]
    mean = np.mean(chosen, axis=0)
    heard, seen = chosen if by == within == "both" else (mean, mean)
    of_sound, of_picture = SHARES[within]
    return np.concatenate([of_sound * heard, of_picture * seen], axis=1, dtype=np.float32)


def places(ranked: Iterator[tuple[WindowRow, float]], top: int) -> list[Found]:
    """Windows, the best first, as places in files.

    A window that touches a place of its file belongs to it, and stretches it where its score is near the place's;
    any other begins a new place.
    """
    found: list[Found] = []
    for window, score in ranked:
        touched = [place for place in found if place.touches(window)]
        if not touched:
            if len(found) < top:
                found.append(Found(window.file, window.start, window.end, window.start, score, window.notes))
            continue
        best = touched[0]
        if score < best.score - NEAR:
            continue
        # A window between two places makes them one.
        start = min(window.start, *(place.start for place in touched))
        end = max(window.end, *(place.end for place in touched))
        found[found.index(best)] = replace(best, start=start, end=end)
        found = [place for place in found if place not in touched[1:]]
    return found
