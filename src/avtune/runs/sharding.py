"""A dataset packed into tar shards: its files, or what a recipe's model takes of them."""

from __future__ import annotations

from pathlib import Path

from avtune.config import PretrainingRunConfig, RunConfig
from avtune.datasets import Collection
from avtune.datasets.sections import cut
from avtune.datasets.shard_writing import Written, write_shards
from avtune.model import AudioVisualModel
from avtune.runs.clips import RunObserver, find_clips
from avtune.runs.pretraining import complete, prepare
from avtune.transforms import Preprocessing


def shard_dataset(
    config: RunConfig | PretrainingRunConfig,
    folder: Path,
    *,
    prepared: bool,
    gigabytes: float,
    seed: int,
    workers: int,
    observer: RunObserver | None = None,
) -> Written:
    """Write a dataset's shards; the same call goes on where one was killed.

    Args:
        config: ``data`` says which; with ``prepared`` the rest says how clips become tensors.
        folder: Where to.
        prepared: Write tensors, of files longer than one input several, instead of the files.
        gigabytes: Most of a shard, in units of 10^9 bytes.
        seed: Of the order of the clips.
        workers: Processes that read files.
        observer: Who watches.

    Returns:
        What the shards hold.

    Raises:
        AvtuneError: The dataset is not there, or see :func:`avtune.datasets.shard_writing.write_shards`.
    """
    observer = observer or RunObserver()
    collection = find_clips(config.data)
    preprocessing = None
    if prepared:
        collection = cut(collection, config.input.segments, config.input.segment_seconds)
        preprocessing = _preprocessing(config, collection)
    for warning in collection.warnings:
        observer.message(warning)
    if collection.missing:
        observer.message(
            f"{len(collection.missing)} clips are not on disk and left out, first {collection.missing[0]}"
        )
    return write_shards(
        collection, folder, limit_bytes=int(gigabytes * 1e9), seed=seed, variant=config.data.split,
        workers=workers, preprocessing=preprocessing, progress=observer.sharding(len(collection.records)),
    )  # fmt: skip


def _preprocessing(config: RunConfig | PretrainingRunConfig, collection: Collection) -> Preprocessing:
    if isinstance(config, PretrainingRunConfig):
        return prepare(complete(config), collection.labels).preprocessing
    model = AudioVisualModel(config, collection.labels, words=collection.words, device="meta", begin=False)
    return model.preprocessing
