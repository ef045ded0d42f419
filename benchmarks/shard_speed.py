"""Clips a second that one core reads as pretraining does: from mp4 files, from shards, and already prepared.

Renders bandstand clips, packs them with `avtune data shard` (as files and, for the recipe, as tensors), fills a disk
cache, and reads all of them in random order in each of the five ways. Every clip is compared bit for bit with the one
decoded from its own file. Writes benchmarks/results/shard_speed.json. Run from the repository root:

    OMP_NUM_THREADS=1 python benchmarks/shard_speed.py
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from avtune.cli import main as avtune
from avtune.config import DataConfig, PretrainingRunConfig
from avtune.datasets import read
from avtune.datasets.bandstand import render_bandstand
from avtune.datasets.clips import ClipDataset
from avtune.datasets.disk_cache import DiskCache
from avtune.recipes import parse_pretraining_config, recipe_path
from avtune.runs.pretraining import complete, prepare
from avtune.train.order import Order, shuffled, together
from avtune.transforms import Prepared, Preprocessing, Sample

RECIPE = "pretrain/bandstand_nano_avsiam"
AUDIOSET = "pretrain/audioset_2m_avsiam_base"
PASSES = 3


def timed(dataset: ClipDataset, order: Order) -> tuple[dict[str, Prepared], dict[str, float]]:
    """All clips by name, and how many one core gives a second in the best of three passes."""
    cpus, walls = [], []
    for epoch in range(PASSES):
        places = order(np.random.default_rng(epoch))
        cpu, wall = time.process_time(), time.perf_counter()
        samples = [dataset[int(place)] for place in places]
        cpus.append(time.process_time() - cpu)
        walls.append(time.perf_counter() - wall)
    found = {sample.name: sample.prepared for sample in samples if isinstance(sample, Sample)}
    assert len(found) == len(dataset)
    speed = {
        "clips_per_cpu_second": round(len(dataset) / min(cpus), 1),
        "clips_per_second": round(len(dataset) / min(walls), 1),
    }
    return found, speed


def dataset(
    name: str, root: Path, preprocessing: Preprocessing, disk: DiskCache | None = None
) -> ClipDataset:
    """All clips of a set."""
    records = read(DataConfig(name=name, root=str(root))).records
    return ClipDataset(records, preprocessing, disk=disk)


def measure(recipe: str, clips: Path, folder: Path) -> tuple[list[dict[str, Any]], float]:
    """The clips as a recipe's model takes them, read in each way; and the megabytes of one that is prepared."""
    config = complete(parse_pretraining_config((), recipe_path(recipe, PretrainingRunConfig)))
    preprocessing = prepare(config, ()).preprocessing
    source = [f"--data.root={clips}", "--data.name=bandstand", "--data.split=official", "--workers=0"]
    shard = ["data", "shard", recipe, *source, "--gigabytes=0.02"]
    assert avtune([*shard, "--out", str(folder / "files")]) == 0
    assert avtune([*shard, "--out", str(folder / "tensors"), "--prepared"]) == 0
    cache = folder / "cache"
    files = dataset("bandstand", clips, preprocessing, DiskCache.open(cache, 10.0))
    expected, _ = timed(files, shuffled(len(files)))
    packed = dataset("shards", folder / "tensors", preprocessing)
    streamed = together([record.files for record in packed.records], 2)
    ways: dict[str, tuple[ClipDataset, Order]] = {
        "mp4 files": (dataset("bandstand", clips, preprocessing), shuffled(len(files))),
        "mp4 files in shards": (dataset("shards", folder / "files", preprocessing), shuffled(len(files))),
        "disk cache": (
            dataset("bandstand", clips, preprocessing, DiskCache.open(cache, 10.0)),
            shuffled(len(files)),
        ),
        "prepared shards": (packed, shuffled(len(files))),
        "prepared shards, two at once": (packed, streamed),
    }
    rows = []
    for way, (clips_of_way, order) in ways.items():
        found, speed = timed(clips_of_way, order)
        for name, one in expected.items():
            assert torch.equal(one.frames, found[name].frames)
            assert torch.equal(one.spectrogram, found[name].spectrogram)
        rows.append({"recipe": recipe, "read": way, **speed})
        print(rows[-1], flush=True)
    size = sum(path.stat().st_size for path in (folder / "tensors").glob("*.tar"))
    return rows, round(size / len(expected) / 1e6, 2)


def main() -> None:
    """Render, read, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "shard_speed.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    megabytes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / "clips"
        render_bandstand(clips, arguments.clips, seed=0, workers=1)
        for recipe in (RECIPE, AUDIOSET):
            read, megabytes[recipe] = measure(recipe, clips, Path(folder) / recipe)
            rows += read
    result = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/shard_speed.py --clips {arguments.clips}",
        "machine": machine(torch=torch.__version__),
        "note": "One process, one thread, the best of three passes; files in the system's page cache. Other programs "
        "ran on the machine, which elapsed times show and CPU times do not.",
        "clips": f"{arguments.clips} generated clips of 10 s, of each 10 frames and one spectrogram",
        "rows": rows,
        "megabytes": megabytes,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
