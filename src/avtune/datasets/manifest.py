"""What a check found, as plain data: facts per file, counts, and the list of files that training may use."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from avtune.datasets.records import BACKGROUND, Collection, DatasetError, FrameFolder, Record, printable
from avtune.files import appearing

FORMAT = 1
UNUSABLE = frozenset({"missing", "unreadable"})
"""Kinds of problems that keep a file out of training; the others are remarks."""

PROBLEMS: Mapping[str, str] = {
    "missing": "annotated, but not on disk",
    "unreadable": "cannot be decoded at all",
    "damaged": "decodes in part",
    "mask": "has masks that are missing, damaged or of another shape than its frames",
    "empty": "has a clip without any truth",
    "short": "ends before its annotated events",
    "no_video": "has sound only",
    "no_audio": "has pictures only",
    "duplicate": "has the content of another file",
    "leak": "is, or equals, a file of another split",
}
"""Kinds of problems and what they mean, the worst first."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file.

    Attributes:
        kind: Key of :data:`PROBLEMS`.
        text: What exactly, one line.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class FileFacts:
    """What was found out about one file, or one unpacked clip.

    Attributes:
        name: Path below the root, ``/`` between its parts.
        splits: Splits that use it.
        size_bytes: Size; of an unpacked clip all files together. ``None``: missing.
        duration: Length, seconds; ``None``: unreadable.
        width: Pixels, after rotation; ``None``: no video.
        height: Pixels, after rotation; ``None``: no video.
        video_codec: ``None``: no video.
        audio_codec: ``None``: no sound.
        sample_rate: Of the sound as stored, Hz; ``None``: no sound.
        sha256: Of the content, hexadecimal; ``None``: missing.
        damage: Counts of what was wrong while decoding, without zeros.
        problems: Everything that a user should know of.
    """

    name: str
    splits: tuple[str, ...] = ()
    size_bytes: int | None = None
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    sample_rate: int | None = None
    sha256: str | None = None
    damage: Mapping[str, float] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether training can read it, if only in part."""
        return not any(problem.kind in UNUSABLE for problem in self.problems)


@dataclass(frozen=True)
class Table:
    """Rows for whoever prints them.

    Attributes:
        title: What it shows.
        columns: Headings.
        rows: Cells as text.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class CheckReport:
    """Everything that a check found.

    Attributes:
        dataset: Name of the reader.
        labels: Names of the events.
        files: Facts per file, in the order in which the collection first names them.
        clips_per_label: Split to label (or answer) to number of clips that have it; ``background``: clips without any.
        clips_per_split: Split to its number of clips, and of those whose files are usable.
        duplicates: Groups of files with the same content.
        warnings: What the reader said.
    """

    dataset: str
    labels: tuple[str, ...]
    files: tuple[FileFacts, ...]
    clips_per_label: Mapping[str, Mapping[str, int]]
    clips_per_split: Mapping[str, tuple[int, int]]
    duplicates: tuple[tuple[str, ...], ...]
    warnings: tuple[str, ...]

    @property
    def usable(self) -> tuple[str, ...]:
        """Names of the files that training can read."""
        return tuple(facts.name for facts in self.files if facts.usable)

    def count(self, kind: str) -> int:
        """Number of files with a problem of this kind (key of :data:`PROBLEMS`)."""
        return sum(any(problem.kind == kind for problem in facts.problems) for facts in self.files)

    def headline(self) -> str:
        """The result in one sentence."""
        total, usable = len(self.files), len(self.usable)
        troubled = sum(bool(facts.problems) for facts in self.files if facts.usable)
        hours = sum(facts.duration or 0 for facts in self.files) / 3600
        return f"{usable} of {total} files are usable, {troubled} of them with remarks ({hours:.2f} hours)"

    def tables(self) -> list[Table]:
        """The report as tables: kinds of problems, files with problems, clips per label and per split."""
        kinds = tuple(
            (kind, str(self.count(kind)), meaning) for kind, meaning in PROBLEMS.items() if self.count(kind)
        )
        order = list(PROBLEMS)
        lines = sorted(
            (
                (printable(facts.name), problem.kind, printable(problem.text))
                for facts in self.files
                for problem in facts.problems
            ),
            key=lambda line: (order.index(line[1]), line[0]),
        )
        splits = tuple(self.clips_per_label)
        labels = tuple(
            (label, *(str(self.clips_per_label[split].get(label, 0)) for split in splits))
            for label in (*self.labels, BACKGROUND)
        )
        counts = tuple(
            (split, str(clips), str(usable)) for split, (clips, usable) in self.clips_per_split.items()
        )
        return [
            Table("Problems", ("problem", "files", "meaning"), kinds),
            Table("Files with problems", ("file", "problem", "what"), tuple(lines)),
            Table("Clips per label", ("label", *splits), labels),
            Table("Clips per split", ("split", "annotated", "usable"), counts),
        ]

    def write(self, path: Path) -> None:
        """Write the manifest: a JSON object whose ``usable`` list :func:`restrict` obeys.

        The file appears whole or not at all.

        Args:
            path: Where to.

        Raises:
            DatasetError: It cannot be written there.
        """
        content = {
            "format": FORMAT,
            "dataset": self.dataset,
            "labels": self.labels,
            "summary": {kind: self.count(kind) for kind in PROBLEMS},
            "clips_per_label": self.clips_per_label,
            "clips_per_split": self.clips_per_split,
            "duplicates": self.duplicates,
            "warnings": self.warnings,
            "usable": self.usable,
            "files": [{**asdict(facts), "usable": facts.usable} for facts in self.files],
        }
        try:
            with appearing(path) as partial:
                partial.write_text(json.dumps(content, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
        except OSError as error:
            raise DatasetError(f"{path} cannot be written ({error.strerror}); name another place") from None


def source_name(record: Record, root: Path) -> str:
    """What a manifest calls a record's file: its path below the root.

    A file in an archive lies below the archive's name. An unpacked clip is called by the folder of its pictures, or,
    where clips share one, by its sound.
    """
    source = record.source
    shared = isinstance(source, FrameFolder) and "/" in source.pattern
    path = source.audio if isinstance(source, FrameFolder) and shared else record.path
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def clips_per_label(collection: Collection) -> dict[str, dict[str, int]]:
    """Number of clips per split that have each label or answer; ``background`` counts clips without any."""
    counts: dict[str, dict[str, int]] = {}
    for split, records in collection.splits.items():
        found = Counter(label for record in records for label in record.truths or (BACKGROUND,))
        counts[split] = {label: found[label] for label in (*collection.labels, BACKGROUND)}
    return counts


def restrict(collection: Collection, manifest: Path) -> Collection:
    """Keep only the clips whose files a manifest lists as usable; the list may be edited by hand.

    Args:
        collection: As a reader returns it.
        manifest: Written by :meth:`CheckReport.write`, for the same dataset.

    Returns:
        The collection without the other clips, which ``missing`` names.

    Raises:
        DatasetError: The file is no manifest, or lists none of the collection's training files.
    """
    try:
        content: Any = json.loads(manifest.read_text(encoding="utf-8"))
        wellformed = content["format"] == FORMAT and all(isinstance(name, str) for name in content["usable"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        wellformed = False
    if not wellformed:
        raise DatasetError(
            f"{manifest} is no manifest of format {FORMAT}; run the check again to write it anew"
        )
    usable = set(content["usable"])
    splits: dict[str, tuple[Record, ...]] = {}
    dropped: list[str] = []
    for split, records in collection.splits.items():
        splits[split] = tuple(r for r in records if source_name(r, collection.root) in usable)
        dropped += [
            f"{record.name}: {manifest.name} does not list it as usable"
            for record in records
            if source_name(record, collection.root) not in usable
        ]
    if collection.splits.get("train") and not splits["train"]:
        raise DatasetError(
            f"{manifest} lists no training file of this collection as usable; "
            "write it for the same root, or mend the files"
        )
    return replace(collection, splits=splits, missing=collection.missing + tuple(dropped))
