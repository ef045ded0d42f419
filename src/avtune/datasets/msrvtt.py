"""MSR-VTT: 10,000 clips of 10 to 32 seconds in 20 categories, mostly with sound.

======  ==================================================================================================
media   ``<video_id>.mp4`` in ``videos/all``, ``videos``, ``video``, ``all`` or the root
lists   ``MSRVTT_data.json``: ``{"videos": [{"video_id", "category", "split"}], ...}``: 6513, 497 and 2990 clips
1k-A    ``MSRVTT_train.9k.csv`` (or ``.7k``) and ``MSRVTT_JSFUSION_test.csv``: a column ``video_id``; 1000 to test
======  ==================================================================================================

All lists are looked for in the root, in ``<root>/msrvtt_data``, ``<root>/annotation`` and ``<root>/data``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avtune.config import DataConfig
from avtune.datasets.listed import MediaFolders, first_file, table_rows
from avtune.datasets.records import Collection, DatasetError, Event, Record
from avtune.datasets.splits import complete_or_score

MEDIA = ("videos/all", "videos", "video", "all", ".")
LISTS = ("", "msrvtt_data", "annotation", "data")
DATA = "MSRVTT_data.json"
CSV = {"train": ("MSRVTT_train.9k.csv", "MSRVTT_train.7k.csv"), "test": ("MSRVTT_JSFUSION_test.csv",)}
SPLITS = {"train": "train", "validate": "validation", "val": "validation", "test": "test"}
CATEGORIES = (
    "music", "people", "gaming", "sports/actions", "news/events/politics", "education", "tv shows", "movie/comedy",
    "animation", "vehicles/autos", "howto", "travel", "science/technology", "animals/pets", "kids/family",
    "documentary", "food/drink", "cooking", "beauty/fashion", "advertisement",
)  # fmt: skip
"""The categories in the order of their numbers."""
SILENT = (
    "about a tenth of MSR-VTT's clips have no sound track: retrieval leaves them out, so it searches among fewer clips "
    "than the split lists"
)


def read(config: DataConfig) -> Collection:
    """Read MSR-VTT; no media file is opened.

    Args:
        config: ``root``; ``split``: ``official``, or ``1k-A``, whose validation split is held out of train by
            ``validation_share`` and ``split_seed``.

    Returns:
        The clips, each with its category as an event from its beginning to its end.

    Raises:
        DatasetError: A list is absent or malformed, or there is no such split; the message names it.
    """
    root = Path(config.root).expanduser()
    if config.split not in ("official", "1k-A"):
        raise DatasetError(f"msrvtt has no split {config.split!r}; set data.split to official or 1k-A")
    folders = [root / name for name in LISTS]
    path = first_file(folders, DATA)
    if path is None:
        raise DatasetError(f"{root} holds no {DATA}; put it there")
    media = MediaFolders(root, MEDIA)
    records: dict[str, Record] = {}
    given: dict[str, list[Record]] = {"train": []}
    for video, category, split in _videos(path):
        source = media.file(video, path.name)
        records[video] = Record(video, source, (Event(CATEGORIES[category]),), origin=path.name)
        given.setdefault(split, []).append(records[video])
    if config.split == "1k-A":
        given = {split: _listed(folders, split, records) for split in CSV}
    untrained = "there is no training clip, so this can only be scored"
    splits, warnings = complete_or_score(given, config, untrained)
    return Collection(config.name, root, CATEGORIES, splits, (SILENT, *warnings))


def _videos(path: Path) -> list[tuple[str, int, str]]:
    """Name, category and split of each clip."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        rows = [(str(row["video_id"]), row["category"], SPLITS[row["split"]]) for row in content["videos"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} holds no list 'videos' with video_id, category and split ({type(error).__name__}: {error}); "
            "restore the file"
        ) from None
    for video, category, _ in rows:
        if type(category) is not int or not 0 <= category < len(CATEGORIES):
            raise DatasetError(
                f"{path.name}: {video} has category {category!r}, which must be a number from 0 to "
                f"{len(CATEGORIES) - 1}"
            )
    return rows


def _listed(folders: list[Path], split: str, records: dict[str, Record]) -> list[Record]:
    """The clips that a split's table names, each once, in its order."""
    path = first_file(folders, *CSV[split])
    if path is None:
        raise DatasetError(
            f"{folders[0]} holds no {CSV[split][0]}, which data.split 1k-A needs; put it there"
        )
    names = [row["video_id"] for row, _ in table_rows(path, ("video_id",))]
    if unknown := [name for name in names if name not in records]:
        raise DatasetError(f"{path.name}: {unknown[0]!r} is not in {DATA}; take both from one source")
    return [records[name] for name in dict.fromkeys(names)]
