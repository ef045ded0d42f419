"""VGGSound: ten-second YouTube clips, one of 309 classes each.

======  ==================================================================================================
media   ``<YouTube id>_<start, six digits>.mp4`` in ``video``, ``videos``, ``clips``, ``train``, ``test`` or the root
truth   ``vggsound.csv``: ``id,start,label,split``, or ``train.csv`` and ``test.csv``: ``file,label``
labels  ``stat.csv``: ``label,count,group`` gives their order; without it they are sorted by name
======  ==================================================================================================

All are looked for in the root and in ``<root>/data``. Class indices come from the lists, not from what was downloaded.
"""

from __future__ import annotations

from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets.leaks import leak_warnings, youtube_video
from avtune.datasets.listed import MediaFolders, csv_rows, first_file
from avtune.datasets.records import Collection, DatasetError, Event, Record
from avtune.datasets.splits import complete_or_score

MEDIA = ("video", "videos", "clips", "train", "test", ".")
CLIP_SECONDS = 10.0


def read(config: DataConfig) -> Collection:
    """Read VGGSound; no media file is opened.

    Args:
        config: ``root``, ``validation_share`` and ``split_seed``: there is no official validation split.

    Returns:
        The clips, each with its class as an event from its beginning to its end.

    Raises:
        DatasetError: No list is there, or a row is malformed; the message names it.
    """
    root = Path(config.root).expanduser()
    given = _rows(root)
    stat = first_file((root, root / "data"), "stat.csv")
    named = sorted({label for split in given.values() for _, label, _ in split})
    labels = tuple(dict.fromkeys(row[0] for row, _ in csv_rows(stat, 3))) if stat else tuple(named)
    if unknown := sorted(set(named) - set(labels)):
        raise DatasetError(
            f"class {unknown[0]!r} is not in stat.csv; take both from one source, or leave stat.csv out"
        )
    media = MediaFolders(root, MEDIA)
    records = {
        split: [
            Record(name, media.file(name, where), (Event(label),), origin=where)
            for name, label, where in rows
        ]
        for split, rows in given.items()
    }
    untrained = "there is no list of training clips, so this can only be scored; add vggsound.csv"
    splits, warnings = complete_or_score(records, config, untrained, youtube_video)
    warnings += leak_warnings(splits, youtube_video, "videos")
    return Collection(config.name, root, labels, splits, warnings, clip_seconds=CLIP_SECONDS)


def _rows(root: Path) -> dict[str, list[tuple[str, str, str]]]:
    """Name, label and origin of each clip, by split."""
    folders = (root, root / "data")
    if whole := first_file(folders, "vggsound.csv"):
        given: dict[str, list[tuple[str, str, str]]] = {"train": [], "test": []}
        for (video, start, label, split), where in csv_rows(whole, 4):
            if split not in given or not start.isdecimal():
                raise DatasetError(f"{where}: expected id,start in seconds,label,train or test")
            given[split].append((f"{video}_{int(start):06d}", label, where))
        return given
    files = {split: first_file(folders, f"{split}.csv") for split in ("train", "test")}
    if not any(files.values()):
        raise DatasetError(f"{root} holds no vggsound.csv, train.csv or test.csv; put the lists there")
    return {
        split: []
        if path is None
        else [(file.removesuffix(".mp4"), label, where) for (file, label), where in csv_rows(path, 2)]
        for split, path in files.items()
    }
