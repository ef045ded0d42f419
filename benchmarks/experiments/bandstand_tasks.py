"""What each task reaches on bandstand beside its floors: the commands of the pages in docs/tasks, once for each seed.

    python benchmarks/experiments/bandstand_tasks.py --data clips --clips 300 --seeds 0 1 2 --runs runs/tasks

The clips are rendered once, unless they are there. Runs that are finished are not made again, and one that was cut short
goes on. ``--jobs`` runs several at once, which share a GPU well: the bundled backbone leaves it idle most of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from avtune.compare import processor_name, source_commit

RESULT = Path(__file__).resolve().parents[1] / "results" / "bandstand_tasks.json"
TASKS = ("lavish", "classification", "segmentation", "question_answering", "parsing", "retrieval")
DETAILS = ("miou_sounding", "lit_in_silence", "f_score", "per_class", "tables", "sound to frames", "frames to sound")


def avtune(*arguments: str, log: Path) -> None:
    """Run the command line as a person would; what it prints goes into a file."""
    with log.open("a") as file:
        command = [sys.executable, "-m", "avtune", *arguments]
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=True)


def run(task: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train, score and read what the run folder says."""
    folder = options.runs / f"{task}-{seed}"
    if not (folder / "metrics.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        settings = [f"--train.seed={seed}", "--train.floors=true", f"--data.root={options.data}", *options.settings]
        avtune("train", f"bandstand/{task}_nano", "--out", str(folder), *settings, log=folder / "train.txt")
    metrics = json.loads((folder / "metrics.json").read_text())
    details = {name: metrics["details"][name] for name in DETAILS if name in metrics["details"]}
    kept = {name: metrics[name] for name in ("score", "floors", "validation", "clips", "scored_clips", "seconds")}
    return {"task": task, "seed": seed, **kept, "details": details}


def main() -> None:
    """Render, train and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the clips")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--clips-seed", type=int, default=11)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--settings", nargs="*", default=[], help="further settings of avtune train")
    parser.add_argument("--commit", default=source_commit(), help="of the code, where there is no checkout to ask")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    if not (options.data / "bandstand.json").is_file():
        rendering = ["--clips", str(options.clips), "--seed", str(options.clips_seed), "--out", str(options.data)]
        avtune("data", "bandstand", *rendering, "--workers", str(os.cpu_count()), log=options.runs / "data.txt")
    wanted = [(task, seed) for seed in options.seeds for task in options.tasks]
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = list(pool.map(lambda one: run(*one, options), wanted))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    content = {
        "command": " ".join(["python benchmarks/experiments/bandstand_tasks.py", *sys.argv[1:]]),
        "commit": options.commit,
        "machine": f"{processor_name()}, {os.cpu_count()} cores, {device}",
        "torch": torch.__version__,
        "runs": runs,
    }
    options.result.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
