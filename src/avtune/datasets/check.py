"""Open every file of a collection before training does, and say what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from avtune.datasets.disk_cache import unpack
from avtune.datasets.manifest import CheckReport, FileFacts, Problem, clips_per_label, source_name
from avtune.datasets.masks import load_masks
from avtune.datasets.pool import LIMIT_SECONDS, Failure, Progress, map_files
from avtune.datasets.records import ClipSource, Collection, DatasetError, FrameFolder, PreparedFile, Record
from avtune.datasets.unpacked import UNPACK_AGAIN, due_pictures, read_picture, read_sound
from avtune.media import Damage, FilePart, MediaError, decode, probe

EVENT_TOLERANCE_SECONDS = 0.5
"""An annotated event may end this much after its file: half a segment of a second, which stays valid."""

MASK_SIZE = 16
"""Side that masks are brought to while they are checked, pixels; any does."""


@dataclass(frozen=True)
class _Task:
    """What a worker needs to know of one file."""

    name: str
    splits: tuple[str, ...]
    source: ClipSource
    files: tuple[Path, ...]
    events_end: float
    masked: tuple[Record, ...]
    empty: int


def check(
    collection: Collection,
    workers: int = 2,
    progress: Progress | None = None,
    limit_seconds: float = LIMIT_SECONDS,
) -> CheckReport:
    """Read every file of a collection, from its first to its last second.

    Args:
        collection: As a reader returns it, before ``existing``, so that missing files are reported.
        workers: Processes that decode; a file that crashes or hangs one is unreadable. 0: this process.
        progress: Called with the number of checked and of all files.
        limit_seconds: Longest time for one file.

    Returns:
        What was found. No file makes this fail.

    Raises:
        DatasetError: No worker process can be started.
    """
    tasks = _tasks(collection)
    answers = map_files(_examine, tasks, workers, progress, limit_seconds)
    facts = [
        _unreadable(task, answer.reason) if isinstance(answer, Failure) else answer
        for task, answer in zip(tasks, answers, strict=True)
    ]
    duplicates = _duplicates(facts)
    return CheckReport(
        dataset=collection.name,
        labels=collection.labels,
        files=tuple(_with_relations(facts, duplicates)),
        clips_per_label=clips_per_label(collection),
        clips_per_split=_clips_per_split(collection, {one.name for one in facts if one.usable}),
        duplicates=tuple(tuple(facts[index].name for index in group) for group in duplicates),
        warnings=collection.warnings,
    )


def _tasks(collection: Collection) -> list[_Task]:
    uses: dict[str, list[tuple[str, Record]]] = defaultdict(list)
    for split, records in collection.splits.items():
        for record in records:
            uses[source_name(record, collection.root)].append((split, record))
    tasks = []
    for name, pairs in uses.items():
        ends = [event.end for _, record in pairs for event in record.events if np.isfinite(event.end)]
        splits = tuple(dict.fromkeys(split for split, _ in pairs))
        first = pairs[0][1]
        masked = {record.masks: record for _, record in pairs if record.masks is not None}
        tasks.append(
            _Task(
                name, splits, first.source, first.files, max(ends, default=0.0),
                masked=tuple(masked.values()),
                empty=sum(_untold(record) for _, record in pairs),
            )
        )  # fmt: skip
    return tasks


def _untold(record: Record) -> bool:
    """Whether a clip that is there to teach something teaches nothing; that no event happens is something."""
    if record.question is not None:
        return not record.truths
    return record.masks is not None and not any(record.masks.files)


def _clips_per_split(collection: Collection, usable: set[str]) -> dict[str, tuple[int, int]]:
    return {
        split: (len(records), sum(source_name(record, collection.root) in usable for record in records))
        for split, records in collection.splits.items()
    }


def _examine(task: _Task) -> FileFacts:
    """Worker side: all facts about one file."""
    for path in task.files:
        if not path.exists():
            return FileFacts(
                task.name, task.splits, problems=(Problem("missing", f"{path.name} is not there"),)
            )
    facts = FileFacts(task.name, task.splits)
    problems = [*_mask_problems(task.masked)]
    if task.empty:
        problems.append(Problem("empty", f"{task.empty} of its clips have no answer and no mask"))
    try:
        match task.source:
            case FrameFolder() as folder:
                facts = _examine_unpacked(facts, folder, problems)
            case PreparedFile(part=part):
                facts = _examine_prepared(facts, part)
            case Path() | FilePart() as file:
                facts = _examine_file(facts, file, problems)
    except MediaError as error:
        return _unreadable(task, error.problem)
    except DatasetError as error:
        return _unreadable(task, str(error))
    except OSError as error:
        return _unreadable(task, error.strerror or str(error))
    if facts.duration is not None and task.events_end > facts.duration + EVENT_TOLERANCE_SECONDS:
        text = f"events last until {task.events_end:g} s, the file ends at {facts.duration:.2f} s"
        problems.append(Problem("short", text))
    return replace(facts, problems=tuple(problems))


def _mask_problems(clips: Iterable[Record]) -> Iterator[Problem]:
    """A remark for each clip of which a mask is missing, damaged or not of its frame's shape."""
    for record in clips:
        assert record.masks is not None
        files = [path for path in record.masks.files if path is not None]
        bad: list[str] = []
        for path in files:
            try:
                load_masks(
                    replace(record, start=0.0, masks=replace(record.masks, files=(path,))), 1, MASK_SIZE
                )
            except DatasetError as error:
                bad.append(str(error))
        if bad:
            yield Problem("mask", f"{len(bad)} of {len(files)} masks cannot be used: {bad[0]}")


def _examine_prepared(facts: FileFacts, part: FilePart) -> FileFacts:
    unpack(part.read())
    size, digest = _content([part])
    return replace(facts, size_bytes=size, sha256=digest, video_codec="tensors")


def _examine_file(facts: FileFacts, path: Path | FilePart, problems: list[Problem]) -> FileFacts:
    info = probe(path)
    size, digest = _content([path])
    facts = replace(facts, size_bytes=size, sha256=digest, duration=round(info.duration, 3))
    clip = decode(path, _moments(info.duration), on_frame=_nothing, every_frame=True)
    if info.video is not None and clip.frames:
        facts = replace(facts, width=info.video.width, height=info.video.height, video_codec=info.video.codec)
    else:
        problems.append(Problem("no_video", "no video stream that decodes"))
    if info.audio is not None and clip.waveform is not None and clip.waveform.size:
        facts = replace(facts, audio_codec=info.audio.codec, sample_rate=info.audio.sample_rate)
    else:
        problems.append(Problem("no_audio", "no sound that decodes"))
    return replace(facts, damage=_counts(clip.damage, problems))


def _examine_unpacked(facts: FileFacts, folder: FrameFolder, problems: list[Problem]) -> FileFacts:
    pictures = due_pictures(folder)
    size, digest = _content([*(path for path in pictures if path.is_file()), folder.audio])
    facts = replace(facts, size_bytes=size, sha256=digest)
    bad: list[str] = []
    for path in pictures:
        try:
            height, width = read_picture(path).shape[:2]
            facts = replace(facts, width=width, height=height, video_codec="pictures")
        except MediaError:
            bad.append(path.name)
    if bad and folder.seconds is not None:
        problem = f"{len(bad)} of its {len(pictures)} pictures do not decode, first {bad[0]}"
        raise MediaError(folder.frames, problem, UNPACK_AGAIN)
    if facts.width is None:
        problems.append(Problem("no_video", f"none of {len(pictures)} pictures decodes"))
    elif bad:
        problems.append(
            Problem("damaged", f"{len(bad)} of {len(pictures)} pictures do not decode, first {bad[0]}")
        )
    counts: dict[str, float] = {"pictures_bad": len(bad)} if bad else {}
    try:
        waveform, damage = read_sound(folder)
    except MediaError as error:
        if facts.width is None:
            raise
        problems.append(Problem("no_audio", f"{folder.audio.name} {error.problem}"))
        return replace(facts, damage=counts)
    counts.update(_counts(damage, problems))
    codec, rate = "npy", folder.array_rate
    if folder.audio.suffix.lower() != ".npy" and (stream := probe(folder.audio).audio) is not None:
        codec, rate = stream.codec, stream.sample_rate
    return replace(
        facts,
        duration=round(len(waveform) / 16000, 3),
        audio_codec=codec,
        sample_rate=rate,
        damage=counts,
    )


def _counts(damage: Damage, problems: list[Problem]) -> dict[str, float]:
    """Non-zero counts; ``frames_decoded`` is no damage."""
    counts = {
        name: value
        for name, value in asdict(damage).items()
        if name not in ("frames_decoded", "notes") and value
    }
    if damage.any:
        parts = [f"{name.replace('_', ' ')}: {value:g}" for name, value in counts.items()]
        problems.append(Problem("damaged", "; ".join([*parts, *damage.notes])))
    return counts


def _moments(duration: float) -> list[float]:
    """The middle of every second, so that decoding passes over the whole file."""
    return [second + 0.5 for second in range(max(int(duration), 1)) if second + 0.5 < duration] or [0.0]


def _nothing(picture: npt.NDArray[np.uint8]) -> bool:
    return True


def _content(files: Sequence[Path | FilePart]) -> tuple[int, str]:
    """Size and hash of the contents one after the other."""
    digest, size = hashlib.sha256(), 0
    for path in files:
        if isinstance(path, FilePart):
            content = path.read()
            digest.update(content)
            size += len(content)
            continue
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
    return size, digest.hexdigest()


def _unreadable(task: _Task, reason: str) -> FileFacts:
    size = digest = None
    try:
        match task.source:
            case PreparedFile(part=part) | (FilePart() as part):
                size, digest = _content([part])
            case _ if all(path.is_file() for path in task.files):
                size, digest = _content(task.files)
    except (OSError, MediaError):
        size = None
    return FileFacts(
        task.name,
        task.splits,
        size_bytes=size,
        sha256=digest,
        problems=(Problem("unreadable", " ".join(reason.split())),),
    )


def _duplicates(facts: Sequence[FileFacts]) -> list[list[int]]:
    by_content: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(facts):
        if one.sha256 is not None and one.size_bytes:
            by_content[one.sha256].append(index)
    return [group for group in by_content.values() if len(group) > 1]


def _with_relations(facts: Sequence[FileFacts], duplicates: Iterable[Sequence[int]]) -> list[FileFacts]:
    """Add what only shows between files: equal content, and one content in several splits."""
    related: dict[int, list[Problem]] = defaultdict(list)
    for index, one in enumerate(facts):
        if len(one.splits) > 1:
            related[index].append(Problem("leak", f"the file is in {' and '.join(one.splits)}"))
    for group in duplicates:
        for index in group:
            others = [facts[other] for other in group if other != index]
            related[index].append(Problem("duplicate", f"same bytes as {others[0].name}"))
            if abroad := [other for other in others if set(other.splits) != set(facts[index].splits)]:
                where = " and ".join(abroad[0].splits)
                related[index].append(Problem("leak", f"same bytes as {abroad[0].name} in {where}"))
    return [replace(one, problems=(*one.problems, *related[index])) for index, one in enumerate(facts)]
