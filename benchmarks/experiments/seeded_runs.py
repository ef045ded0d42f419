"""What experiments on bandstand share: clips, commands that go on where they stopped, seeds, one JSON file."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from avtune.compare import processor_name, source_commit

RESULTS = Path(__file__).resolve().parents[1] / "results"
Wanted = TypeVar("Wanted")


def experiment_parser(description: str | None, result: str) -> argparse.ArgumentParser:
    """A parser of what every experiment is told.

    Args:
        description: The script's docstring.
        result: Name of the file below ``benchmarks/results``.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the clips")
    parser.add_argument("--clips", type=int, default=300, help="how many to render, where there are none")
    parser.add_argument("--clips-seed", type=int, default=11)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--result", type=Path, default=RESULTS / result)
    parser.add_argument(
        "--commit", default=source_commit(), help="of the code, where there is no checkout to ask"
    )
    parser.add_argument(
        "--settings",
        nargs=argparse.REMAINDER,
        default=[],
        help="behind all else: further settings of the runs",
    )
    return parser


def avtune(*arguments: str, log: Path) -> None:
    """Run the command line as a person would; what it prints goes into a file."""
    with log.open("a") as file:
        command = [sys.executable, "-m", "avtune", *arguments]
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=True)


def finished_run(folder: Path, *command: str) -> dict[str, Any]:
    """``metrics.json`` of a run folder; the command that makes it is run, or goes on, where there is none yet."""
    if not (folder / "metrics.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        avtune(*command, "--out", str(folder), log=folder / "train.txt")
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


def carry_out(
    script: str,
    options: argparse.Namespace,
    wanted: Iterable[Wanted],
    run: Callable[[Wanted], dict[str, Any]],
) -> None:
    """Render the clips unless they are there, make the runs, and write what came of them.

    Args:
        script: The experiment's file.
        options: What :func:`experiment_parser` read.
        wanted: The runs.
        run: Makes one; what the result holds of it.
    """
    options.runs.mkdir(parents=True, exist_ok=True)
    if not (options.data / "bandstand.json").is_file():
        numbers = {"clips": options.clips, "seed": options.clips_seed, "workers": os.cpu_count()}
        settings = [f"--{name}={value}" for name, value in {**numbers, "out": options.data}.items()]
        avtune("data", "bandstand", *settings, log=options.runs / "data.txt")
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = list(pool.map(run, wanted))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    content = {
        "command": " ".join([f"python benchmarks/experiments/{Path(script).name}", *sys.argv[1:]]),
        "commit": options.commit,
        "machine": f"{processor_name()}, {os.cpu_count()} cores, {device}",
        "torch": torch.__version__,
        "runs": runs,
    }
    options.result.write_text(json.dumps(content, indent=1) + "\n")
