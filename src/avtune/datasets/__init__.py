"""Index to samples: one file per dataset, all returning a :class:`~avtune.datasets.records.Collection`.

``read`` only reads annotations. ``existing`` then drops the clips that are not on disk, ``check`` opens every
file, and ``avtune.datasets.clips`` turns records into tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from avtune.config import DataConfig
from avtune.datasets import audioset, ave, crema_d, folder, kinetics_sound, llp, music_avqa, table, vggsound
from avtune.datasets.bandstand import reader as bandstand
from avtune.datasets.records import (
    BACKGROUND,
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

READERS: Mapping[str, Callable[[DataConfig], Collection]] = {
    "audioset": audioset.read,
    "ave": ave.read,
    "bandstand": bandstand.read,
    "crema_d": crema_d.read,
    "kinetics_sound": kinetics_sound.read,
    "llp": llp.read,
    "music_avqa": music_avqa.read,
    "vggsound": vggsound.read,
    "folder": folder.read,
    "csv": table.read,
}
"""Readers by the name that ``data.name`` of a recipe gives."""


def read(config: DataConfig) -> Collection:
    """Read the dataset that a configuration names.

    Args:
        config: ``name`` is a key of :data:`READERS`; the rest is the reader's.

    Returns:
        Its clips, not yet looked for on disk.

    Raises:
        DatasetError: The name is unknown, or the dataset is not as its reader needs it.
    """
    if config.name not in READERS:
        near = get_close_matches(config.name, READERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(READERS)}"
        raise DatasetError(f"dataset {config.name!r} is unknown; {hint}")
    return READERS[config.name](config)


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
