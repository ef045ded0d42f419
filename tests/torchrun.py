"""Runs a script of the tests on two processes, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def torchrun(script: str, out: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``script out`` on two processes of one thread each.

    Args:
        script: A driver's ``__file__``.
        out: Where it writes what it found.
        timeout: Seconds after which it counts as hanging.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, script, str(out)], env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def run_on_two_processes(script: str, out: Path, timeout: float = 300) -> None:
    """:func:`torchrun`, which has to end well."""
    done = torchrun(script, out, timeout)
    assert done.returncode == 0, done.stderr[-4000:]
