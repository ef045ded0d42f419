"""CREMA-D: 91 actors say 12 sentences in six emotions, 7,442 clips of two to five seconds.

======  ==============================================================================================
media   ``VideoFlash/<clip>.flv`` (the authors'), or any video in ``VideoMP4``, ``video``, ``videos`` or the root, or
        ``frames/Image-01-FPS/<clip>/*.jpg`` with ``AudioWAV/<clip>.wav`` (MA-AVT)
truth   ``train.csv`` and ``test.csv``: ``clip,emotion``, in the root or in ``Annotations``
votes   ``summaryTable.csv``: what people heard in the voice, saw in the face, and took from both
======  ==============================================================================================

The split is the one that papers share. Every actor of its test part is in its training part too, so a model may know
the voice and the face; ``clean`` divides the same clips by actors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets.listed import clip_source, csv_rows, first_file, table_rows
from avtune.datasets.records import Collection, DatasetError, Event, FrameFolder, Record
from avtune.datasets.splits import complete

EMOTIONS = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "FEA": "fear", "DIS": "disgust", "ANG": "anger"}
"""Class names by the code in a clip's name, in the order of the class indices that papers use."""

MEDIA = ("VideoFlash", "VideoMP4", "video", "videos", ".")
UNPACKED = (("frames/Image-01-FPS", "AudioWAV"),)
TEST_ACTORS, VALIDATION_ACTORS = 0.2, 0.1


@dataclass(frozen=True)
class Votes:
    """What most people took a clip for; several emotions where they tied.

    Attributes:
        voice: From the sound alone.
        face: From the picture alone.
        both: From sound and picture.
    """

    voice: tuple[str, ...]
    face: tuple[str, ...]
    both: tuple[str, ...]


def read(config: DataConfig) -> Collection:
    """Read CREMA-D; no media file is opened.

    Args:
        config: ``root``; ``split``: ``official`` keeps the shared split, ``clean`` divides by actors with
            ``split_seed``; ``validation_share`` and ``split_seed`` where a validation split is held out.

    Returns:
        The clips, each with its emotion as an event from its beginning to its end.

    Raises:
        DatasetError: A list is absent, or a row is malformed; the message names it.
    """
    root = Path(config.root).expanduser()
    if config.split not in ("official", "clean"):
        raise DatasetError(f"split {config.split!r} is unknown; use official or clean")
    source = clip_source(root, MEDIA, UNPACKED)
    given: dict[str, list[Record]] = {}
    for split in ("train", "test"):
        path = first_file((root, root / "Annotations"), f"{split}.csv")
        if path is None:
            raise DatasetError(f"{root} holds no {split}.csv; put it there or into {root / 'Annotations'}")
        given[split] = [_record(clip, code, where, source) for (clip, code), where in csv_rows(path, 2)]
    labels = tuple(EMOTIONS.values())
    if config.split == "clean":
        return Collection(config.name, root, labels, _by_actor(given, config.split_seed))
    splits, warnings = complete(given, config)
    if shared := {_actor(record) for record in given["train"]} & {_actor(record) for record in given["test"]}:
        warnings += (
            f"{len(shared)} actors are in train and test, so a score tells how well known people are read; split clean "
            "keeps actors apart",
        )
    return Collection(config.name, root, labels, splits, warnings)


def read_votes(path: Path) -> dict[str, Votes]:
    """People's votes by clip.

    Args:
        path: ``summaryTable.csv``.

    Raises:
        DatasetError: It is unreadable, a row is malformed, or a vote is of no emotion.
    """
    letters = {code[0]: name for code, name in EMOTIONS.items()}

    def named(vote: str, where: str) -> tuple[str, ...]:
        if unknown := [letter for letter in vote.split(":") if letter not in letters]:
            raise DatasetError(f"{where}: vote {unknown[0]!r} is none of {', '.join(letters)}")
        return tuple(letters[letter] for letter in vote.split(":"))

    columns = ("VoiceVote", "FaceVote", "MultiModalVote")
    return {
        row["FileName"]: Votes(*(named(row[column], where) for column in columns))
        for row, where in table_rows(path, ("FileName", *columns))
    }


def _record(clip: str, code: str, where: str, source: Callable[[str, str], Path | FrameFolder]) -> Record:
    if code not in EMOTIONS:
        raise DatasetError(f"{where}: emotion {code!r} is none of {', '.join(EMOTIONS)}")
    event = Event(EMOTIONS[code])
    return Record(clip, source(clip, where), (event,), origin=where)


def _actor(record: Record) -> str:
    return record.name[:4]


def _by_actor(given: dict[str, list[Record]], seed: int) -> dict[str, tuple[Record, ...]]:
    records = [record for split in given.values() for record in split]
    order = sorted(
        {_actor(record) for record in records},
        key=lambda actor: hashlib.sha256(f"{seed}\0{actor}".encode()).digest(),
    )
    test = round(TEST_ACTORS * len(order))
    validation = round(VALIDATION_ACTORS * len(order))
    place = {actor: number for number, actor in enumerate(order)}

    def between(first: int, end: int) -> tuple[Record, ...]:
        return tuple(record for record in records if first <= place[_actor(record)] < end)

    return {
        "train": between(test + validation, len(order)),
        "validation": between(test, test + validation),
        "test": between(0, test),
    }
