"""Any collection as WebDataset tar shards: its media files as they are, or the tensors that a model takes of them.

Which clips go into which shard is planned before the first one is written, by a seed and the files' sizes. A shard
takes its name once it is whole, and its index follows it, so that a shard with an index is finished and all others are
written by the same call again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from avtune.datasets.clips import clip_bytes, prepare
from avtune.datasets.disk_cache import pack, versions
from avtune.datasets.pool import Failure, Progress, stream_files
from avtune.datasets.records import ClipSource, Collection, DatasetError, FrameFolder, PreparedFile, Record
from avtune.datasets.shard_index import (
    FACTS_SUFFIX,
    FORMAT,
    MEDIA_SUFFIXES,
    TENSORS_SUFFIX,
    clip_facts,
    index_path,
    read_index,
    read_json,
    scan_shard,
    write_json,
)
from avtune.datasets.shards import DESCRIPTION, shard_path
from avtune.datasets.splits import digest
from avtune.files import appearing
from avtune.media import FilePart, MediaError, probe
from avtune.transforms import Damaged, Preprocessing

AHEAD_PER_WORKER = 4
"""Samples that each process may have ready before their turn comes, which bounds the memory."""

Sample: TypeAlias = tuple[tuple[int, Record], ...]
"""The clips of one file, or of one stretch of it, each with its number within its split."""


@dataclass(frozen=True)
class Shard:
    """What one shard will hold.

    Attributes:
        path: Its file.
        samples: In the order in which they are written.
    """

    path: Path
    samples: list[Sample] = field(default_factory=list)


@dataclass
class Written:
    """What the shards hold.

    Attributes:
        shards: Number of shards.
        samples: Number of samples in them.
        damaged: What is wrong with the files that were left out, by the names of their clips.
    """

    shards: int = 0
    samples: int = 0
    damaged: dict[str, str] = field(default_factory=dict)


def write_shards(
    collection: Collection,
    folder: Path,
    *,
    limit_bytes: int = 1_000_000_000,
    seed: int = 0,
    variant: str = "official",
    workers: int = 0,
    preprocessing: Preprocessing | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write all splits of a collection; the same call goes on where one was killed.

    Args:
        collection: Of clips that exist.
        folder: Where to; it is made if absent.
        limit_bytes: Most bytes of a shard, unless one sample alone has more.
        seed: Of the order of the samples, within shards and among them.
        variant: How the collection was split (``data.split``), for the record.
        workers: Processes that look into files, or decode them; a file that crashes or hangs one is damaged. 0: this
            process.
        preprocessing: Prepare the clips and write their tensors; ``None``: write the files as they are.
        progress: Called with the number of written and of all samples.

    Returns:
        What all shards hold, those of earlier calls included.

    Raises:
        DatasetError: The clips have no media file each, the limit is not positive, or the folder holds shards of other
            clips or settings.
    """
    if limit_bytes < 1:
        raise DatasetError(f"a shard of {limit_bytes} bytes holds nothing; set --gigabytes above 0")
    _refuse_sources(collection, preprocessing)
    shards, plan = _plan(collection, folder, limit_bytes, seed, preprocessing)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.tar.*"):
        leftover.unlink()
    description = _describe(collection, shards, preprocessing)
    _begin(folder, {**description, "plan": plan, "limit_bytes": limit_bytes, "seed": seed, "split": variant})
    todo = [shard for shard in shards if not _finished(shard.path)]
    samples = [sample for shard in todo for sample in shard.samples]
    total = sum(len(shard.samples) for shard in shards)

    def passed(done: int, of: int) -> None:
        if progress is not None:
            progress(total - of + done, total)

    content = partial(_content, preprocessing=preprocessing)
    with closing(
        stream_files(content, samples, workers, passed, ahead=AHEAD_PER_WORKER * max(workers, 1))
    ) as contents:
        for shard in todo:
            _write(shard, islice(contents, len(shard.samples)))
    return _sum(shards)


def _refuse_sources(collection: Collection, preprocessing: Preprocessing | None) -> None:
    for record in collection.records:
        if isinstance(record.source, PreparedFile):
            raise DatasetError(f"{collection.root}: its clips are in shards already, as tensors")
        if preprocessing is None and isinstance(record.source, FrameFolder):
            raise DatasetError(
                f"{record.name} is unpacked into pictures and sound, of which a shard can only hold the tensors; add "
                "--prepared"
            )


def _plan(
    collection: Collection, folder: Path, limit_bytes: int, seed: int, preprocessing: Preprocessing | None
) -> tuple[list[Shard], str]:
    """The shards, and a digest of what goes into which; each takes samples up to the limit, and at least one."""
    shards: list[Shard] = []
    plan = hashlib.sha256()
    for split, records in collection.splits.items():
        by_source: dict[tuple[ClipSource, float], list[tuple[int, Record]]] = {}
        for place, record in enumerate(records):
            start = 0.0 if preprocessing is None else record.start
            by_source.setdefault((record.source, start), []).append((place, record))
        samples = sorted(
            map(tuple, by_source.values()), key=lambda clips: digest(seed, split, str(clips[0][0]))
        )
        number, held = 0, 0
        for sample in samples:
            facts = _facts(sample)
            size = _tar_bytes(sample, len(facts), preprocessing)
            if number == 0 or held + size > limit_bytes - END_BYTES:
                shards.append(Shard(shard_path(folder, split, number)))
                plan.update(shards[-1].path.name.encode())
                number, held = number + 1, 0
            shards[-1].samples.append(sample)
            plan.update(facts)
            held += size
    return shards, plan.hexdigest()


END_BYTES = 2 * tarfile.RECORDSIZE
"""Most that a tar has behind its last member."""


def _tar_bytes(sample: Sample, facts_bytes: int, preprocessing: Preprocessing | None) -> int:
    """Most that a sample takes in a tar: each of its two files has a header (three, if its name is long)."""
    source = sample[0][1].source
    if preprocessing is not None:
        size = clip_bytes(preprocessing) + 4 * tarfile.BLOCKSIZE
    elif isinstance(source, FilePart):
        size = source.size
    else:
        assert isinstance(source, Path)
        size = source.stat().st_size
    return size + facts_bytes + 6 * tarfile.BLOCKSIZE


def _describe(
    collection: Collection, shards: Sequence[Shard], preprocessing: Preprocessing | None
) -> dict[str, Any]:
    """What the shards are."""
    splits = [shard.path.name.rpartition("-")[0] for shard in shards]
    masks = sum(record.masks is not None for record in collection.records)
    left_out = (f"the masks of {masks} clips are not in the shards",) if masks else ()
    return {
        "format": FORMAT,
        "reader": collection.name,
        "labels": list(collection.labels),
        "words": list(collection.words),
        "clip_seconds": collection.clip_seconds,
        "preprocessing": None if preprocessing is None else preprocessing.state(),
        "warnings": [*collection.warnings, *left_out],
        "shards": {split: splits.count(split) for split in collection.splits},
        "versions": versions(),
    }


def _begin(folder: Path, description: dict[str, Any]) -> None:
    """Say of what the shards are, or find it said."""
    path = folder / DESCRIPTION
    if not path.exists():
        write_json(path, description)
        return
    found = read_json(path)
    # Other versions of the libraries would write other bytes, but not other clips.
    same = isinstance(found, dict) and {**found, "versions": None} == {**description, "versions": None}
    if not same:
        raise DatasetError(
            f"{folder} holds shards of other clips or settings; write these into another folder, or give what those "
            "were made with"
        )


def _finished(shard: Path) -> bool:
    return shard.exists() and index_path(shard).exists()


def _content(sample: Sample, *, preprocessing: Preprocessing | None) -> float | bytes | Failure:
    """Worker side: the length of a media file in seconds, or a clip's tensors."""
    record = sample[0][1]
    if preprocessing is not None:
        prepared = prepare(record, preprocessing)
        return Failure(prepared.problem) if isinstance(prepared, Damaged) else pack(prepared)
    assert isinstance(record.source, Path | FilePart)
    if (suffix := _suffix(record.source)) not in MEDIA_SUFFIXES:
        return Failure(f"its name ends with {suffix or 'no suffix'}, which is no video's")
    try:
        return probe(record.source).duration
    except MediaError as error:
        return _failure(error)


def _failure(error: MediaError | OSError) -> Failure:
    return Failure(f"{error.problem}; {error.remedy}" if isinstance(error, MediaError) else str(error))


def _write(shard: Shard, contents: Iterator[float | bytes | Failure]) -> None:
    damaged: dict[str, str] = {}
    with appearing(shard.path) as partial, tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        for sample, content in zip(shard.samples, contents, strict=True):
            place, record = sample[0]
            files = content if isinstance(content, Failure) else _files(sample, content)
            if isinstance(files, Failure):
                damaged[record.name] = files.reason
                continue
            for suffix, file in files.items():
                # Neither the time nor the owner: equal clips make equal shards.
                member = tarfile.TarInfo(f"{place:08d}{suffix}")
                member.size = len(file)
                tar.addfile(member, io.BytesIO(file))
    index = scan_shard(shard.path)
    index.damaged.update(damaged)
    index.write(shard.path)


def _files(sample: Sample, content: float | bytes) -> dict[str, bytes] | Failure:
    """What a shard holds of a sample, by suffix."""
    source = sample[0][1].source
    if isinstance(content, bytes):
        # These have a checksum of their own.
        return {TENSORS_SUFFIX: content, FACTS_SUFFIX: _facts(sample)}
    assert isinstance(source, Path | FilePart)
    try:
        media = source.read() if isinstance(source, FilePart) else source.read_bytes()
    except (MediaError, OSError) as error:
        return _failure(error)
    return {_suffix(source): media, FACTS_SUFFIX: _facts(sample, content, zlib.crc32(media))}


def _suffix(source: Path | FilePart) -> str:
    return os.path.splitext(source.name)[1].lower()


def _facts(sample: Sample, duration: float | None = None, checksum: int | None = None) -> bytes:
    clips = [clip_facts(record, place) for place, record in sample]
    known = {} if checksum is None else {"checksum": checksum}
    return json.dumps({"avtune": FORMAT, "duration": duration, **known, "clips": clips}).encode("ascii")


def _sum(shards: Sequence[Shard]) -> Written:
    written = Written(len(shards))
    for shard in shards:
        index = read_index(shard.path)
        written.samples += len(index.samples)
        written.damaged |= index.damaged
    return written
