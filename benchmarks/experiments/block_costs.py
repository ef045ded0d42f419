"""What the benchmarks of one block share: forms of the same step measured side by side, and how results are written."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avtune.counting import saved_bytes

SEGMENTS = 10

Step = Callable[[], tuple[Tensor, ...]]
Row = dict[str, float]


def summed_squares(outputs: tuple[Tensor, ...]) -> Tensor:
    return sum((output.square().sum() for output in outputs), torch.zeros(()))


def least_seconds(step: Step, repeats: int, loss: Callable[[tuple[Tensor, ...]], Tensor]) -> float:
    """Processor seconds of a forward and backward pass, the least of `repeats` after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        loss(step()).backward()
        times.append(time.process_time() - begin)
    return min(times[1:])


def measure_form(
    step: Step,
    known: nn.Module,
    repeats: int,
    loss: Callable[[tuple[Tensor, ...]], Tensor] = summed_squares,
) -> tuple[Row, tuple[Tensor, ...]]:
    """Bytes kept besides the weights of `known`, processor seconds, and what the step gives."""
    with saved_bytes(known) as kept:
        outputs = step()
    return {
        "saved_mib": round(kept[0] / 2**20, 1),
        "cpu_seconds": round(least_seconds(step, repeats, loss), 3),
    }, outputs


def check_equal(outputs: Mapping[str, tuple[Tensor, ...]], reference: str) -> None:
    """Refuse to compare the cost of things that differ."""
    for ours, theirs in zip(outputs["avtune"], outputs[reference], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def with_ratios(rows: Mapping[str, Row], others: tuple[str, ...]) -> dict[str, Row]:
    """The rows, and avtune's over each of `others`."""
    ours = rows["avtune"]
    over = {
        f"avtune_over_{other}": {name: round(ours[name] / rows[other][name], 2) for name in ours}
        for other in others
    }
    return {**rows, **over}


def asked_repeats(description: str | None) -> int:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed passes of each form")
    return int(parser.parse_args().repeats)


def write(path: Path, script: str, repeats: int, content: Mapping[str, Any]) -> None:
    """Write what was measured with what is to be known of it."""
    result = {
        "command": f"python benchmarks/{script}",
        "what": "forward and backward of both streams, one clip of ten segments, float32, one thread, CPU time",
        "repeats": repeats,
        **content,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
