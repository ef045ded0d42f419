"""AVE: 4143 ten-second YouTube clips, 28 events, one interval of whole seconds per clip.

The reader understands the layouts in which AVE is around; bandstand is written in the first of them.

======================  ===========================================================================
media                   ``AVE/<id>.mp4`` (the authors' zip), or
                        ``video_frames/<id>/0001.jpg`` + ``raw_audio/<id>.wav`` (LAVISH), or
                        ``frames/<id>/00000001.jpg`` + ``wave/<id>.wav`` or ``.npy`` (DG-SCT)
truth                   ``Annotations.txt``: ``category&id&quality&start&end``, header or none
splits                  ``trainSet.txt``, ``valSet.txt``, ``testSet.txt`` (the same kind of rows), or
                        ``train_order.h5``, ``val_order.h5``, ``test_order.h5`` (rows of Annotations)
======================  ===========================================================================

All are looked for in the root, ``<root>/AVE_Dataset`` and ``<root>/data``. The class indices are the order of
first appearance in Annotations.txt, over all its rows, as in the authors' labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avtune.config import DataConfig
from avtune.datasets.listed import first_file, read_lines
from avtune.datasets.records import (
    BACKGROUND,
    SPLITS,
    Collection,
    DatasetError,
    Event,
    FrameFolder,
    Record,
    file_name,
)

ANNOTATIONS = "Annotations.txt"
CLIP_SECONDS = 10.0
ROW_FILES = {"train": "trainSet.txt", "validation": "valSet.txt", "test": "testSet.txt"}
ORDER_FILES = {"train": "train_order.h5", "validation": "val_order.h5", "test": "test_order.h5"}


@dataclass(frozen=True)
class Row:
    """One line of an annotation file.

    Attributes:
        category: Name of the event.
        video: YouTube id, the file's name without suffix.
        start: First second of the event.
        end: First second after it; equal to ``start``: no event, all background.
        origin: File and line.
    """

    category: str
    video: str
    start: float
    end: float
    origin: str


def read(config: DataConfig) -> Collection:
    """Read AVE, or bandstand, which is written in the same layout.

    No media file is opened or looked for: ``existing`` drops what is not on disk.

    Args:
        config: ``root``; ``split``: ``official`` keeps the authors' splits and warns of ids that occur in
            two of them; ``clean`` drops rows until every id is in one split only, keeping test before
            validation before train.

    Returns:
        The clips; one per annotated row, so an id that is annotated twice is there twice.

    Raises:
        DatasetError: A file that is needed is absent, or a row is malformed; the message names it.
    """
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; point the root at the folder that holds {ANNOTATIONS}")
    if config.split not in ("official", "clean"):
        raise DatasetError(f"split {config.split!r} is unknown; use official or clean")
    folders = [folder for folder in (root, root / "AVE_Dataset", root / "data") if folder.is_dir()]
    annotations = first_file(folders, ANNOTATIONS)
    if annotations is None:
        raise DatasetError(f"{root} holds no {ANNOTATIONS}; unpack the dataset there or point the root at it")
    rows = read_rows(annotations)
    if not rows:
        raise DatasetError(f"{annotations} holds no rows; restore the file")
    labels = tuple(dict.fromkeys(row.category for row in rows if row.category.lower() != BACKGROUND))
    splits = _split_rows(folders, rows)
    if not splits["train"]:
        raise DatasetError(f"{root} has an empty training split; restore {ROW_FILES['train']}")
    for row in (row for split in splits.values() for row in split):
        if row.category not in labels and row.category.lower() != BACKGROUND:
            raise DatasetError(
                f"{row.origin}: category {row.category!r} does not occur in {annotations.name}"
            )
    if config.split == "clean":
        splits, warnings = _without_straddling(splits)
    else:
        warnings = _straddling_warning(splits)
    warnings += tuple(f"the {name} split is empty" for name, split in splits.items() if not split)
    source = _media_layout(folders)
    records = {name: tuple(_record(row, source) for row in split) for name, split in splits.items()}
    return Collection(config.name, root, labels, records, warnings, clip_seconds=CLIP_SECONDS)


def read_rows(path: Path) -> list[Row]:
    """Parse ``category&id&quality&start&end`` lines, with or without a header.

    Args:
        path: The file, UTF-8, any line ends; empty lines are skipped.

    Returns:
        Its rows in order; none if the file is empty.

    Raises:
        DatasetError: The file is unreadable, or a line is malformed; the message names the line.
    """
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        fields = [field.strip() for field in line.split("&")]
        header = number == 1 and [field.lower() for field in fields[-2:]] == ["starttime", "endtime"]
        if header or not line.strip():
            continue
        rows.append(_row(fields, f"{path.name} line {number}"))
    return rows


def _row(fields: list[str], origin: str) -> Row:
    if len(fields) != 5 or not fields[0]:
        raise DatasetError(f"{origin}: expected category&id&quality&start&end, found {'&'.join(fields)!r}")
    try:
        start, end = float(fields[3]), float(fields[4])
    except ValueError:
        raise DatasetError(f"{origin}: start {fields[3]!r} and end {fields[4]!r} must be seconds") from None
    if not 0 <= start <= end < float("inf"):
        raise DatasetError(f"{origin}: 0 <= start <= end is needed, found {start:g} and {end:g} seconds")
    return Row(fields[0], file_name(fields[1], origin), start, end, origin)


def _split_rows(folders: Sequence[Path], rows: list[Row]) -> dict[str, list[Row]]:
    """Rows of each split, from lists of rows if all three are there, otherwise from lists of row numbers."""
    row_files = {name: first_file(folders, file) for name, file in ROW_FILES.items()}
    order_files = {name: first_file(folders, file) for name, file in ORDER_FILES.items()}
    found = {name: path for name, path in row_files.items() if path}
    if len(found) == len(SPLITS):
        return {name: read_rows(path) for name, path in found.items()}
    found = {name: path for name, path in order_files.items() if path}
    if len(found) == len(SPLITS):
        return {name: [rows[index] for index in _read_order(path, len(rows))] for name, path in found.items()}
    raise DatasetError(
        f"{folders[0]} has no complete splits; put {', '.join(ROW_FILES.values())} "
        f"or {', '.join(ORDER_FILES.values())} there (or in its data folder)"
    )


def _read_order(path: Path, rows: int) -> list[int]:
    try:
        import h5py
    except ImportError:
        raise DatasetError(f'reading {path.name} needs h5py; run pip install "avtune[hdf5]"') from None
    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get("order", getlink=True), h5py.HardLink):
                raise DatasetError(f"{path} holds no array named order; restore the file")
            data = file["order"]
            if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual or data.ndim != 1:
                raise DatasetError(f"{path}: order is not a list of row numbers; restore the file")
            order = np.asarray(data[: rows + 1])
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise DatasetError(f"{path} is not a readable HDF5 file ({error}); restore the file") from None
    if order.dtype.kind not in "iu" or len(order) > rows or len(set(order.tolist())) < len(order):
        raise DatasetError(f"{path}: order is not a list of distinct row numbers; restore the file")
    if len(order) and not (order.min() >= 0 and order.max() < rows):
        raise DatasetError(
            f"{path} has row numbers {order.min()} to {order.max()}, {ANNOTATIONS} has {rows} rows; "
            "take both from one source"
        )
    return [int(index) for index in order]


def _straddling(splits: dict[str, list[Row]]) -> dict[tuple[str, str], set[str]]:
    videos = {name: {row.video for row in split} for name, split in splits.items()}
    pairs = (("train", "test"), ("train", "validation"), ("validation", "test"))
    return {(one, other): videos[one] & videos[other] for one, other in pairs}


def _straddling_warning(splits: dict[str, list[Row]]) -> tuple[str, ...]:
    shared = _straddling(splits)
    total = len(set().union(*shared.values()))
    if not total:
        return ()
    counts = ", ".join(f"{len(ids)} in {one} and {other}" for (one, other), ids in shared.items() if ids)
    return (
        f"{total} video ids straddle the official split ({counts}), so a score on it is slightly too good; "
        "split clean drops them",
    )


def _without_straddling(splits: dict[str, list[Row]]) -> tuple[dict[str, list[Row]], tuple[str, ...]]:
    held_out: set[str] = set()
    clean: dict[str, list[Row]] = {}
    for name in reversed(SPLITS):
        clean[name] = [row for row in splits[name] if row.video not in held_out]
        held_out |= {row.video for row in splits[name]}
    dropped = {name: len(splits[name]) - len(clean[name]) for name in SPLITS}
    warnings = tuple(
        f"split clean: {count} of {len(splits[name])} {name} rows dropped, their videos are held out"
        for name, count in dropped.items()
        if count
    )
    return {name: clean[name] for name in SPLITS}, warnings


def _media_layout(folders: Sequence[Path]) -> Callable[[str], Path | FrameFolder]:
    """Map a video id to its media; the layout whose folders exist, the authors' zip if none does."""

    def folder(*names: str) -> Path | None:
        return next((base / name for name in names for base in folders if (base / name).is_dir()), None)

    clips = folder("AVE")
    frames, sound = folder("video_frames", "frames"), folder("raw_audio", "wave")
    if clips is not None or frames is None or sound is None:
        where = clips or folders[0] / "AVE"
        return lambda video: where / f"{video}.mp4"
    suffix = ".npy" if next(sound.glob("*.npy"), None) and not next(sound.glob("*.wav"), None) else ".wav"
    return lambda video: FrameFolder(frames / video, sound / f"{video}{suffix}")


def _record(row: Row, source: Callable[[str], Path | FrameFolder]) -> Record:
    empty = row.start == row.end or row.category.lower() == BACKGROUND
    events = () if empty else (Event(row.category, row.start, row.end),)
    return Record(row.video, source(row.video), events, origin=row.origin)
