"""A user's own clips with what is heard and what is seen: two CSV files of ``file,label,start,end`` rows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets import table
from avtune.datasets.records import Collection, DatasetError, Record, alike
from avtune.datasets.splits import complete

HEARD, SEEN = "heard.csv", "seen.csv"


@dataclass
class _Clip:
    """What both tables say of a file."""

    heard: list[table.Row] = field(default_factory=list)
    seen: list[table.Row] = field(default_factory=list)

    @property
    def rows(self) -> list[table.Row]:
        return self.heard + self.seen


def read(config: DataConfig) -> Collection:
    """Read ``heard.csv`` and ``seen.csv``; no media file is opened.

    Both have the form of :func:`avtune.datasets.table.read`: ``file``, ``label``, ``start``, ``end`` and, if wanted,
    ``split``. A file may be in one of them alone: then nothing is seen in it, or nothing heard. Of a clip of which only
    the labels are known, write them without times into both.

    Args:
        config: ``root``, ``validation_share``, ``test_share``, ``split_seed``.

    Returns:
        The clips, one per file, with ``heard`` and ``seen``; ``events`` are both together. Labels sorted by name.

    Raises:
        DatasetError: A table is absent or malformed, or they put a file into different splits; the message names it.
    """
    root = Path(config.root).expanduser()
    clips: dict[str, _Clip] = defaultdict(_Clip)
    for name, stream in ((HEARD, "heard"), (SEEN, "seen")):
        if not (root / name).is_file():
            raise DatasetError(
                f"{root / name} is not there; write a table whose first line is {','.join(table.COLUMNS)}"
            )
        for row in table.read_rows(root / name):
            getattr(clips[row.file], stream).append(row)
    given: dict[str, list[Record]] = {"train": []}
    for file, clip in clips.items():
        heard, seen = (
            tuple(row.event for row in rows if row.event is not None) for rows in (clip.heard, clip.seen)
        )
        origin = f"{HEARD if clip.heard else SEEN} line {clip.rows[0].line}"
        split = _one_split(file, clip)
        record = Record(file, root / file, heard + seen, origin=origin, heard=heard, seen=seen)
        given.setdefault(split, []).append(record)
    labels = tuple(sorted({event.label for records in given.values() for r in records for event in r.events}))
    if not labels:
        raise DatasetError(f"{root}: {HEARD} and {SEEN} hold no event; add rows of {','.join(table.COLUMNS)}")
    if not given["train"]:
        raise DatasetError(f"{root}: no file is in train; change some of the split columns to train")
    splits, notes = complete(given, config)
    return Collection(config.name, root, labels, splits, (*alike(labels), *notes))


def _one_split(file: str, clip: _Clip) -> str:
    splits = {row.split for row in clip.rows}
    if len(splits) > 1:
        raise DatasetError(
            f"{file} is in {' and in '.join(sorted(split or 'no split' for split in splits))}, by {HEARD} and {SEEN}; "
            "put a file into one split"
        )
    return splits.pop() or "train"
