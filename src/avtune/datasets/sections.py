"""Long files become several clips, so that no event of a user's recording is out of the model's sight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from avtune.datasets.pool import Progress
from avtune.datasets.records import Collection, Record
from avtune.media import FilePart, MediaError, probe
from avtune.transforms.windows import section_starts

READERS_AT_ONCE = 4


def cut(
    collection: Collection, segments: int, segment_seconds: float, progress: Progress | None = None
) -> Collection:
    """Cut every file into clips that a model of ``segments`` segments sees whole.

    A file that lasts longer than one input gives several records that differ in ``start``, the same sections
    as prediction on that file uses; the last is moved back to end with the file. All stay in their split.
    Files of a collection whose clips all have one known length are not opened. A clip that is asked about stays one:
    its question is about all of it.

    Args:
        collection: Of clips that exist.
        segments: Time steps of an input, T.
        segment_seconds: Length of one time step, seconds.
        progress: Called with the number of probed and of all files.

    Returns:
        The collection with more records; files that cannot be opened keep their one. A warning where questions are
        about more than the model sees.
    """
    sources = list(
        dict.fromkeys(r.source for r in collection.records if isinstance(r.source, Path | FilePart))
    )
    durations: dict[Path | FilePart, float] = {}
    if collection.clip_seconds is None:
        with ThreadPoolExecutor(READERS_AT_ONCE) as pool:
            for number, (source, duration) in enumerate(
                zip(sources, pool.map(_duration, sources), strict=True)
            ):
                durations[source] = duration
                if progress is not None:
                    progress(number + 1, len(sources))

    def lasting(record: Record) -> float | None:
        if collection.clip_seconds is None and isinstance(record.source, Path | FilePart):
            return durations[record.source]
        return collection.clip_seconds

    def sections(records: Sequence[Record]) -> Iterator[Record]:
        for record in records:
            length = lasting(record)
            if not length or record.question is not None:
                yield record
                continue
            for start in section_starts(length, segments, segment_seconds, segments):
                yield replace(record, start=start)

    splits = {name: tuple(sections(records)) for name, records in collection.splits.items()}
    asked = [record for record in collection.records if record.question is not None]
    warnings = collection.warnings + _cut_off(asked, lasting, segments, segment_seconds)
    return replace(collection, splits=splits, warnings=warnings)


def _cut_off(
    asked: Sequence[Record],
    lasting: Callable[[Record], float | None],
    segments: int,
    segment_seconds: float,
) -> tuple[str, ...]:
    # Less than half a segment is none.
    seen = (segments + 0.5) * segment_seconds
    longer = [record for record in asked if (lasting(record) or 0.0) > seen]
    if not longer:
        return ()
    longest = max(lasting(record) or 0.0 for record in longer)
    return (
        f"{len(longer)} of {len(asked)} questions are about clips longer than the {segments * segment_seconds:g} s "
        f"that the model sees, up to {longest:.1f} s; set input.segment_seconds so that input.segments times it is the "
        "whole clip",
    )


def _duration(file: Path | FilePart) -> float:
    if isinstance(file, FilePart) and file.duration is not None:
        return file.duration
    try:
        return probe(file).duration
    except (MediaError, OSError):
        return 0.0
