"""AVSBench: which pixels sound. S4 (one source), MS3 (several) and the semantic set of 70 classes.

========  ============================================================================================
S4        ``Single-source/s4_meta_data.csv`` (name first; ``category``, ``split``) and ``s4_data`` beside it:
          ``visual_frames/<split>/<category>/<name>/<name>_<1..5>.png``, ``audio_wav/<split>/<category>/<name>.wav``,
          ``gt_masks/<split>/<category>/<name>/<name>_<k>.png``; in training the first frame alone is labelled
MS3       ``Multi-sources/ms3_meta_data.csv`` (name first; ``split``) and ``ms3_data`` beside it:
          ``visual_frames/<name>/<name>.mp4_<1..5>.png``, ``audio_wav/<split>/<name>.wav``,
          ``gt_masks/<split>/<name>/<name>_<1..5>.png``
semantic  ``metadata.csv`` (``uid``, ``label``, ``split``), ``label2idx.json``, and for each clip
          ``<label>/<uid>/`` with ``frames/<0..>.jpg``, ``audio.wav``, ``labels_rgb/<0..>.png``; ``label`` is the part:
          v1s and v1m last 5 s, v2 lasts 10 s, and in training only the first frame of v1s is labelled
========  ============================================================================================

Where there are no unpacked frames, the videos are read: ``raw_videos/<split>/<category>/<name>.mp4`` (S4),
``raw_videos/<name>.mp4`` (MS3), ``<label>/<uid>.mp4`` (semantic).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets.leaks import leak_warnings, youtube_video
from avtune.datasets.listed import first_file, table_rows
from avtune.datasets.masks import UNLABELLED, voc_palette
from avtune.datasets.records import (
    SPLITS,
    Collection,
    DatasetError,
    Event,
    FrameFolder,
    MaskFiles,
    Record,
    file_name,
)

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
SECONDS = 5
PART_SECONDS = {"v1s": 5, "v1m": 5, "v2": 10}
"""Length of the clips of each part of the semantic set, which is the number of their frames."""
SOUNDING = "sounding"
"""The label of MS3, which has no classes."""


def read_s4(config: DataConfig) -> Collection:
    """Read the single-source set; no media file is opened.

    Args:
        config: ``root``: the folder of ``s4_meta_data.csv``, or the one above.

    Returns:
        The clips, each with its category as an event from its beginning to its end; labels sorted by name.

    Raises:
        DatasetError: The list is absent, or a row is malformed; the message names it.
    """
    root, listed = _list(config, "s4_meta_data.csv", "Single-source")
    data = listed.parent / "s4_data"
    unpacked = (data / "visual_frames").is_dir()
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for first, row, where in _rows(listed, ("category", "split")):
        name, category = file_name(first, where), file_name(row["category"], where)
        place = Path(row["split"], category)
        source: Path | FrameFolder = data / "raw_videos" / place / f"{name}.mp4"
        if unpacked:
            sound = data / "audio_wav" / place / f"{name}.wav"
            source = FrameFolder(data / "visual_frames" / place / name, sound, "*_[1-9].png", seconds=SECONDS)
        labelled = 1 if row["split"] == "train" else SECONDS
        files = [data / "gt_masks" / place / name / f"{name}_{k + 1}.png" for k in range(labelled)]
        masks = MaskFiles((*files, *[None] * (SECONDS - labelled)), squeezed=True)
        record = Record(name, source, (Event(category),), origin=where, masks=masks)
        splits[SPLIT_NAMES[row["split"]]].append(record)
    labels = sorted(
        {event.label for records in splits.values() for record in records for event in record.events}
    )
    return _collection(config, root, labels, splits, float(SECONDS))


def read_ms3(config: DataConfig) -> Collection:
    """Read the multi-sources set; no media file is opened.

    Args:
        config: ``root``: the folder of ``ms3_meta_data.csv``, or the one above.

    Returns:
        The clips, all five seconds labelled; there are no classes, and nothing tells what happens when.

    Raises:
        DatasetError: The list is absent, or a row is malformed; the message names it.
    """
    root, listed = _list(config, "ms3_meta_data.csv", "Multi-sources")
    data = listed.parent / "ms3_data"
    unpacked = (data / "visual_frames").is_dir()
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for first, row, where in _rows(listed, ("split",)):
        name, split = file_name(first, where), row["split"]
        source: Path | FrameFolder = data / "raw_videos" / f"{name}.mp4"
        if unpacked:
            sound = data / "audio_wav" / split / f"{name}.wav"
            source = FrameFolder(data / "visual_frames" / name, sound, "*_[1-9].png", seconds=SECONDS)
        files = tuple(data / "gt_masks" / split / name / f"{name}_{k + 1}.png" for k in range(SECONDS))
        masks = MaskFiles(files, squeezed=True)
        splits[SPLIT_NAMES[split]].append(Record(name, source, (), origin=where, masks=masks))
    return _collection(config, root, [SOUNDING], splits, float(SECONDS))


def read_semantic(config: DataConfig) -> Collection:
    """Read the semantic set; no media file is opened.

    Args:
        config: ``root``: the folder of ``metadata.csv`` and ``label2idx.json``.

    Returns:
        The clips of all three parts; labels in the order of their indices, background left out.

    Raises:
        DatasetError: A list is absent, or a row is malformed; the message names it.
    """
    root, listed = _list(config, "metadata.csv", "avs_released")
    base = listed.parent
    names = _class_names(base / "label2idx.json")
    palette = voc_palette(len(names))
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for _, row, where in _rows(listed, ("uid", "label", "split")):
        name, part = file_name(row["uid"], where), row["label"]
        if part not in PART_SECONDS:
            raise DatasetError(f"{where}: label {part!r} is none of {', '.join(PART_SECONDS)}; mend the row")
        folder, frames = base / part / name, PART_SECONDS[part]
        video = base / part / f"{name}.mp4"
        source: Path | FrameFolder = FrameFolder(folder / "frames", folder / "audio.wav", seconds=frames)
        if not (folder / "frames").is_dir() and video.is_file():
            source = video
        labelled = 1 if (part, row["split"]) == ("v1s", "train") else frames
        files = [folder / "labels_rgb" / f"{k}.png" for k in range(labelled)]
        masks = MaskFiles((*files, *[None] * (frames - labelled)), palette)
        record = Record(f"{part}/{name}", source, (), origin=where, masks=masks)
        splits[SPLIT_NAMES[row["split"]]].append(record)
    return _collection(config, root, names[1:], splits, None)


def _list(config: DataConfig, name: str, folder: str) -> tuple[Path, Path]:
    root = Path(config.root).expanduser()
    if config.split != "official":
        raise DatasetError(f"split {config.split!r} is unknown; use official")
    listed = first_file((root, root / folder), name)
    if listed is None:
        raise DatasetError(f"{root} holds no {name}; put it there or into {root / folder}")
    return root, listed


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str], str]]:
    """The first field of each row, whatever its column is called, all fields by column, and where the row stands."""
    for row, where in table_rows(path, columns):
        if row["split"] not in SPLIT_NAMES:
            raise DatasetError(
                f"{where}: split {row['split']!r} is none of {', '.join(SPLIT_NAMES)}; mend the row"
            )
        yield next(iter(row.values())), row, where


def _class_names(path: Path) -> list[str]:
    """Names in the order of their indices, background first."""
    try:
        index = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is not a JSON file ({error}); restore the file") from None
    if (
        not isinstance(index, dict)
        or sorted(index.values(), key=str) != sorted(range(len(index)), key=str)
        or not 1 < len(index) < UNLABELLED
    ):
        raise DatasetError(
            f"{path} must map each class to a number of its own, background to 0; restore the file"
        )
    return sorted(index, key=lambda name: int(index[name]))


def _collection(
    config: DataConfig,
    root: Path,
    labels: Sequence[str],
    splits: dict[str, list[Record]],
    seconds: float | None,
) -> Collection:
    if not splits["train"]:
        raise DatasetError(f"{root} lists no training clip; restore the list")
    records = {split: tuple(clips) for split, clips in splits.items()}
    warnings = tuple(f"the {split} split is empty" for split, clips in records.items() if not clips)
    warnings += leak_warnings(records, youtube_video, "videos")
    return Collection(config.name, root, tuple(labels), records, warnings, clip_seconds=seconds)
