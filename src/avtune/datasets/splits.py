"""Held-out splits that avtune makes itself, for collections that come without."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from avtune.config import DataConfig
from avtune.datasets.records import SPLITS, ClipSource, DatasetError, Record


def complete(
    given: Mapping[str, Sequence[Record]], config: DataConfig
) -> tuple[dict[str, tuple[Record, ...]], tuple[str, ...]]:
    """Hold a test and a validation split out of train where the collection has none.

    Args:
        given: The splits that exist; ``train`` has to.
        config: ``test_share``, ``validation_share`` (of what is left for training) and ``split_seed``.

    Returns:
        ``train``, ``validation`` and ``test``, and what a user should know about them.

    Raises:
        DatasetError: A share is outside [0, 1).
    """
    train = list(given["train"])
    held: dict[str, list[Record]] = {}
    warnings: list[str] = []
    for split, share in (("test", config.test_share), ("validation", config.validation_share)):
        held[split] = list(given.get(split, ()))
        if held[split]:
            continue
        wanted = _labels(train)
        train, held[split] = hold_out(train, share, config.split_seed, split)
        if share > 0 and not held[split]:
            warnings.append(
                f"no {split} split: {len(train)} clips are too few to hold any out; "
                "add clips until a label has two"
            )
        elif share > 0 and (absent := sorted(wanted - _labels(held[split]))):
            warnings.append(
                f"the held-out {split} split has no clip of {', '.join(absent)}; add clips of them"
            )
    splits = {"train": train, "validation": held["validation"], "test": held["test"]}
    return {name: tuple(records) for name, records in splits.items()}, tuple(warnings)


def complete_or_score(
    given: Mapping[str, Sequence[Record]], config: DataConfig, untrained: str
) -> tuple[dict[str, tuple[Record, ...]], tuple[str, ...]]:
    """:func:`complete`, also for a collection without training clips, which stays as it is and can only be scored.

    Args:
        given: The splits that exist; ``train`` has to, and may be empty.
        config: See :func:`complete`.
        untrained: What a user should know where there is nothing to train on.
    """
    if given["train"]:
        return complete(given, config)
    return {split: tuple(given.get(split, ())) for split in SPLITS}, (untrained,)


def hold_out(
    records: Sequence[Record], share: float, seed: int, purpose: str
) -> tuple[list[Record], list[Record]]:
    """Divide clips, label by label, without ever dividing a file.

    The files of a label are put in an order that follows from the seed and their names alone, and the first
    ones are held out: the same on every machine, and hardly changed by clips that are added later. Every
    label keeps at least one clip on the training side.

    Args:
        records: Clips to divide; those with one source stay together.
        share: Part of the files that is held out, in [0, 1).
        seed: Which of the possible divisions.
        purpose: Name of the held-out split; divisions for different purposes are independent.

    Returns:
        The clips kept and the clips held out, both in their original order.

    Raises:
        DatasetError: ``share`` is outside [0, 1).
    """
    if not 0 <= share < 1:
        raise DatasetError(f"{purpose}_share is {share:g}; choose a share of at least 0 and below 1")
    files: dict[ClipSource, list[Record]] = defaultdict(list)
    for record in records:
        files[record.source].append(record)
    strata: dict[str, list[ClipSource]] = defaultdict(list)
    for key, clips in files.items():
        strata[_main_label(clips)].append(key)
    held: dict[ClipSource, None] = {}
    quotas = _quotas({label: len(strata[label]) for label in sorted(strata)}, share)
    for label, number in quotas.items():
        order = sorted(strata[label], key=lambda key: digest(seed, purpose, files[key][0].name))
        held.update(dict.fromkeys(order[:number]))
    kept = _labels([record for key, clips in files.items() if key not in held for record in clips])
    for label in sorted(_labels(records) - kept):
        if label not in kept:
            back = next(key for key in held if label in _labels(files[key]))
            del held[back]
            kept |= _labels(files[back])
    sides: tuple[list[Record], list[Record]] = ([], [])
    for record in records:
        sides[record.source in held].append(record)
    return sides


def _quotas(sizes: Mapping[str, int], share: float) -> dict[str, int]:
    """How many of each stratum are held out: largest remainders, and one of each stratum always kept."""
    quotas = {label: min(int(share * size), size - 1) for label, size in sizes.items()}
    target = max(round(share * sum(sizes.values())), 1 if share > 0 else 0)
    by_remainder = sorted(
        sizes, key=lambda label: (quotas[label] - share * sizes[label], -sizes[label], label)
    )
    for label in by_remainder:
        if sum(quotas.values()) < target and quotas[label] < sizes[label] - 1:
            quotas[label] += 1
    return quotas


def _labels(records: Sequence[Record]) -> set[str]:
    return {event.label for record in records for event in record.events}


def _main_label(clips: Sequence[Record]) -> str:
    """The label that lasts longest in a file; empty where nothing happens."""
    lasting: dict[str, float] = defaultdict(float)
    for record in clips:
        for event in record.events:
            lasting[event.label] += min(event.end, 1e9) - event.start
    return min(lasting, key=lambda label: (-lasting[label], label)) if lasting else ""


def digest(seed: int, purpose: str, name: str) -> bytes:
    """By what names are put into an order that follows from a seed and a purpose alone."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode(errors="surrogateescape")).digest()
