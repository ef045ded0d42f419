"""A user's own clips, sorted into one folder per event: ``clips/<label>/*.mp4``."""

from __future__ import annotations

from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets.records import (
    BACKGROUND,
    VIDEO_SUFFIXES,
    Collection,
    DatasetError,
    Event,
    Record,
    alike,
    printable,
)
from avtune.datasets.splits import complete

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


def read(config: DataConfig) -> Collection:
    """Read clips whose folder is their label.

    A clip shows its event from its first to its last moment. Clips in a folder named ``background`` show
    none. A label's folder may have folders below it. If the root holds a ``train`` folder and beside it only
    ``val``/``validation`` and ``test``, these are the splits and the labels lie in them; splits that do
    not exist are held out of train. Hidden files are ignored.

    Args:
        config: ``root``, ``validation_share``, ``test_share``, ``split_seed``.

    Returns:
        The clips; labels sorted by name.

    Raises:
        DatasetError: The root is no folder, or holds too little to tell labels apart.
    """
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DatasetError(
            f"{root} is not a folder; point the root at a folder that holds one folder per label"
        )
    given, warnings = _find(root)
    records = [record for split in given.values() for record in split]
    labels = tuple(sorted({event.label for record in records for event in record.events}))
    if not records:
        raise DatasetError(
            f"{root} holds no <label>/<clip> with a video suffix ({', '.join(sorted(VIDEO_SUFFIXES))}); "
            "put each clip into a folder named after its event"
        )
    if not labels or (len(labels) == 1 and all(record.events for record in records)):
        only = labels[0] if labels else BACKGROUND
        raise DatasetError(
            f"{root} has clips of {only!r} alone; add a folder of clips of another label, or one named "
            f"{BACKGROUND} with clips without any event"
        )
    splits, notes = complete(given, config)
    return Collection(config.name, root, labels, splits, (*alike(labels), *warnings, *notes))


def _find(root: Path) -> tuple[dict[str, list[Record]], list[str]]:
    tops = _folders(root)
    names = [SPLIT_FOLDERS.get(folder.name.lower()) for folder in tops]
    given: dict[str, list[Record]] = {"train": []}
    warnings: list[str] = []
    if "train" in names and None not in names:
        for name, top in zip(names, tops, strict=True):
            for folder in _folders(top):
                given.setdefault(str(name), []).extend(_clips(root, folder, warnings))
        return given, warnings
    for folder in tops:
        given["train"].extend(_clips(root, folder, warnings))
    return given, warnings


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _clips(root: Path, folder: Path, warnings: list[str]) -> list[Record]:
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if len(videos) < len(files):
        others = [path.name for path in files if path not in videos]
        warnings.append(
            f"{folder.name}: {len(others)} files have no video suffix and are ignored, first {others[0]}"
        )
    if not videos:
        warnings.append(f"{folder.name}: the folder holds no video, so it is no label")
    events = () if folder.name.lower() == BACKGROUND else (Event(printable(folder.name)),)
    return [Record(printable(path.relative_to(root).as_posix()), path, events) for path in videos]
