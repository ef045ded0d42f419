"""Bandstand as a set of clips with one class each: what is both heard and seen."""

from __future__ import annotations

from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets.listed import csv_rows
from avtune.datasets.records import SPLITS, Collection, DatasetError, Event, Record, relative_path

CLASSES = "classes.csv"
COLUMNS = ["file", "label", "heard", "seen", "split"]
CLIP_SECONDS = 10.0


def read(config: DataConfig) -> Collection:
    """Read the clips of a bandstand set in which something is both heard and seen; no media file is opened.

    Other instruments may sound without being seen, or be seen without sounding: neither stream alone tells which class
    a clip has wherever ``heard`` and ``seen`` name more than one.

    Args:
        config: ``root``.

    Returns:
        The clips, each with its class as an event from its beginning to its end; labels sorted by name.

    Raises:
        DatasetError: ``classes.csv`` is absent, or a row is malformed; the message names it.
    """
    root = Path(config.root).expanduser()
    path = root / CLASSES
    if not path.is_file():
        raise DatasetError(
            f"{path} is not there; make clips by `avtune data bandstand`, or point the root at some"
        )
    rows = list(csv_rows(path, len(COLUMNS)))
    if not rows or rows[0][0] != COLUMNS:
        raise DatasetError(f"{path}: the first line has to be {','.join(COLUMNS)}")
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for (file, label, _, _, split), where in rows[1:]:
        if split not in splits:
            raise DatasetError(f"{where}: split {split!r} is unknown; use {', '.join(SPLITS)}")
        name = relative_path(file, where)
        splits[split].append(Record(Path(name).stem, root / name, (Event(label),), origin=where))
    if not splits["train"]:
        raise DatasetError(f"{path} puts no clip into train; render more clips")
    labels = tuple(sorted({label for (_, label, *_), _ in rows[1:]}))
    records = {split: tuple(clips) for split, clips in splits.items()}
    return Collection(config.name, root, labels, records, clip_seconds=CLIP_SECONDS)
