"""Clips in tar shards: those of ``avtune data shard`` with all their truths, and any in WebDataset's form.

Each clip is read where it lies, by its shard and its place in it, which the shards' indexes tell. So clips of shards
have numbers like those of folders, and order, resuming and sharing out over processes are the same.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets.folder import SPLIT_FOLDERS
from avtune.datasets.pool import Failure, Progress, map_files
from avtune.datasets.records import (
    SPLITS,
    ClipSource,
    Collection,
    DatasetError,
    PreparedFile,
    Record,
    alike,
)
from avtune.datasets.shard_index import (
    FORMAT,
    ShardIndex,
    damaged_index,
    index_path,
    read_index,
    read_json,
    record_of,
    scan_shard,
)
from avtune.datasets.splits import complete

DESCRIPTION = "shards.json"
"""What ``avtune data shard`` writes first: of what the shards are, and how many there will be."""


def shard_path(folder: Path, split: str, number: int) -> Path:
    """The file of a split's shard."""
    return folder / f"{split}-{number:06d}.tar"


def read(config: DataConfig) -> Collection:
    """Read shards; none of them is opened, only their indexes are.

    Shards of ``avtune data shard`` give the clips of the collection that they were made of, in the same order. Others
    belong to the split that their file's name, or the folder above it, begins with (``val``, ``test``; else ``train``),
    and splits that do not exist are held out of train.

    Args:
        config: ``root``; for shards that others wrote also ``validation_share``, ``test_share``, ``split_seed``.

    Returns:
        The clips.

    Raises:
        DatasetError: The root is no folder of shards, a shard has no index, or an index is damaged.
    """
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; point the root at a folder of .tar shards")
    own = (root / DESCRIPTION).exists()
    with _without_collecting():
        collection, variant = _own(config.name, root) if own else (_foreign(config, root), "official")
    # A recipe states how its dataset is split; whether shards are of that one was settled when they were written.
    if config.split not in ("official", variant):
        raise DatasetError(
            f"{root} holds shards of the split {variant}, not {config.split}; set data.split={variant}, or write others"
        )
    return collection


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Millions of objects are made of which none is garbage; looking for it again and again takes most of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@dataclass(frozen=True)
class Indexed:
    """What :func:`index_shards` did.

    Attributes:
        shards: Number of shards that have an index now.
        samples: Number of samples in those that were indexed by this call.
        damaged: What is wrong with samples, or with whole shards, that are left out.
    """

    shards: int
    samples: int
    damaged: dict[str, str]


def index_shards(root: Path, workers: int = 0, progress: Progress | None = None) -> Indexed:
    """Walk once over the headers of all shards that have no index, and keep what was found beside each.

    Args:
        root: A folder of tar files, in folders or not.
        workers: Processes that read; 0: this one.
        progress: Called with the number of finished and of all shards.

    Raises:
        DatasetError: There is no shard, or an index cannot be written.
    """
    shards = _tars(root)
    todo = [shard for shard in shards if not index_path(shard).exists()]
    damaged: dict[str, str] = {}
    samples = 0
    for shard, answer in zip(todo, map_files(scan_shard, todo, workers, progress), strict=True):
        name = shard.relative_to(root).as_posix()
        if isinstance(answer, Failure):
            damaged[name] = answer.reason
            continue
        try:
            answer.write(shard)
        except OSError as error:
            raise DatasetError(
                f"{index_path(shard)} cannot be written ({error.strerror}); index the shards where you may write"
            ) from None
        damaged |= {f"{name}/{key}": problem for key, problem in answer.damaged.items()}
        samples += len(answer.samples)
    return Indexed(sum(index_path(shard).exists() for shard in shards), samples, damaged)


def _tars(root: Path) -> list[Path]:
    shards = sorted(
        path
        for path in root.rglob("*.tar")
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not shards:
        raise DatasetError(f"{root} holds no .tar file; point the root at a folder of shards")
    return shards


def _own(name: str, root: Path) -> tuple[Collection, str]:
    """The clips, and the split variant that they were written with."""
    description = read_json(root / DESCRIPTION)
    try:
        if description["format"] != FORMAT:
            raise DatasetError(
                f"{root / DESCRIPTION} is of format {description['format']}, this avtune reads {FORMAT}; write the "
                "shards anew"
            )
        wanted = {
            split: [
                shard_path(root, split, number) for number in range(int(description["shards"].get(split, 0)))
            ]
            for split in SPLITS
        }
        clip_seconds, preprocessing = description["clip_seconds"], description["preprocessing"]
        variant = str(description["split"])
        prepared = preprocessing is not None
        collection = Collection(
            name, root, tuple(map(str, description["labels"])), {},
            warnings=tuple(map(str, description["warnings"])),
            clip_seconds=None if clip_seconds is None or prepared else float(clip_seconds),
            words=tuple(map(str, description["words"])),
            preprocessing=dict(preprocessing) if prepared else None,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{root / DESCRIPTION} is damaged ({error!r}); write the shards into another folder"
        ) from None
    _require_indexes(
        root,
        [shard for of_split in wanted.values() for shard in of_split],
        "run the `avtune data shard` that began them again",
    )
    found = _Found()
    splits = {split: found.add(of_split, prepared) for split, of_split in wanted.items()}
    ordered = {split: sorted(pairs, key=lambda pair: pair[0]) for split, pairs in splits.items()}
    whole = replace(
        collection,
        splits={split: tuple(record for _, record in pairs) for split, pairs in ordered.items()},
        warnings=(*collection.warnings, *found.warnings()),
    )
    return whole, variant


def _foreign(config: DataConfig, root: Path) -> Collection:
    shards = _tars(root)
    _require_indexes(root, shards, f"run `avtune data index {root}` once")
    found = _Found()
    given: dict[str, list[Record]] = {"train": []}
    for shard in shards:
        records = given.setdefault(_split(shard.relative_to(root)), [])
        records += [record for _, record in found.add([shard], prepared=False)]
    labels = {label for records in given.values() for record in records for label in record.truths}
    splits, notes = complete(given, config)
    warnings = (*alike(sorted(labels)), *notes, *found.warnings())
    return Collection(config.name, root, tuple(sorted(labels)), splits, warnings)


def _require_indexes(root: Path, shards: Sequence[Path], remedy: str) -> None:
    bare = [shard for shard in shards if not index_path(shard).exists()]
    if bare:
        raise DatasetError(
            f"{root}: {len(bare)} of {len(shards)} shards have no index, first {bare[0].name}; {remedy}"
        )


def _split(shard: Path) -> str:
    """Of a shard's path below the root: what the innermost of its parts says that names a split."""
    for part in reversed(shard.parts):
        word = re.match(r"[a-z]*", part.lower())
        if word is not None and word.group() in SPLIT_FOLDERS:
            return SPLIT_FOLDERS[word.group()]
    return "train"


@dataclass
class _Found:
    """Reads indexes and remembers which samples they leave out."""

    damaged: dict[str, str] = field(default_factory=dict)

    def add(self, shards: Sequence[Path], prepared: bool) -> list[tuple[int, Record]]:
        """The clips of shards, each with its place in its split where one is stated."""
        pairs: list[tuple[int, Record]] = []
        for shard in shards:
            index = read_index(shard)
            self.damaged |= index.damaged
            pairs += _records(shard, index, prepared)
        return pairs

    def warnings(self) -> tuple[str, ...]:
        """One line for all that is left out."""
        if not self.damaged:
            return ()
        name, problem = next(iter(self.damaged.items()))
        return (f"{len(self.damaged)} samples are left out of the shards, first {name}: {problem}",)


def _records(shard: Path, index: ShardIndex, prepared: bool) -> Iterator[tuple[int, Record]]:
    for sample in index.samples:
        source: ClipSource = PreparedFile(sample.part) if prepared else sample.part
        for clip in sample.clips:
            try:
                yield int(clip.get("place", 0)), record_of(clip, source)
            except (ValueError, TypeError) as error:
                raise damaged_index(shard, error) from None
