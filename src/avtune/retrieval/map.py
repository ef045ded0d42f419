"""Vectors of sounds and pictures laid out in the plane by t-SNE, as Figure 4 of the AVSiam paper."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from avtune.retrieval.embedders import Floats
from avtune.retrieval.store import SearchError, Store

MOST_CATEGORIES = 8
PERPLEXITY = 30.0


@dataclass(frozen=True)
class Map:
    """Where the files of an index lie.

    Attributes:
        files: Their paths below the folder of videos.
        names: Of the categories, the most frequent first.
        category: Index in ``names`` of each file's (files,).
        sound: Place of each file's sound (files, 2); only neighbourhood means something.
        picture: Place of its pictures.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]
    category: npt.NDArray[np.int64]
    sound: Floats
    picture: Floats


def map_files(store: Store, categories: Mapping[Path, str] | None, most: int, files: int, seed: int) -> Map:
    """Lay out the files that have both sound and pictures, each with the mean vectors of its windows.

    Args:
        store: Of the index.
        categories: Category by path, see :func:`read_categories`; ``None``: the topmost folder that a file lies in.
        most: How many categories at most, 1 to 8: the most frequent ones.
        files: How many files at most, drawn at random.
        seed: Of that. The layout itself begins with the principal components, not with chance.

    Raises:
        SearchError: scikit-learn is not installed, there are fewer than four such files, or a number is out of range.
    """
    if not 1 <= most <= MOST_CATEGORIES or files < 4:
        raise SearchError(
            f"--categories {most} must lie between 1 and {MOST_CATEGORIES}, and --files {files} be 4 or more"
        )
    vectors = store.file_vectors()
    named = {
        path: _folder(path) if categories is None else categories.get(store.facts.videos / path)
        for path in vectors
    }
    frequent = Counter(name for name in named.values() if name is not None).most_common(most)
    names = tuple(name for name, _ in sorted(frequent, key=lambda item: (-item[1], item[0])))
    kept = [path for path in vectors if named[path] in names]
    if len(kept) > files:
        drawn = np.random.default_rng(seed).choice(len(kept), files, replace=False)
        kept = [kept[k] for k in np.sort(drawn)]
    if len(kept) < 4:
        raise SearchError(
            f"{store.folder}: a map needs 4 files with sound, pictures and a category, here are {len(kept)}; index "
            "more, or name their categories with --labels"
        )
    sound, picture = np.split(
        _tsne(np.concatenate([np.stack([vectors[p][k] for p in kept]) for k in (0, 1)]), seed), 2
    )
    category = np.asarray([names.index(str(named[path])) for path in kept], np.int64)
    return Map(tuple(kept), names, category, sound, picture)


def read_categories(table: Path) -> dict[Path, str]:
    """The label of each file of a CSV table with columns ``file`` (relative to the table) and ``label``.

    Of several labels of a file the first counts.

    Raises:
        SearchError: It cannot be read, lacks a column, or a row of it lacks a field.
    """
    folder = table.resolve().parent
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"file", "label"} <= set(rows.fieldnames or ()):
                raise SearchError(f"{table}: has no columns file and label; give it a heading line with both")
            found: dict[Path, str] = {}
            for row in rows:
                if row["file"] is None or row["label"] is None:
                    raise SearchError(
                        f"{table} line {rows.line_num}: ends before its file or label; complete or remove it"
                    )
                found.setdefault(folder / row["file"], row["label"])
            return found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SearchError(f"{table}: cannot be read as a table ({error}); give a CSV file") from error


def _folder(path: Path) -> str:
    return path.parts[0] if len(path.parts) > 1 else "."


def _tsne(vectors: Floats, seed: int) -> Floats:
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise SearchError(
            "a map needs scikit-learn; install it with `pip install 'avtune[search]'`"
        ) from None
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    # Sums of several threads differ in their last bits, and t-SNE makes other pictures of them.
    with threadpool_limits(1):
        placed: Floats = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors)
    return placed
