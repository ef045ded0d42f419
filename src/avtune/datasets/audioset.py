"""AudioSet: ten-second YouTube clips with any of 527 labels.

======  ==================================================================================================
media   ``<YouTube id>.mp4`` in ``video``, ``videos``, ``clips`` or the root; or (CAV-MAE) folders ``frame_0`` to
        ``frame_9`` with ``<id>.jpg`` each, in ``image_mulframe``, ``frames`` or the root, and ``<id>.flac`` or ``.wav``
        in ``audio``
lists   the publishers' ``balanced_train_segments.csv``, ``unbalanced_train_segments.csv``, ``eval_segments.csv``
        (``id, start, end, "mid,mid"``), or CAV-MAE's JSON: ``balanced.json``, ``unbalanced.json``, ``eval.json``
labels  ``class_labels_indices.csv`` or ``class_labels_indices_as.csv``: ``index,mid,display_name``
======  ==================================================================================================

Paths that a JSON list holds are another machine's; a clip is found by its id alone.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets.leaks import leak_warnings
from avtune.datasets.listed import MediaFolders, csv_rows, first_file, listed_labels
from avtune.datasets.records import Collection, DatasetError, Event, FrameFolder, Record, file_name
from avtune.datasets.splits import complete_or_score

LISTS = {
    "balanced": ("balanced_train_segments.csv", "balanced.json", "train.json"),
    "unbalanced": ("unbalanced_train_segments.csv", "unbalanced.json"),
    "eval": ("eval_segments.csv", "eval.json"),
}
TRAINING = {"official": ("balanced",), "balanced": ("balanced",), "full": ("balanced", "unbalanced")}
"""Lists that are trained on, by ``data.split``: AudioSet-20K, or AudioSet-2M."""
LABELS = ("class_labels_indices.csv", "class_labels_indices_as.csv")
MEDIA = ("video", "videos", "clips", ".")
PICTURES = ("image_mulframe", "frames", ".")
CLIP_SECONDS = 10.0


def read(config: DataConfig) -> Collection:
    """Read AudioSet; no media file is opened.

    Args:
        config: ``root``; ``split``: ``balanced`` (also ``official``) trains on AudioSet-20K, ``full`` on AudioSet-2M;
            ``validation_share`` and ``split_seed``: there is no official validation split.

    Returns:
        The clips, each label an event from its beginning to its end. A clip that two lists hold is in the first.

    Raises:
        DatasetError: A list is absent or a row is malformed; the message names it.
    """
    root = Path(config.root).expanduser()
    if config.split not in TRAINING:
        raise DatasetError(f"split {config.split!r} is unknown; use {', '.join(TRAINING)}")
    names = _labels(root)
    source = _source(root)
    given: dict[str, list[Record]] = {"train": [], "test": []}
    for split, lists in (("train", TRAINING[config.split]), ("test", ("eval",))):
        seen: set[str] = set()
        for name in lists:
            path = first_file((root, root / "data"), *LISTS[name])
            if path is None:
                continue
            for video, mids, where in _rows(path):
                if video in seen:
                    continue
                seen.add(video)
                events = tuple(Event(_name(mid, names, where)) for mid in mids)
                given[split].append(Record(video, source(video, where), events, origin=where))
    if not any(given.values()):
        raise DatasetError(f"{root} holds no list such as {LISTS['balanced'][0]}; put the lists there")
    untrained = "there is no list of training clips, so this can only be scored"
    splits, warnings = complete_or_score(given, config, untrained)
    warnings += leak_warnings(splits, lambda record: record.name, "videos")
    return Collection(config.name, root, tuple(names.values()), splits, warnings, clip_seconds=CLIP_SECONDS)


def _labels(root: Path) -> dict[str, str]:
    """Names by machine id, in the order of their indices."""
    path = first_file((root, root / "data"), *LABELS)
    if path is None:
        raise DatasetError(f"{root} holds no {LABELS[0]}; put it there: it gives the classes their order")
    names: dict[str, str] = {}
    rows = [row for row in csv_rows(path, 3) if row[0][0] != "index"]
    for place, ((index, mid, name), where) in enumerate(rows):
        if index != str(place):
            raise DatasetError(f"{where}: index {index!r} where {place} is due; restore the file")
        names[mid] = name
    if len(set(names.values())) < len(rows):
        raise DatasetError(f"{path} names a class twice; restore the file")
    return names


def _rows(path: Path) -> Iterator[tuple[str, list[str], str]]:
    """Id, labels and origin of each clip of a list."""
    if path.suffix == ".csv":
        for (video, _, _, mids), where in csv_rows(path, 4):
            yield file_name(video, where), listed_labels(mids, where), where
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        rows = [(row["video_id"], row["labels"]) for row in content["data"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f'{path} is not a list of clips ({error!r}); it must hold {{"data": [{{"video_id", "labels"}}]}}'
        ) from None
    for place, (video, mids) in enumerate(rows, start=1):
        where = f"{path.name} clip {place}"
        yield file_name(str(video), where), listed_labels(str(mids), where), where


def _name(mid: str, names: dict[str, str], where: str) -> str:
    if mid not in names:
        raise DatasetError(f"{where}: label {mid!r} is in no line of {LABELS[0]}")
    return names[mid]


def _source(root: Path) -> Callable[[str, str], Path | FrameFolder]:
    media = MediaFolders(root, MEDIA)
    pictures = next((root / name for name in PICTURES if (root / name / "frame_0").is_dir()), None)
    if len(media) or pictures is None:
        return media.file
    sounds = MediaFolders(root, ("audio",), frozenset({".flac", ".wav"}))
    folder = pictures

    def unpacked(video: str, where: str) -> FrameFolder:
        return FrameFolder(folder, sounds.file(video, where), f"frame_*/{glob.escape(video)}.jpg")

    return unpacked
