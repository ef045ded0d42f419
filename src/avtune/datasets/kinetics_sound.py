"""Kinetics-Sound: ten-second clips of 31 actions that can be both seen and heard.

======  ================================================================================
media   ``<name>.mp4`` in ``video``, ``videos``, ``clips``, ``train_256``, ``val_256`` or the root
truth   ``my_train.txt`` and ``my_test.txt``: ``name,frames,class``
labels  ``classes.txt``, one name a line; without it classes are called by their numbers
======  ================================================================================
"""

from __future__ import annotations

from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets.leaks import leak_warnings, youtube_video
from avtune.datasets.listed import MediaFolders, csv_rows, first_file, read_lines
from avtune.datasets.records import Collection, DatasetError, Event, Record
from avtune.datasets.splits import complete

MEDIA = ("video", "videos", "clips", "train_256", "val_256", ".")
CLASSES = 31
CLIP_SECONDS = 10.0


def read(config: DataConfig) -> Collection:
    """Read Kinetics-Sound; no media file is opened.

    Args:
        config: ``root``, ``validation_share`` and ``split_seed``: there is no official validation split.

    Returns:
        The clips, each with its class as an event from its beginning to its end.

    Raises:
        DatasetError: A list is absent, or a row is malformed; the message names it.
    """
    root = Path(config.root).expanduser()
    labels = _labels(root)
    media = MediaFolders(root, MEDIA)
    given: dict[str, list[Record]] = {}
    for split in ("train", "test"):
        path = first_file((root,), f"my_{split}.txt")
        if path is None:
            raise DatasetError(f"{root} holds no my_{split}.txt; put the lists there")
        given[split] = []
        for (name, _, number), where in csv_rows(path, 3):
            if not number.isdecimal() or int(number) >= len(labels):
                raise DatasetError(f"{where}: class {number!r} must be a number from 0 to {len(labels) - 1}")
            event = Event(labels[int(number)])
            given[split].append(Record(name, media.file(name, where), (event,), origin=where))
    splits, warnings = complete(given, config, youtube_video)
    warnings += leak_warnings(splits, youtube_video, "videos")
    return Collection(config.name, root, labels, splits, warnings, clip_seconds=CLIP_SECONDS)


def _labels(root: Path) -> tuple[str, ...]:
    path = first_file((root,), "classes.txt")
    if path is None:
        return tuple(str(number) for number in range(CLASSES))
    names = tuple(line.strip() for line in read_lines(path) if line.strip())
    if len(names) != CLASSES or len(set(names)) != CLASSES:
        raise DatasetError(f"{path} must hold {CLASSES} different names, one a line; it holds {len(names)}")
    return names
