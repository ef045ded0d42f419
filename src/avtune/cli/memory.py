"""What the C library does with freed memory: it keeps it, so that a step does not ask the system for it again."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""glibc's numbers of these options, from its ``malloc.h``."""
LARGEST_KEPT = 1 << 30
GROWTH = 64 << 20


def keep_freed_memory() -> bool:
    """Let arrays of up to ``LARGEST_KEPT`` bytes come from memory that this process has freed before.

    glibc hands arrays above 32 MiB back to the system at once and gets each anew, page by page: a ninth of a training
    step of 32 clips on a CPU, and nothing of one of 8 (``benchmarks/freed_memory.py``). The process then holds what it
    once needed until it ends.

    Returns:
        Whether it does so now; other systems and C libraries are left as they are.
    """
    if sys.platform != "linux":
        return False
    options = {MMAP_THRESHOLD: LARGEST_KEPT, TRIM_THRESHOLD: 2 * LARGEST_KEPT - 1, TOP_PAD: GROWTH}
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(option, value) for option, value in options.items()])
