"""Gradients that add up in one order, so that the same run gives the same weights whatever its threads do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Add the gradients of a row that was taken several times in one order, on a CPU.

    Several threads of a CPU would add them as they arrive, and sums of floats depend on the order. A CUDA device is
    left as it is: not all of its kernels have a form that does so.

    Args:
        device: What is trained on.
    """
    if device.type != "cpu":
        yield
        return
    settings: Any = torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        settings.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True)
    # Meant against reading memory before it is written; nothing here does, and it takes time.
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = before[2]
