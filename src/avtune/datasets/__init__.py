"""Index to samples: one file per dataset, all returning a :class:`~avtune.datasets.records.Collection`.

``read`` only reads annotations. ``existing`` then drops the clips that are not on disk, ``check`` opens every
file, and ``avtune.datasets.clips`` turns records into tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from avtune.config import DataConfig
from avtune.datasets import (
    audioset,
    ave,
    avsbench,
    crema_d,
    folder,
    heard_seen,
    kinetics_sound,
    llp,
    msrvtt,
    music_avqa,
    questions,
    shards,
    table,
    vggsound,
)
from avtune.datasets.bandstand import classes as bandstand_classes
from avtune.datasets.bandstand import pairs as bandstand_pairs
from avtune.datasets.bandstand import reader as bandstand
from avtune.datasets.records import (
    BACKGROUND,
    SPLITS,
    Collection,
    DatasetError,
    Event,
    FrameFolder,
    MaskFiles,
    Question,
    Record,
    existing,
    segment_labels,
)

WITHOUT_VARIANTS = frozenset({
    "bandstand_classes", "csv", "folder", "heard_seen", "kinetics_sound", "llp", "questions", "vggsound"
})  # fmt: skip
"""Readers that know one way to split their clips."""

READERS: Mapping[str, Callable[[DataConfig], Collection]] = {
    "audioset": audioset.read,
    "ave": ave.read,
    "avsbench_s4": avsbench.read_s4,
    "avsbench_ms3": avsbench.read_ms3,
    "avsbench_semantic": avsbench.read_semantic,
    "bandstand": bandstand.read,
    "bandstand_classes": bandstand_classes.read,
    "bandstand_pairs": bandstand_pairs.read,
    "crema_d": crema_d.read,
    "kinetics_sound": kinetics_sound.read,
    "llp": llp.read,
    "msrvtt": msrvtt.read,
    "music_avqa": music_avqa.read,
    "questions": questions.read,
    "vggsound": vggsound.read,
    "folder": folder.read,
    "csv": table.read,
    "heard_seen": heard_seen.read,
    "shards": shards.read,
}
"""Readers by the name that ``data.name`` of a recipe gives."""


def read(config: DataConfig) -> Collection:
    """Read the dataset that a configuration names.

    Args:
        config: ``name`` is a key of :data:`READERS`; the rest is the reader's.

    Returns:
        Its clips, not yet looked for on disk.

    Raises:
        DatasetError: The name or ``split`` is unknown, or the dataset is not as its reader needs it.
    """
    if config.name not in READERS:
        near = get_close_matches(config.name, READERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(READERS)}"
        raise DatasetError(f"dataset {config.name!r} is unknown; {hint}")
    if config.name in WITHOUT_VARIANTS and config.split != "official":
        raise DatasetError(
            f"the dataset {config.name} has one split, not {config.split!r}; leave data.split out"
        )
    if config.shards_at_once is not None and config.name != "shards":
        raise DatasetError(f"data.shards_at_once is for the dataset shards, not {config.name}; leave it out")
    collection = READERS[config.name](config)
    if unknown := set(collection.splits) - set(SPLITS):
        raise DatasetError(
            f"the reader {config.name} names a split {min(unknown)!r}, which nothing reads; use {', '.join(SPLITS)}"
        )
    return collection


__all__ = [
    "BACKGROUND",
    "READERS",
    "Collection",
    "DatasetError",
    "Event",
    "FrameFolder",
    "MaskFiles",
    "Question",
    "Record",
    "existing",
    "read",
    "segment_labels",
]
