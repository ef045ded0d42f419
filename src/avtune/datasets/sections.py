"""Long files become several clips, so that no event of a user's recording is out of the model's sight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from avtune.datasets.pool import Progress
from avtune.datasets.records import Collection, Record
from avtune.media import MediaError, probe
from avtune.transforms.windows import section_starts

READERS_AT_ONCE = 4


def cut(
    collection: Collection, segments: int, segment_seconds: float, progress: Progress | None = None
) -> Collection:
    """Cut every file into clips that a model of ``segments`` segments sees whole.

    A file that lasts longer than one input gives several records that differ in ``start``, the same sections
    as prediction on that file uses; the last is moved back to end with the file. All stay in their split.
    Files of a collection whose clips all have one known length are not opened.

    Args:
        collection: Of clips that exist.
        segments: Time steps of an input, T.
        segment_seconds: Length of one time step, seconds.
        progress: Called with the number of probed and of all files.

    Returns:
        The collection with more records; files that cannot be opened keep their one.
    """
    sources = list(dict.fromkeys(r.source for r in collection.records if isinstance(r.source, Path)))
    durations: dict[Path, float] = {}
    if collection.clip_seconds is None:
        with ThreadPoolExecutor(READERS_AT_ONCE) as pool:
            for number, (source, duration) in enumerate(
                zip(sources, pool.map(_duration, sources), strict=True)
            ):
                durations[source] = duration
                if progress is not None:
                    progress(number + 1, len(sources))

    def sections(records: Sequence[Record]) -> Iterator[Record]:
        for record in records:
            length = collection.clip_seconds
            if length is None and isinstance(record.source, Path):
                length = durations[record.source]
            if not length:
                yield record
                continue
            for start in section_starts(length, segments, segment_seconds, segments):
                yield replace(record, start=start)

    splits = {name: tuple(sections(records)) for name, records in collection.splits.items()}
    return replace(collection, splits=splits)


def _duration(path: Path) -> float:
    try:
        return probe(path).duration
    except (MediaError, OSError):
        return 0.0
