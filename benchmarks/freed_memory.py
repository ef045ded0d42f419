"""What a training step costs on a CPU where freed memory is kept (`avtune.cli.memory`) and where it is handed back.

    OMP_NUM_THREADS=1 python benchmarks/freed_memory.py

writes benchmarks/results/freed_memory.json: LAVISH on the bundled backbone, ten segments, forward and backward of a
batch, each in a process of its own. Processor time of the process is measured, not wall-clock time, so that other work
on the machine disturbs it less; the two take turns, and the least of each counts.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from machine import machine

from avtune.cli.memory import keep_freed_memory
from avtune.counting import example_batch
from avtune.model import create_model

RESULT = Path(__file__).parent / "results" / "freed_memory.json"
SEGMENTS, STEPS, TURNS = 10, 4, 3
BATCHES = (8, 32)


def step_costs(clips: int) -> dict[str, float]:
    """Seconds of processor time and page faults of one step, and the most memory that was held."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = create_model("nano", labels=["a", "b"], fusion="lavish", segments=SEGMENTS)
    network, batch = model.network, example_batch(model.preprocessing, clips=clips)
    network.train()

    def step() -> None:
        outputs, _ = network(batch)
        outputs.square().mean().backward()
        network.zero_grad()

    step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(STEPS):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": spent / STEPS,
        "page_faults": (after.ru_minflt - before.ru_minflt) / STEPS,
        "peak_mib": after.ru_maxrss / 1024,
    }


def measured(clips: int, kept: bool) -> dict[str, float]:
    """:func:`step_costs` in a fresh process."""
    command = [sys.executable, __file__, "--clips", str(clips), *(["--kept"] if kept else [])]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kept", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clips is not None:
        if options.kept and not keep_freed_memory():
            parser.exit(1, "this system's C library cannot be told to keep freed memory\n")
        print(json.dumps(step_costs(options.clips)))
        return
    rows: list[dict[str, Any]] = []
    for clips in BATCHES:
        turns = [(measured(clips, False), measured(clips, True)) for _ in range(TURNS)]
        for name, runs in zip(("handed back", "kept"), zip(*turns, strict=True), strict=True):
            rows.append({"clips": clips, "freed_memory": name, **min(runs, key=lambda run: run["seconds"])})
    result = {"rows": rows, "machine": machine(torch=torch.__version__)}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
