"""Kills indexing by SIGKILL and goes on; what came of it goes to a JSON file.

A program of its own, which forks a process for each try: torch is imported once, and what is killed is real.
Usage: ``python kill_index_driver.py FOLDER``.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILES = 7
# While the k-th file is embedded; when its windows are in the database but not yet for good; when the vector index is
# written but not yet in its place; when it is in its place but the database does not vouch for it yet.
PLACES = [
    *(("embedding", k) for k in (1, 4, 7)), *(("storing", k) for k in (1, 5, 7)), ("saving", 1), ("vouching", 1),
]  # fmt: skip


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(place: str, number: int, embedder: Any) -> None:
    """Have the process killed at the given occasion of the given place."""
    from avtune.retrieval import store, vectors

    counted = 0

    def count(kind: str) -> None:
        nonlocal counted
        counted += kind == place
        if counted == number and kind == place:
            kill()

    embedder.before = lambda path: count("embedding")
    end, vouch, replace = store.Store._end, store.Store.vouch, Path.replace

    def ended(self: Any, *arguments: Any) -> int:
        found = end(self, *arguments)
        count("storing")
        return found

    def vouched(self: Any, digest: str) -> None:
        count("vouching")
        vouch(self, digest)

    def replaced(self: Path, target: Path) -> Path:
        if target.name == vectors.VECTORS:
            count("saving")
        return replace(self, target)

    store.Store._end, store.Store.vouch, Path.replace = ended, vouched, replaced  # type: ignore[method-assign,assignment]


def index(
    root: Path, folder: Path, prepare: Callable[[Any], None] = lambda embedder: None
) -> tuple[int, list[str]]:
    """Index in a forked process; its wait status and the files that it read."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            from made_up_index import MadeUpEmbedder, Watcher

            from avtune.retrieval import update_index

            embedder = MadeUpEmbedder()
            prepare(embedder)
            update_index(root / "videos", embedder, folder, Watcher())
            os.write(write_end, json.dumps(embedder.read).encode())
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        told = pipe.read()
    return os.waitpid(child, 0)[1], json.loads(told or "[]")


def content(folder: Path) -> dict[str, Any]:
    """All that an index holds."""
    import faiss

    with sqlite3.connect(folder / "index.sqlite") as database:
        rows = {
            table: [
                [value.hex() if isinstance(value, bytes) else value for value in row]
                for row in database.execute(f"SELECT * FROM {table} ORDER BY 1")
            ]
            for table in ("facts", "files", "windows")
        }
    vectors = faiss.read_index(str(folder / "vectors.faiss"))
    return {
        **rows,
        "vectors": faiss.serialize_index(vectors).tobytes().hex(),
        "files here": sorted(os.listdir(folder)),
    }


def main(root: Path) -> None:
    from made_up_index import write_made_up

    import avtune.retrieval

    for number in range(1, FILES + 1):
        write_made_up(root / "videos" / f"{number}.mp4", number, windows=1 + number % 3)
    status, _ = index(root, root / "unbroken")
    assert status == 0
    results: dict[str, Any] = {"unbroken": content(root / "unbroken")}
    for place, number in PLACES:
        folder = root / f"{place}{number}"
        status, _ = index(root, folder, lambda embedder: kill_at(place, number, embedder))  # noqa: B023
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        searched = None
        if killed:
            with avtune.retrieval.SearchIndex(folder) as opened:
                searched = len(opened)
        again, read = index(root, folder)
        results[f"{place}-{number}"] = {
            "killed": killed, "searched": searched, "again": again, "read": read, "content": content(folder)
        }  # fmt: skip
    (root / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
