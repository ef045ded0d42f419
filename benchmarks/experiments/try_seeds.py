"""What ``avtune try`` reaches: the command as a newcomer types it, once for each seed.

    python benchmarks/experiments/try_seeds.py --seeds 0 1 2

Each seed renders its own clips and trains from its own start. Wall time and peak memory are those of the whole
process with its children.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULT = Path(__file__).resolve().parents[1] / "results" / "try_seeds.json"


def run(seed: int, folder: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "avtune", "try", "--seed", str(seed), "--out", str(folder)]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    metrics: dict[str, object] = json.loads((folder / "run" / "metrics.json").read_text())
    metrics["wall_seconds"] = round(seconds, 1)
    metrics["peak_process_mib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    changed = subprocess.run(
        ["git", "status", "--porcelain"], capture_output=True, text=True, check=True
    ).stdout
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(seed, Path(folder) / str(seed)) for seed in options.seeds]
    content = {
        "command": "python benchmarks/experiments/try_seeds.py --seeds " + " ".join(map(str, options.seeds)),
        "commit": commit,
        "uncommitted_changes": bool(changed),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "runs": runs,
    }
    RESULT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
