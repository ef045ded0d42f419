"""The vector index: exact nearest vectors by inner product, in one file that faiss reads and writes.

A window's two vectors stand behind each other, (sound, picture), and a query is two vectors of which either may be
zeros. So one index answers every kind of search by the mean of the cosines that are compared. It is scanned whole:
that is exact, forgets windows without a trace, and does not depend on the order in which they came.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from avtune.files import appearing, remove_leftovers
from avtune.retrieval.embedders import Floats
from avtune.retrieval.store import VECTORS, Numbers, SearchError, Store

MOST_THREADS = 4
"""More wait for memory rather than for processors."""


class VectorIndex:
    """The vectors of a store, in half precision.

    Args:
        store: What it follows. A file in its folder that knows other windows is brought up to date in memory; one that
            the store does not vouch for, damaged or of another index, is made anew there.

    Raises:
        SearchError: faiss is not installed, or the store is damaged.
    """

    def __init__(self, store: Store) -> None:
        self._faiss = _import_faiss()
        self._store = store
        self._path = store.folder / VECTORS
        self._index = self._read()
        self.changed = self._follow()

    def __len__(self) -> int:
        """Number of windows."""
        return int(self._index.ntotal)

    def search(self, queries: Floats, count: int) -> tuple[Floats, Numbers]:
        """The best windows for each query; each thread scans a part of them.

        Args:
            queries: (queries, 2 x width).
            count: How many windows, at least 1.

        Returns:
            Scores, the inner products, and numbers, both (queries, found), in no order: the ``count`` best, or all
            where there are fewer, and some others. Where a part holds too few, the number is -1.
        """
        queries = np.ascontiguousarray(queries)
        bounds = np.linspace(0, len(self), min(os.cpu_count() or 1, MOST_THREADS) + 1).astype(int)
        limits = np.append(self._faiss.vector_to_array(self._index.id_map), np.iinfo(np.int64).max)[bounds]

        def scan(limit: tuple[int, int]) -> tuple[Floats, Numbers]:
            # faiss would spread several queries over threads of its own, which wait for each other.
            self._faiss.omp_set_num_threads(1)
            part = self._faiss.SearchParameters(sel=self._faiss.IDSelectorRange(*map(int, limit)))
            found: tuple[Floats, Numbers] = self._index.search(queries, min(count, len(self)), params=part)
            return found

        with ThreadPoolExecutor(len(bounds) - 1) as threads:
            scores, numbers = zip(*threads.map(scan, pairwise(limits)), strict=True)
        return np.concatenate(scores, axis=1), np.concatenate(numbers, axis=1)

    def save(self) -> None:
        """Write the file; a kill leaves the old one, or one that the store does not vouch for yet."""
        remove_leftovers(self._path)
        with appearing(self._path) as partial:
            self._faiss.write_index(self._index, str(partial))
            digest = _digest(partial)
        self._store.vouch(digest)
        self.changed = False

    def _read(self) -> Any:
        """The file's index, or an empty one: everything in it can be had from the store."""
        try:
            # faiss takes any bytes for vectors, and those of another index may have the same numbers.
            if _digest(self._path) == self._store.vectors_digest():
                return self._faiss.read_index(str(self._path))
        except (OSError, RuntimeError):
            # Absent, or written by a faiss that this one cannot read.
            pass
        kind = self._faiss.ScalarQuantizer.QT_fp16
        return self._faiss.IndexIDMap(
            self._faiss.IndexScalarQuantizer(
                2 * self._store.facts.width, kind, self._faiss.METRIC_INNER_PRODUCT
            )
        )

    def _follow(self) -> bool:
        """Drop windows that are gone and add new ones; whether there were any."""
        known, wanted = self._faiss.vector_to_array(self._index.id_map), self._store.numbers()
        if np.array_equal(known, wanted):
            return False
        gone = np.setdiff1d(known, wanted)
        if len(gone):
            self._index.remove_ids(gone)
        # Numbers only ever grow, so that whatever is new comes after all that is known.
        for numbers, vectors in self._store.vectors(above=int(known.max(initial=0))):
            self._index.add_with_ids(vectors.reshape(len(vectors), -1), numbers)
        return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise SearchError("search needs faiss; install it with `pip install 'avtune[search]'`") from None
    return faiss
