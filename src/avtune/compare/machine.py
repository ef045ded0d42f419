"""What a measurement says of the machine that it was taken on, and of the code."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import avtune


def processor_name() -> str:
    """The processor's model, where the system tells it, otherwise its architecture."""
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def source_commit() -> str | None:
    """The commit of a source checkout; ``None`` where avtune was installed otherwise."""
    try:
        told = subprocess.run(
            ["git", "-C", str(Path(avtune.__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None
