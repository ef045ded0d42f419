"""Recordings that several splits of a dataset share, by what the names of its clips tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from avtune.datasets.records import Record

YOUTUBE_CLIP = re.compile(r"([\w-]{11})_\d+(_\d+)?")


def youtube_video(record: Record) -> str:
    """The YouTube id in a clip's name ``<id>_<start>`` or ``<id>_<start>_<end>``; of another name all of it.

    Folders before the name do not count.
    """
    name = record.name.rpartition("/")[2]
    match = YOUTUBE_CLIP.fullmatch(name)
    return match[1] if match else name


def leak_warnings(
    splits: Mapping[str, Sequence[Record]], recording: Callable[[Record], str], what: str
) -> tuple[str, ...]:
    """A warning where clips of one recording are in two splits.

    Args:
        splits: Clips by split.
        recording: What a clip was cut from.
        what: What that is, in the plural.

    Returns:
        One line, or none.
    """
    found = {split: {recording(record) for record in records} for split, records in splits.items()}
    shared = {(one, other): found[one] & found[other] for one, other in combinations(found, 2)}
    total = len(set().union(*shared.values()))
    if not total:
        return ()
    counts = ", ".join(f"{len(ids)} in {one} and {other}" for (one, other), ids in shared.items() if ids)
    return (f"{total} {what} are in two splits ({counts}), so a score is slightly too good",)
