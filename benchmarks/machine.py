"""What a benchmark of reading files says of where it ran."""

from __future__ import annotations

import os
import platform
from typing import Any

import av

from avtune.compare import processor_name


def machine(**versions: Any) -> dict[str, Any]:
    """Processor, load and versions, as results keep them.

    Args:
        **versions: Of what else matters to the benchmark.
    """
    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "load_average_at_end": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        "pyav": av.__version__,
        **versions,
    }
