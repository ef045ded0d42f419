"""How long a search in 100,000 windows takes, and how much of what a search in double precision finds it finds.

Vectors are generated: what a window shares with all windows of its kind (sounds lie apart from pictures), with its
topic, with its other half, and what is its own. Each is written into an index as `avtune index` would, which is then
opened and searched as by `avtune search`: from a query's vectors to places in files with their times. The ten best
windows are held against those of a plain computation. Writes benchmarks/results/search_speed.json. Run from the
repository root:

    python benchmarks/search_speed.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from avtune.compare import processor_name
from avtune.retrieval import FileVectors, SearchIndex
from avtune.retrieval.search import query_rows
from avtune.retrieval.store import Facts, FileState, Store
from avtune.retrieval.vectors import VectorIndex
from avtune.tasks.retrieval import unit

WINDOWS_PER_FILE = 100
TOPICS = 500
QUERIES = 50
SECONDS_PER_WINDOW = 5
SEARCHES = (("sound", "sound"), ("sound", "picture"), ("both", "both"))
COMPARED_BEST = 10


def make_vectors(windows: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """(windows, 2, width) of unit length, sound first."""
    topics, kinds = generator.normal(size=(TOPICS, width)), generator.normal(size=(2, width))
    shared = topics[generator.integers(TOPICS, size=windows)] + 0.7 * generator.normal(size=(windows, width))
    own = 0.8 * generator.normal(size=(windows, 2, width))
    return unit(shared[:, None] + kinds + own)


def make_queries(vectors: np.ndarray, generator: np.random.Generator) -> list[FileVectors]:
    """Windows like some that are indexed, each with some noise."""
    chosen = vectors[generator.integers(len(vectors), size=QUERIES)]
    noisy = unit(chosen + 0.5 * unit(generator.normal(size=chosen.shape)))
    start = np.zeros(1, np.float32)
    return [FileVectors(start, start + 10, one[:1], one[1:]) for one in noisy]


def fill(folder: Path, vectors: np.ndarray) -> None:
    """An index of these windows, in files of WINDOWS_PER_FILE."""
    starts = SECONDS_PER_WINDOW * np.arange(WINDOWS_PER_FILE, dtype=np.float32)
    facts = Facts(Path("/videos"), Path("/runs/generated"), "generated", vectors.shape[2])
    with Store(folder, facts) as store:
        for number, part in enumerate(np.split(vectors, len(vectors) // WINDOWS_PER_FILE)):
            path = Path(f"{number:05d}.mp4")
            store.begin(path, FileState(1, 1))
            store.add(path, FileVectors(starts, starts + 10, part[:, 0], part[:, 1]))
        VectorIndex(store).save()


def timed(call: Callable[[Any], object], items: list[Any]) -> dict[str, float]:
    """Milliseconds of each call, elapsed and of the processor."""
    elapsed, processor = [], []
    for item in items:
        wall, cpu = time.perf_counter(), time.process_time()
        call(item)
        elapsed.append(1000 * (time.perf_counter() - wall))
        processor.append(1000 * (time.process_time() - cpu))
    return {
        "fastest_ms": round(min(elapsed), 1),
        "median_ms": round(float(np.median(elapsed)), 1),
        "percentile_95_ms": round(float(np.percentile(elapsed, 95)), 1),
        "processor_median_ms": round(float(np.median(processor)), 1),
    }


def recall(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean share of the expected ones that were found, both (queries, best)."""
    return round(
        float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, expected, strict=True)])), 4
    )


def best(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The best windows of each query, by inner products in double precision, a query at a time."""
    flat = vectors.reshape(len(vectors), -1)
    return np.stack([np.argsort(-(flat @ query), kind="stable")[:COMPARED_BEST] for query in queries])


def measure_index(windows: int, width: int, folder: Path) -> list[dict[str, Any]]:
    """Searches of each kind in one index."""
    generator = np.random.default_rng(0)
    vectors = make_vectors(windows, width, generator)
    queries = make_queries(vectors, generator)
    fill(folder, vectors)
    exact = vectors.astype(np.float64)
    rows = []
    opening = time.perf_counter()
    with SearchIndex(folder) as index:
        opening = time.perf_counter() - opening
        for by, within in SEARCHES:
            turned = np.concatenate([query_rows(query, by, within) for query in queries])
            numbers = np.stack([index._vectors.search(row[None], COMPARED_BEST)[1][0] for row in turned])
            rows.append({
                "windows": windows, "width": width, "by": by, "in": within, "opening_ms": round(1000 * opening),
                **timed(lambda query, by=by, within=within: index.search(query, by, within), queries),
                "recall_at_10": recall(numbers - 1, best(turned.astype(np.float64), exact)),
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 768])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "search_speed.json")
    arguments = parser.parse_args()
    rows = []
    for width in arguments.widths:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure_index(arguments.windows, width, Path(folder))
    result = {
        "command": f"python benchmarks/search_speed.py --windows {arguments.windows} "
        f"--widths {' '.join(map(str, arguments.widths))}",
        "machine": {
            "cpu": processor_name(),
            "cores": os.cpu_count(),
            "load_average_at_end": [round(load, 1) for load in os.getloadavg()],
            "python": platform.python_version(),
            "faiss": faiss.__version__,
            "torch": torch.__version__,
        },
        "note": "From a query's vectors to ten places with files and times; a thread for each core. Elapsed times "
        "include what other programs took of the machine; processor times do not.",
        "searches": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
