"""The largest memory that a stretch of work takes: of the accelerator where there is one, else of this process."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


def reset_peak() -> None:
    """Forget the peak so far, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif (PROCESS / "clear_refs").exists():
        # 5 resets the peak of the resident set, see proc(5).
        (PROCESS / "clear_refs").write_text("5")


def peak_bytes() -> int | None:
    """The largest memory since :func:`reset_peak`.

    Returns:
        Bytes: allocated on the accelerator, or resident in this process (Linux). ``None`` where the system does not
        tell it for a stretch of time.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if not sys.platform.startswith("linux"):
        return None
    for line in (PROCESS / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return None
