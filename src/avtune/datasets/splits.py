"""Held-out splits that avtune makes itself, for collections that come without."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

from avtune.config import DataConfig
from avtune.datasets.records import SPLITS, Record


def _file(record: Record) -> Hashable:
    return record.source


def complete(
    given: Mapping[str, Sequence[Record]],
    config: DataConfig,
    recording: Callable[[Record], Hashable] = _file,
) -> tuple[dict[str, tuple[Record, ...]], tuple[str, ...]]:
    """Hold a test and a validation split out of train where the collection has none.

    Args:
        given: The splits that exist; ``train`` has to.
        config: ``test_share``, ``validation_share`` (of what is left for training) and ``split_seed``.
        recording: See :func:`hold_out`.

    Returns:
        ``train``, ``validation`` and ``test``, and what a user should know about them.
    """
    train = list(given["train"])
    held: dict[str, list[Record]] = {}
    warnings: list[str] = []
    for split, share in (("test", config.test_share), ("validation", config.validation_share)):
        held[split] = list(given.get(split, ()))
        if held[split]:
            continue
        wanted = _labels(train)
        train, held[split] = hold_out(train, share, config.split_seed, split, recording)
        if share > 0 and not held[split]:
            warnings.append(
                f"no {split} split: {len(train)} clips are of too few recordings to hold any out; "
                "add clips until a label has two"
            )
        elif share > 0 and (absent := sorted(wanted - _labels(held[split]))):
            warnings.append(
                f"the held-out {split} split has no clip of {', '.join(absent)}; add clips of them"
            )
    splits = {"train": train, "validation": held["validation"], "test": held["test"]}
    return {name: tuple(records) for name, records in splits.items()}, tuple(warnings)


def complete_or_score(
    given: Mapping[str, Sequence[Record]],
    config: DataConfig,
    untrained: str,
    recording: Callable[[Record], Hashable] = _file,
) -> tuple[dict[str, tuple[Record, ...]], tuple[str, ...]]:
    """:func:`complete`, also for a collection without training clips, which stays as it is and can only be scored.

    Args:
        given: The splits that exist; ``train`` has to, and may be empty.
        config: See :func:`complete`.
        untrained: What a user should know where there is nothing to train on.
        recording: See :func:`hold_out`.
    """
    if given["train"]:
        return complete(given, config, recording)
    return {split: tuple(given.get(split, ())) for split in SPLITS}, (untrained,)


def hold_out(
    records: Sequence[Record],
    share: float,
    seed: int,
    purpose: str,
    recording: Callable[[Record], Hashable] = _file,
) -> tuple[list[Record], list[Record]]:
    """Divide clips, label by label, without ever dividing a recording.

    The recordings of a label are put in an order that follows from the seed and the names of their first clips alone,
    and the first ones are held out: the same on every machine, and hardly changed by clips that are added later. Every
    label keeps at least one clip on the training side.

    Args:
        records: Clips to divide.
        share: Part of the recordings that is held out, in [0, 1).
        seed: Which of the possible divisions.
        purpose: Name of the held-out split; divisions for different purposes are independent.
        recording: What a clip was cut from, the same for all clips that have to stay together: its file, or more where
            the dataset tells it.

    Returns:
        The clips kept and the clips held out, both in their original order.
    """
    recordings: dict[Hashable, list[Record]] = defaultdict(list)
    for record in records:
        recordings[recording(record)].append(record)
    strata: dict[str, list[Hashable]] = defaultdict(list)
    for key, clips in recordings.items():
        strata[_main_label(clips)].append(key)
    held: dict[Hashable, None] = {}
    quotas = _quotas({label: len(strata[label]) for label in sorted(strata)}, share)
    for label, number in quotas.items():
        order = sorted(strata[label], key=lambda key: digest(seed, purpose, recordings[key][0].name))
        held.update(dict.fromkeys(order[:number]))
    kept = _labels([record for key, clips in recordings.items() if key not in held for record in clips])
    for label in sorted(_labels(records) - kept):
        if label not in kept:
            back = next(key for key in held if label in _labels(recordings[key]))
            del held[back]
            kept |= _labels(recordings[back])
    sides: tuple[list[Record], list[Record]] = ([], [])
    for record in records:
        sides[recording(record) in held].append(record)
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
    """The label that lasts longest in a recording; empty where nothing happens."""
    lasting: dict[str, float] = defaultdict(float)
    for record in clips:
        for event in record.events:
            lasting[event.label] += min(event.end, 1e9) - event.start
    return min(lasting, key=lambda label: (-lasting[label], label)) if lasting else ""


def digest(seed: int, purpose: str, name: str) -> bytes:
    """By what names are put into an order that follows from a seed and a purpose alone."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode(errors="surrogateescape")).digest()
