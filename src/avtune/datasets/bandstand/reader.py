"""Bandstand as a dataset: AVE's layout for what happens when, and beside it what is heard, seen, and sounding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets import ave
from avtune.datasets.listed import csv_rows
from avtune.datasets.masks import mask_folder
from avtune.datasets.records import Collection, Event, Record


def read(config: DataConfig) -> Collection:
    """Read a bandstand set, or a set of one's own in the same layout; no media file is opened.

    Args:
        config: ``root``; ``split`` as for AVE.

    Returns:
        The clips, with ``heard``, ``seen`` and ``masks`` where the set tells them.

    Raises:
        DatasetError: A file that is needed is absent, or a row is malformed; the message names it.
    """
    collection = ave.read(config)
    heard, seen = (_stretches(collection.root / name) for name in ("heard.csv", "seen.csv"))
    splits = {
        name: tuple(_with_truths(record, collection.root, heard, seen) for record in records)
        for name, records in collection.splits.items()
    }
    return replace(collection, splits=splits)


def _stretches(path: Path) -> Mapping[str, Sequence[Event]]:
    """Labelled stretches by the clip's file name without suffix; none where there is no such table."""
    found: dict[str, list[Event]] = defaultdict(list)
    rows = csv_rows(path, 5) if path.is_file() else iter(())
    for (file, label, start, end, _), _ in rows:
        if file != "file" and float(start) < float(end):
            found[Path(file).stem].append(Event(label, float(start), float(end)))
    return found


def _with_truths(
    record: Record, root: Path, heard: Mapping[str, Sequence[Event]], seen: Mapping[str, Sequence[Event]]
) -> Record:
    name = record.name
    return replace(
        record,
        heard=tuple(heard.get(name, ())),
        seen=tuple(seen.get(name, ())),
        masks=mask_folder(root / "masks" / name),
    )
