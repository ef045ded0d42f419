"""Bandstand for retrieval: the clips whose sound and picture belong together, each with its class."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from avtune.config import DataConfig
from avtune.datasets.bandstand import reader
from avtune.datasets.records import Collection, DatasetError

PAIRS = "retrieval.json"


def read(config: DataConfig) -> Collection:
    """Read the pairs of a bandstand set; no media file is opened.

    Clips without an event are left out: what is heard in them does not belong to what is seen. Clips of one class
    are each other's hardest distractors.

    Args:
        config: ``root``; ``split`` as for AVE.

    Returns:
        The pairs of each split; the label of a record's event is its class.

    Raises:
        DatasetError: A file that is needed is absent or damaged; the message names it.
    """
    collection = reader.read(config)
    path = collection.root / PAIRS
    known = {record.name: record for record in collection.records}
    splits = {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for split, records in collection.splits.items():
            pairs = {str(name) for name in content[split]["pairs"]}
            if unknown := sorted(pairs - known.keys()):
                raise DatasetError(
                    f"{path} names {unknown[0]!r}, which is no clip of the set; render it again"
                )
            splits[split] = tuple(record for record in records if record.name in pairs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{path} cannot be read ({type(error).__name__}: {error}); render the set again"
        ) from None
    if without := [record.name for records in splits.values() for record in records if not record.events]:
        raise DatasetError(f"{path} pairs {without[0]!r}, which has no event; render the set again")
    return replace(collection, splits=splits)
