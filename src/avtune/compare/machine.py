"""What a measurement says of the machine that it was taken on."""

from __future__ import annotations

import platform
import sys
from pathlib import Path


def processor_name() -> str:
    """The processor's model, where the system tells it, otherwise its architecture."""
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
