"""What every reader returns: labelled clips in splits, not yet opened."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from avtune.errors import AvtuneError
from avtune.media import FilePart

SPLITS = ("train", "validation", "test")
BACKGROUND = "background"
"""Label that means "no event" wherever a user writes labels; it has no index of its own in ``labels``."""

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".ogv"}
)


class DatasetError(AvtuneError):
    """A dataset on disk that cannot be used as it is; the message says what to change."""


@dataclass(frozen=True)
class Event:
    """One labelled stretch of a clip.

    Attributes:
        label: Name of the event.
        start: First moment, seconds from the start of the file, >= 0.
        end: First moment after it, seconds, > start; ``inf``: to the end of the file.
    """

    label: str
    start: float = 0.0
    end: float = math.inf


@dataclass(frozen=True)
class FrameFolder:
    """A clip that was unpacked into pictures and a sound file, as several authors' code wants it.

    Attributes:
        frames: Folder of pictures whose names are their numbers (``0001.jpg`` or ``00000001.jpg``), or whose folders
            end with them (``frame_0/<id>.jpg``).
        audio: Sound file (``.wav``), or waveform (``.npy``, one row of samples).
        pattern: Glob of the pictures in ``frames``.
        array_rate: Samples per second of a ``.npy`` waveform, which cannot say so itself (DG-SCT: 32 kHz).
        seconds: Length of a clip of one picture for each second, of which none may be missing; ``None``: the clip lasts
            as long as its sound, and the pictures that are there are spread evenly over it.
    """

    frames: Path
    audio: Path
    pattern: str = "*.jpg"
    array_rate: int = 32000
    seconds: int | None = None

    def pictures(self) -> list[Path]:
        """The pictures in order of their numbers, or of their folders' (of their names, where there is no number)."""

        def place(path: Path) -> tuple[float, str]:
            number = path.stem if path.stem.isdecimal() else path.parent.name.rpartition("_")[2]
            return (int(number) if number.isdecimal() else math.inf, path.name)

        return sorted(self.frames.glob(self.pattern), key=place)


@dataclass(frozen=True, slots=True)
class PreparedFile:
    """A clip whose tensors are stored, so that it need not be decoded.

    Attributes:
        part: Where, as :func:`avtune.datasets.disk_cache.pack` writes them.
    """

    part: FilePart


ClipSource: TypeAlias = Path | FilePart | FrameFolder | PreparedFile
"""What a clip is read from: a media file, one within an archive, pictures and sound, or stored tensors."""


@dataclass(frozen=True)
class Question:
    """A question about a clip and its answer.

    Attributes:
        words: The question, cut into words, slots filled, the question mark left out.
        answer: The answer; empty where it is not known.
        kind: What it is about and what it asks, such as ``("Audio-Visual", "Counting")``; scores are told for each.
        template: The text with its slots.
        identity: Number of the question within its dataset; -1 where it has none.
    """

    words: tuple[str, ...]
    answer: str = ""
    kind: tuple[str, str] = ("", "")
    template: str = ""
    identity: int = -1

    @property
    def text(self) -> str:
        """The question as a person reads it."""
        return f"{' '.join(self.words)}?"


@dataclass(frozen=True)
class MaskFiles:
    """Pictures that tell for each segment of a clip which pixels sound.

    Attributes:
        files: One for each segment, in order; ``None`` where a segment is not labelled.
        classes: Colours, RGB in 0 to 255, of the classes in the order of their indices, the first for silence; empty:
            whatever is not black sounds.
        squeezed: Whether they were drawn over frames squeezed to a square, whatever the shape of the clip's own.
    """

    files: tuple[Path | None, ...]
    classes: tuple[tuple[int, int, int], ...] = ()
    squeezed: bool = False


@dataclass(frozen=True)
class Record:
    """One clip and its truth.

    Attributes:
        name: What reports call it, unique enough to find it: the video id, or the path below the root.
        source: What it is read from.
        events: What happens in it, times from the start of the file.
        start: Where the clip begins in the file, seconds.
        origin: Where the annotation stands (``events.csv line 7``); empty if it has no line of its own.
        heard: What is audible when, where a dataset tells it apart from what is seen.
        seen: What is visible when, where a dataset tells it.
        question: What is asked about it, where a dataset asks.
        masks: Which of its pixels sound, where a dataset tells.
    """

    name: str
    source: ClipSource
    events: tuple[Event, ...]
    start: float = 0.0
    origin: str = ""
    heard: tuple[Event, ...] = ()
    seen: tuple[Event, ...] = ()
    question: Question | None = None
    masks: MaskFiles | None = None

    @property
    def truths(self) -> tuple[str, ...]:
        """What the clip is known to be: each label of its events once, or its question's answer; empty: nothing."""
        if self.question is not None:
            return (self.question.answer,) if self.question.answer else ()
        return tuple(dict.fromkeys(event.label for event in self.events))

    @property
    def files(self) -> tuple[Path, ...]:
        """The paths that have to exist."""
        match self.source:
            case FrameFolder(frames=frames, audio=audio):
                return (frames, audio)
            case PreparedFile(part=FilePart(archive=archive)) | FilePart(archive=archive):
                return (archive,)
            case Path():
                return (self.source,)

    @property
    def path(self) -> Path:
        """What messages call its file: of one within an archive its name below the archive's."""
        match self.source:
            case PreparedFile(part=part) | (FilePart() as part):
                return part.path
            case _:
                return self.files[0]


@dataclass(frozen=True)
class Collection:
    """A dataset: its labels and the clips of its splits.

    Attributes:
        name: Name of the reader.
        root: Folder that holds it.
        labels: Names of the events in the order of their class indices. Background is no event: its index is
            ``len(labels)``.
        splits: Clips of ``train``, ``validation`` and ``test``; a split may be empty.
        warnings: What a user should know about the data before trusting a score.
        missing: One line per clip that is annotated but not on disk; filled by :func:`existing`.
        clip_seconds: Length of every clip where the dataset fixes it, seconds; ``None``: files differ.
        words: Words of the questions in the order of their numbers, where the dataset asks.
        preprocessing: How its clips were prepared (``Preprocessing.state``), where it holds nothing but stored tensors.
    """

    name: str
    root: Path
    labels: tuple[str, ...]
    splits: dict[str, tuple[Record, ...]]
    warnings: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    clip_seconds: float | None = None
    words: tuple[str, ...] = ()
    preprocessing: dict[str, Any] | None = None

    @property
    def records(self) -> tuple[Record, ...]:
        """Clips of all splits, train first."""
        return tuple(record for split in self.splits.values() for record in split)


def event_numbers(events: Sequence[Event], labels: Sequence[str]) -> list[int]:
    """Class index of each event.

    Args:
        events: What happens.
        labels: Names of the events in the order of their class indices.

    Raises:
        DatasetError: An event's label is none of ``labels``.
    """
    index = {label: number for number, label in enumerate(labels)}
    for event in events:
        if event.label not in index:
            raise DatasetError(
                f"event {event.label!r} is none of the {len(labels)} labels: {', '.join(labels)}"
            )
    return [index[event.label] for event in events]


def segment_labels(
    events: Sequence[Event],
    labels: Sequence[str],
    segments: int,
    segment_seconds: float,
    start: float = 0.0,
) -> npt.NDArray[np.int64]:
    """Class of each segment of a clip.

    A segment belongs to the event that covers most of it, if that is at least half of it; of events that
    cover equally much the last one given wins. On whole segments this is AVE's rule: segment t is an
    event iff ``event.start <= t < event.end``.

    Args:
        events: What happens, seconds from the start of the file.
        labels: Names of the events in the order of their class indices.
        segments: Number of segments, T.
        segment_seconds: Length of a segment, seconds.
        start: Where the first segment begins in the file, seconds.

    Returns:
        (T,) class indices; ``len(labels)`` is background.

    Raises:
        DatasetError: An event's label is none of ``labels``.
    """
    begins = np.arange(segments, dtype=np.float64) + start / segment_seconds
    classes = np.full(segments, len(labels), dtype=np.int64)
    most = np.full(segments, 0.5 - 1e-9)
    for event, number in zip(events, event_numbers(events, labels), strict=True):
        until = np.minimum(begins + 1, event.end / segment_seconds)
        covered = until - np.maximum(begins, event.start / segment_seconds)
        wins = covered >= most - 1e-9
        classes[wins] = number
        most[wins] = np.maximum(most, covered)[wins]
    return classes


def existing(collection: Collection) -> Collection:
    """Drop the clips that are not on disk.

    Looks at every path once, opens none; ``avtune.datasets.check`` opens them. Labels stay as they are, so
    class indices never depend on how much of a dataset was downloaded.

    Args:
        collection: As a reader returns it.

    Returns:
        The same with only the clips that exist; ``missing`` names the others.

    Raises:
        DatasetError: No clip of the whole collection, or none of its training split, is on disk.
    """
    missing: list[str] = []
    splits: dict[str, tuple[Record, ...]] = {}
    for split, records in collection.splits.items():
        kept = []
        for record in records:
            absent = next((path for path in record.files if not os.path.exists(path)), None)
            if absent is None:
                kept.append(record)
            else:
                where = f" ({record.origin})" if record.origin else ""
                missing.append(printable(f"{record.name}: {absent} is not there{where}"))
        splits[split] = tuple(kept)
    annotated, training = len(collection.records), collection.splits.get("train", ())
    if missing and not any(splits.values()):
        raise DatasetError(
            f"none of the {annotated} annotated clips is on disk, first {missing[0]}; "
            f"put the media there or point the root elsewhere (now {collection.root})"
        )
    if training and not splits["train"]:
        raise DatasetError(
            f"none of the {len(training)} training clips is on disk, first {missing[0]}; put the media there"
        )
    return replace(collection, splits=splits, missing=collection.missing + tuple(missing))


def alike(labels: Sequence[str]) -> tuple[str, ...]:
    """One warning for each pair of labels that differ in nothing but capitals."""
    seen: dict[str, str] = {}
    pairs = [(seen.setdefault(label.casefold(), label), label) for label in labels]
    return tuple(
        f"labels {first!r} and {label!r} differ only in capitals and are two classes; rename one if that is wrong"
        for first, label in pairs
        if first != label
    )


def printable(text: str) -> str:
    """Replace what no terminal or UTF-8 file can show: control characters and undecodable bytes of names."""
    if text.isprintable():
        return text
    return "".join("?" if ord(char) < 32 or 0xD800 <= ord(char) <= 0xDFFF else char for char in text)


def file_name(text: str, where: str) -> str:
    """Accept a name that was read from a file only if it is the plain name of a file.

    Args:
        text: The name, for example a video id.
        where: What the error names, for example ``Annotations.txt line 3``.

    Returns:
        ``text`` unchanged.

    Raises:
        DatasetError: It is empty, or holds a separator, a drive, ``..`` or a control character.
    """
    if PurePosixPath(relative_path(text, where)).name != text:
        raise DatasetError(f"{where}: {text!r} is not a plain file name; remove the folders from it")
    return text


def relative_path(text: str, where: str) -> str:
    """Accept a path that was read from a file only if it cannot leave the folder that it is relative to.

    Links that lie in the folder are followed: they are the user's own. What an annotation file says can
    only ever name something below the root.

    Args:
        text: The path, ``/`` between its parts.
        where: What the error names, for example ``events.csv line 3``.

    Returns:
        The path with ``.`` parts and doubled slashes removed, so that one file has one spelling.

    Raises:
        DatasetError: It is empty or absolute, or holds ``..``, a backslash, a drive or a control character.
    """
    path = PurePosixPath(text)
    if not path.parts or any(ord(character) < 32 for character in text):
        raise DatasetError(f"{where}: {text!r} names no file; write its path below the root")
    if path.is_absolute() or PureWindowsPath(text).drive or "\\" in text or ".." in path.parts:
        raise DatasetError(
            f"{where}: {text!r} leads out of the root; write a path below the root, with / between its parts"
        )
    return str(path)
