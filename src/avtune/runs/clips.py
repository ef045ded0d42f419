"""The clips of a run: read, cut to the model's length, decoded once where they fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from avtune.config import DataConfig, PretrainingRunConfig, RunConfig
from avtune.datasets import Collection, DatasetError, Record, existing, read
from avtune.datasets.clips import ClipDataset, clip_bytes, distinct_clips, prepare_all
from avtune.datasets.disk_cache import DiskCache
from avtune.datasets.manifest import restrict
from avtune.datasets.sections import cut
from avtune.datasets.subsets import restrict_test
from avtune.tasks import Task
from avtune.train import Observer
from avtune.train.order import Order, shuffled, together
from avtune.transforms import Damaged, Prepared, Preprocessing

CLIPS_WORTH_A_WORKER = 16
MEMORY_LIMIT_BYTES = 2_000_000_000


class RunObserver(Observer):
    """Watches a whole run; the command line shows progress bars through one."""

    def reading(self, clips: int) -> Callable[[int, int], None] | None:
        """``clips`` clips are about to be read; the answer is called with (done, all)."""
        return None

    def sharding(self, samples: int) -> Callable[[int, int], None] | None:
        """``samples`` samples are about to be written into shards; the answer is called with (done, all)."""
        return None

    def scoring(self, what: str, clips: int) -> Callable[[int], None] | None:
        """``clips`` clips are about to be scored; the answer is called with the number just done."""
        return None


@dataclass
class Clips:
    """The clips of a run, prepared.

    Attributes:
        collection: Labels, and the records of each split that are on disk.
        splits: A dataset for each split that has clips.
    """

    collection: Collection
    splits: dict[str, ClipDataset]


class Prepares(Protocol):
    """What says how clips are prepared and what their truth is: a model, or what stands for one."""

    preprocessing: Preprocessing
    task: Task


def prepare_clips(
    config: RunConfig | PretrainingRunConfig,
    model: Prepares,
    collection: Collection,
    observer: RunObserver,
    splits: tuple[str, ...] = ("train", "validation", "test"),
) -> Clips:
    """Make datasets of a collection's splits, decoding every clip once where all fit in memory or on disk.

    Raises:
        DatasetError: ``data.cache_folder`` cannot be used, or the clips were prepared for another model.
    """
    _refuse_other_tensors(collection, model.preprocessing)
    present = {split: records for split in splits if (records := collection.splits.get(split, ()))}
    everything = [record for records in present.values() for record in records]
    disk = _disk_cache(config, observer)
    prepared: list[Prepared | Damaged] | None = None
    clips = distinct_clips(everything)
    size = clips * clip_bytes(model.preprocessing)
    if config.data.cache and size > MEMORY_LIMIT_BYTES:
        then = "read anew each time" if disk is None else f"read from {disk.folder} each time"
        observer.message(f"{clips} prepared clips would take {size / 1e9:.1f} GB of memory: they are {then}")
    elif config.data.cache:
        # Starting a process costs as much as reading some clips.
        workers = min(config.data.workers, clips // CLIPS_WORTH_A_WORKER)
        prepared = prepare_all(everything, model.preprocessing, workers, observer.reading(clips), disk)
    datasets, first = {}, 0
    for split, records in present.items():
        mine = None if prepared is None else prepared[first : first + len(records)]
        datasets[split] = ClipDataset(
            records, model.preprocessing, model.task.target, model.task.question, prepared=mine, disk=disk
        )
        first += len(records)
    return Clips(collection, datasets)


def _refuse_other_tensors(collection: Collection, preprocessing: Preprocessing) -> None:
    """Stored tensors fit a model only if its own preprocessing made them."""
    if collection.preprocessing is None:
        return
    found, wanted = collection.preprocessing, preprocessing.state()
    if Preprocessing.from_state(found) != preprocessing:
        other = ", ".join(name for name, value in wanted.items() if found[name] != value)
        raise DatasetError(
            f"{collection.root}: its clips were prepared for a model with other inputs ({other}); prepare them with "
            "this run's recipe and settings, or train from shards of media files"
        )


def clip_order(data: DataConfig, records: Sequence[Record]) -> Order:
    """The order of an epoch that shows each clip once.

    Args:
        data: ``shards_at_once``.
        records: The clips.
    """
    if data.shards_at_once is None:
        return shuffled(len(records))
    return together([record.files for record in records], data.shards_at_once)


def scored_split(collection: Collection) -> str:
    """The split that a run is scored on in the end: ``test``, or ``validation`` where there is none.

    Raises:
        DatasetError: There is neither; no clip would be left to score with.
    """
    for split in ("test", "validation"):
        if collection.splits.get(split):
            return split
    raise DatasetError(
        f"{collection.root}: no clip is held out to score with; add clips until a label has two, or raise "
        "data.test_share"
    )


def refuse_without(collection: Collection, split: str) -> None:
    """Refuse a split that holds no clip.

    Raises:
        DatasetError: It does not; those that do are named.
    """
    if not collection.splits.get(split):
        there = ", ".join(name for name, records in collection.splits.items() if records)
        raise DatasetError(f"{collection.root}: there is no {split} split; it has {there}")


def _disk_cache(config: RunConfig | PretrainingRunConfig, observer: RunObserver) -> DiskCache | None:
    if config.data.cache_folder is None:
        return None
    disk = DiskCache.open(config.data.cache_folder, config.data.cache_gigabytes)
    used = disk.used_bytes / 1e9
    observer.message(f"{disk.folder}: prepared clips take {used:.2f} of {config.data.cache_gigabytes:g} GB")
    return disk


def find_clips(data: DataConfig) -> Collection:
    """The clips of a dataset that are on disk and that its manifest does not leave out.

    Raises:
        DatasetError: See :func:`avtune.datasets.read` and :func:`avtune.datasets.existing`.
    """
    collection = existing(read(data))
    return collection if data.manifest is None else restrict(collection, Path(data.manifest))


def read_collection(config: RunConfig | PretrainingRunConfig, observer: RunObserver) -> Collection:
    """Read a run's dataset and say what is to be said about it; files longer than one input become several clips.

    Raises:
        DatasetError: It is not there, or holds nothing to train on.
    """
    collection = restrict_test(find_clips(config.data), config.data)
    collection = cut(collection, config.input.segments, config.input.segment_seconds)
    for warning in collection.warnings:
        observer.message(warning)
    if collection.missing:
        observer.message(
            f"{len(collection.missing)} annotated clips are not on disk, first {collection.missing[0]}; going on with "
            f"{len(collection.records)}"
        )
    if not collection.splits.get("train"):
        raise DatasetError(f"{collection.root}: no clip to train on; check data.root and data.name")
    counts = ", ".join(f"{len(records)} {split}" for split, records in collection.splits.items())
    observer.message(f"clips: {counts}")
    return collection
