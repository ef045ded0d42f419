"""Freed memory is kept, where the C library can be told to."""

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from avtune.cli.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
b"x" * (64 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    b"x" * (64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = (64 << 20) // 4096


def faults(kind: str) -> int:
    command = [sys.executable, "-c", PROGRAM, kind]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs Linux with glibc"
)
def test_a_large_array_takes_no_new_pages_a_second_time() -> None:
    kept = faults("kept")
    assert kept < PAGES / 100
    # Without huge pages each page is asked for anew; with them fewer, but never none.
    assert faults("handed back") > 10 * max(kept, 1)
