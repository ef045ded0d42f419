"""Which of a set's test clips are scored: a published list of names, or as many of each class."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets.records import Collection, DatasetError, Record
from avtune.datasets.splits import digest


def restrict_test(collection: Collection, config: DataConfig) -> Collection:
    """Keep the test clips that a configuration asks for; the other splits stay as they are.

    Args:
        collection: As a reader returns it.
        config: ``test_list``, ``test_per_class`` and ``split_seed``. Where both are given, the list comes first.

    Returns:
        The collection, with a warning that says how many test clips are left.

    Raises:
        DatasetError: The list cannot be read, or no clip is left.
    """
    records = collection.splits.get("test", ())
    chosen = records
    if config.test_list is not None:
        names = _names(Path(config.test_list).expanduser())
        chosen = tuple(record for record in chosen if record.name in names)
        if not chosen:
            raise DatasetError(
                f"{config.test_list} names none of the {len(records)} test clips, such as "
                f"{records[0].name if records else 'none'}; write one of their names a line"
            )
    if config.test_per_class is not None:
        chosen = _per_class(chosen, config.test_per_class, config.split_seed)
    if chosen == records:
        return collection
    warning = f"{len(chosen)} of {len(records)} test clips are scored (data.test_list, data.test_per_class)"
    return replace(
        collection,
        splits={**collection.splits, "test": chosen},
        warnings=(*collection.warnings, warning),
    )


def _per_class(records: tuple[Record, ...], number: int, seed: int) -> tuple[Record, ...]:
    """The first clips of each class in an order that follows from the seed and the names, as they stood."""
    classes: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.events:
            classes[record.events[0].label].append(record)
    kept = {
        record.name
        for members in classes.values()
        for record in sorted(members, key=lambda record: digest(seed, "subset", record.name))[:number]
    }
    return tuple(record for record in records if record.name in kept)


def _names(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as UTF-8 text ({error}); write one name a line") from None
    return {line.strip() for line in lines if line.strip()}
