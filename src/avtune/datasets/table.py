"""A user's own clips with events in time: a CSV file of ``file,label,start,end`` rows."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets.masks import mask_folder
from avtune.datasets.records import (
    BACKGROUND,
    Collection,
    DatasetError,
    Event,
    Record,
    alike,
    relative_path,
)
from avtune.datasets.splits import complete

COLUMNS = ("file", "label", "start", "end")
SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
SHOWN = 5
SHORT_SECONDS = 0.5


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        file: Path below the root.
        event: What happens; ``None``: the row only says that the file belongs to the collection.
        split: ``train``, ``validation`` or ``test``; empty if the table has no such column.
        line: Line number in the table, from 1.
    """

    file: str
    event: Event | None
    split: str
    line: int


def read(config: DataConfig) -> Collection:
    """Read a table of events.

    The first line names the columns: ``file``, ``label``, ``start``, ``end`` and, if wanted, ``split``
    (``train``, ``val`` or ``test``), in any order. A file may have several rows, one per event; a row whose
    label is empty or ``background`` adds the file without an event. Times are seconds from the start of the
    file; an empty start is 0 and an empty end is the end of the file. Splits that the table does not
    give are held out of train.

    Where two events share a second it is the one that covers more of it that counts, on a tie the one of the
    later row; the warnings name such rows. The files are not looked for: ``existing`` drops what is
    not on disk and names its line. Masks of ``day2/taxi.mp4`` are looked for in ``masks/day2/taxi``, one for each
    second (:func:`avtune.datasets.masks.mask_folder`).

    Args:
        config: ``root``, ``index`` (the table; ``None``: ``<root>/events.csv``), ``validation_share``,
            ``test_share``, ``split_seed``.

    Returns:
        The clips, one per file; labels sorted by name.

    Raises:
        DatasetError: The table is absent or malformed; the message names the line.
    """
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DatasetError(
            f"{root} is not a folder; point the root at the folder that the table's files are in"
        )
    path = _table(root, config.index)
    rows = list(read_rows(path))
    by_file: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_file[row.file].append(row)
    events = [row.event for row in rows if row.event is not None]
    if not events:
        raise DatasetError(f"{path} holds no event; add rows of {','.join(COLUMNS)}")
    given: dict[str, list[Record]] = {"train": []}
    for file, group in by_file.items():
        split = _one_split(path, group)
        happening = tuple(row.event for row in group if row.event is not None)
        origin = f"{path.name} line {group[0].line}"
        masks = mask_folder(root / "masks" / Path(file).with_suffix(""))
        given.setdefault(split, []).append(Record(file, root / file, happening, origin=origin, masks=masks))
    if not given["train"]:
        raise DatasetError(f"{path} puts no file into train; change some of its split column to train")
    splits, notes = complete(given, config)
    labels = tuple(sorted({event.label for event in events}))
    warnings = (*alike(labels), *_overlaps(path, by_file), *_too_short(path, rows), *notes)
    return Collection(config.name, root, labels, splits, warnings)


def _table(root: Path, index: str | None) -> Path:
    path = root / "events.csv" if index is None else Path(index).expanduser()
    if index is not None and not path.exists():
        path = root / path
    if not path.is_file():
        raise DatasetError(
            f"{path} is not there; write a table whose first line is {','.join(COLUMNS)}, "
            "or name another by data.index"
        )
    return path


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a table.

    Args:
        path: A CSV file in UTF-8; its first line names the columns.

    Raises:
        DatasetError: It cannot be read, or a row is malformed; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip().lower() for name in next(reader, [])]
            _check_columns(path, columns)
            for fields in reader:
                if any(field.strip() for field in fields):
                    yield _row(dict(_cells(path, columns, fields, reader.line_num)), path, reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as CSV in UTF-8 ({error}); save it so") from None


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    expected = f"the first line has to be {','.join(COLUMNS)}, with ,split if wanted"
    for name in columns:
        if name not in (*COLUMNS, "split"):
            raise DatasetError(f"{path.name} line 1: column {name!r} is unknown; {expected}")
    absent = [name for name in COLUMNS if name not in columns]
    if absent or len(set(columns)) < len(columns):
        problem = f"column {absent[0]!r} is absent" if absent else "a column is there twice"
        raise DatasetError(f"{path.name} line 1: {problem}; {expected}")


def _cells(path: Path, columns: Sequence[str], fields: Sequence[str], line: int) -> Iterator[tuple[str, str]]:
    if len(fields) != len(columns):
        raise DatasetError(
            f"{path.name} line {line}: {len(fields)} fields for {len(columns)} columns; "
            'put a name that holds a comma between "quotes"'
        )
    for name, field in zip(columns, fields, strict=True):
        yield name, field.strip()


def _row(cells: dict[str, str], path: Path, line: int) -> Row:
    where = f"{path.name} line {line}"
    file = relative_path(cells["file"], where)
    split = cells.get("split", "").lower()
    if "split" in cells and split not in SPLIT_NAMES:
        raise DatasetError(f"{where}: split {split!r} is unknown; use train, val or test")
    start = _seconds(cells["start"], 0.0, f"{where}: start")
    end = _seconds(cells["end"], math.inf, f"{where}: end")
    label = cells["label"]
    event = None
    if label and label.lower() != BACKGROUND:
        if end <= start:
            raise DatasetError(f"{where}: end ({end:g} s) has to be later than start ({start:g} s)")
        event = Event(label, start, end)
    return Row(file, event, SPLIT_NAMES.get(split, ""), line)


def _seconds(text: str, default: float, what: str) -> float:
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise DatasetError(f"{what} {text!r} is no number; write seconds, such as 12.5") from None
    if not (math.isfinite(value) and value >= 0):
        raise DatasetError(f"{what} {text!r} has to be finite and at least 0; write seconds, such as 12.5")
    return value


def _one_split(path: Path, group: Sequence[Row]) -> str:
    for row in group:
        if row.split != group[0].split:
            raise DatasetError(
                f"{path.name} line {row.line}: {row.file} is in {row.split} here and in {group[0].split} "
                f"in line {group[0].line}; put a file into one split"
            )
    return group[0].split or "train"


def _overlaps(path: Path, by_file: dict[str, list[Row]]) -> Iterator[str]:
    found = []
    for group in by_file.values():
        latest: dict[str, tuple[float, int]] = {}
        timed = [(row.event, row.line) for row in group if row.event is not None]
        for event, line in sorted(timed, key=lambda pair: pair[0].start):
            for label, (end, other) in latest.items():
                if label != event.label and end > event.start:
                    found.append((max(line, other), min(line, other), group[0].file))
                    break
            latest[event.label] = max(latest.get(event.label, (0.0, 0)), (event.end, line))
    for later, earlier, file in sorted(found)[:SHOWN]:
        yield (
            f"{path.name} line {later}: overlaps another event of {file} (line {earlier}); a segment carries "
            "one label, of the event that covers more of it, on a tie of the later row"
        )
    if len(found) > SHOWN:
        yield f"{path.name}: {len(found) - SHOWN} more events overlap another one"


def _too_short(path: Path, rows: Sequence[Row]) -> Iterator[str]:
    lines = [
        row.line for row in rows if row.event is not None and row.event.end - row.event.start < SHORT_SECONDS
    ]
    if lines:
        yield (
            f"{path.name}: {len(lines)} events last less than {SHORT_SECONDS:g} s, first in line {lines[0]}; "
            "a segment of one second gets a label only where an event covers at least half of it"
        )
