"""Which numbers settings can have; a setting that is not listed can have any of its type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from avtune.errors import AvtuneError


class Range(NamedTuple):
    """Some numbers.

    Attributes:
        words: Which, behind "set it to".
        holds: Whether a number is one of them; ``nan`` never is.
    """

    words: str
    holds: Callable[[float], bool]


NOT_NEGATIVE = Range("0 or more", lambda number: number >= 0)
POSITIVE = Range("a number above 0", lambda number: number > 0)
COUNT = Range("1 or more", lambda number: number >= 1)
SHARE = Range("a number from 0 to 1", lambda number: 0 <= number <= 1)
PART = Range("a number from 0 to below 1", lambda number: 0 <= number < 1)

RANGES: dict[str, dict[str, Range]] = {
    "input": {"segments": COUNT, "segment_seconds": POSITIVE},
    "data": {
        "validation_share": PART, "test_share": PART, "split_seed": NOT_NEGATIVE, "test_per_class": COUNT,
        "cache_gigabytes": POSITIVE, "workers": NOT_NEGATIVE, "shards_at_once": COUNT,
    },
    "encoder": {"depth": COUNT, "tower_seed": NOT_NEGATIVE},
    "pretraining": {"depth": COUNT},
    "head": {"hidden": COUNT, "dropout": PART, "label_smoothing": PART},
    "optimizer": {
        "lr": NOT_NEGATIVE, "lr_gate": NOT_NEGATIVE, "lr_head": NOT_NEGATIVE, "lr_tower": NOT_NEGATIVE,
        "lr_joint": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE, "warmup_share": SHARE,
        "step_start": NOT_NEGATIVE, "step_epochs": COUNT, "step_factor": POSITIVE, "clip_norm": POSITIVE,
    },
    "train": {
        "epochs": COUNT, "batch_size": COUNT, "accumulate": COUNT, "seed": NOT_NEGATIVE, "patience": COUNT,
        "save_every": COUNT, "flip": SHARE, "mixup": SHARE, "drop_stream": SHARE,
        "mask_mels": NOT_NEGATIVE, "mask_steps": NOT_NEGATIVE, "noise": NOT_NEGATIVE,
        "roll_steps": NOT_NEGATIVE, "mining_share": SHARE,
    },
}  # fmt: skip
"""By the section of a configuration and the setting's name in it."""


def check_ranges(section: str, settings: Any) -> None:
    """Refuse numbers that a setting cannot have, before anything is read or trained.

    Args:
        section: Key of :data:`RANGES`.
        settings: Has the section's settings for attributes, perhaps not all; ``None`` is left to their types.

    Raises:
        AvtuneError: A number is out of its setting's range.
    """
    for name, allowed in RANGES[section].items():
        value = getattr(settings, name, None)
        if value is not None and not allowed.holds(value):
            raise AvtuneError(f"{section}.{name} is {value}; set it to {allowed.words}")
