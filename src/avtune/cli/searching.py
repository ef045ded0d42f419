"""``avtune index``, ``avtune search`` and ``avtune map``: find what sounds or looks alike in a heap of videos."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.progress import Progress, TaskID

from avtune.cli.console import console, listing, new_progress, report_damage
from avtune.datasets.records import printable
from avtune.errors import AvtuneError
from avtune.files import write_atomically
from avtune.report import numbers
from avtune.report.map_picture import SUFFIX, draw_map
from avtune.report.search_page import SearchReport, write_search_page
from avtune.retrieval import Found, SearchIndex, update_index, what_it_has
from avtune.retrieval.map import map_files, read_categories
from avtune.retrieval.store import Store
from avtune.runs.embedders import load_embedder


class _Bar:
    """Shows the indexing in a progress bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def started(self, files: int) -> None:
        self._task = self._progress.add_task("indexing", total=files, note="")

    def reading(self, file: Path, windows: int) -> None:
        assert self._task is not None
        note = printable(file.name) + (f", {windows} windows" if windows else "")
        self._progress.update(self._task, note=note)

    def finished(self, file: Path) -> None:
        assert self._task is not None
        self._progress.advance(self._task)


def index(options: argparse.Namespace) -> int:
    """Make the index of a folder, or bring it up to date."""
    embedder = load_embedder(options.run_folder)
    with new_progress() as progress:
        done = update_index(Path(options.videos), embedder, Path(options.out), _Bar(progress))
    report_damage(done.damaged)
    if done.noted:
        console.print(f"{done.noted} files have remarks, which search results show", highlight=False)
    console.print(
        f"{options.out}: {done.windows} windows; {done.embedded} files read, {done.unchanged} unchanged, "
        f"{done.removed} gone",
        highlight=False,
    )
    return 0 if done.windows else 1


def search(options: argparse.Namespace) -> int:
    """Find what is like a file."""
    if options.top < 1:
        raise AvtuneError(f"--top is {options.top}; ask for 1 result or more")
    query = Path(options.query).expanduser()
    with SearchIndex(Path(options.index)) as opened:
        run = Path(options.run_folder or opened.facts.run)
        if not run.is_dir():
            raise AvtuneError(f"{run}: the run that made the index is not there; say where it is with --run")
        embedder = load_embedder(run)
        opened.refuse_other(embedder.fingerprint, embedder.run)
        vectors = embedder.embed(query)
        by = options.by or what_it_has(vectors)
        within = options.within or by
        found = opened.search(vectors, by, within, options.top)
        videos = opened.facts.videos
        facts = {
            "Searched by": by,
            "Compared with": within,
            "Files": printable(videos.name),
            "Windows": len(opened),
            "Model": printable(embedder.run.name),
        }
    console.print(
        listing(
            ["", "file", "from", "to", "cosine"],
            [
                [str(rank), printable(place.file.as_posix()), numbers.clock(place.start), numbers.clock(place.end),
                 f"{place.score:.3f}"]
                for rank, place in enumerate(found, start=1)
            ],
        )
    )  # fmt: skip
    _print_notes(vectors.notes, found)
    if options.json:
        content = {
            "query": printable(str(query)),
            "notes": vectors.notes,
            "by": by,
            "in": within,
            "videos": printable(str(videos)),
            "found": [_json(place) for place in found],
        }
        write_atomically(
            Path(options.json), (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
        )
    if options.page:
        write_search_page(Path(options.page), SearchReport(query, vectors.notes, videos, found, facts))
        console.print(f"page: {options.page}", highlight=False, markup=False)
    return 0


def draw(options: argparse.Namespace) -> int:
    """Draw where sounds and pictures of an index lie."""
    out = Path(options.out)
    if out.suffix.lower() != SUFFIX:
        raise AvtuneError(f"--out {out}: the map is a PNG; let its name end with {SUFFIX}")
    categories = read_categories(Path(options.labels)) if options.labels else None
    with Store(Path(options.index)) as store:
        points = map_files(store, categories, options.categories, options.files, options.seed)
    draw_map(out, points)
    console.print(
        f"{len(points.files)} files of {len(points.names)} categories: {options.out}", highlight=False
    )
    return 0


def _print_notes(query: Sequence[str], found: Sequence[Found]) -> None:
    """What a person should know of the query's file and of those that were found."""
    told = {"the query": query, **{printable(place.file.as_posix()): place.notes for place in found}}
    for name, notes in told.items():
        if notes:
            console.print(f"{name}: {'; '.join(notes)}", highlight=False, markup=False)


def _json(place: Found) -> dict[str, object]:
    return {**asdict(place), "file": printable(place.file.as_posix()), "score": round(place.score, 6)}
