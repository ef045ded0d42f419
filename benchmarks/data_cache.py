"""How much faster an epoch reads its clips where the one before left them on disk (`data.cache_folder`).

Makes its own clips (those of decode_speed.py: ten seconds, 30 frames a second, moving noise), reads them as a model of
ViT-B/16 sees them (ten frames of 224 x 224 and ten spectrograms), once decoding and keeping them, then from the cache,
and writes benchmarks/results/data_cache.json. Every clip of the second epoch is compared bit for bit. Run from the
repository root:

    OMP_NUM_THREADS=1 python benchmarks/data_cache.py
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from decode_speed import RATE, SECONDS, SIZES, make_clip
from machine import machine

from avtune.config import AudioInput, InputConfig
from avtune.datasets import Record
from avtune.datasets.clips import ClipDataset
from avtune.datasets.disk_cache import DiskCache
from avtune.transforms import Prepared, Preprocessing, Sample

PREPROCESSING = Preprocessing.from_config(
    InputConfig(segments=10, audio=AudioInput(preset="ave_vit")), size=224, mean=(0.5,) * 3, std=(0.5,) * 3
)


def epoch(dataset: ClipDataset) -> tuple[list[Prepared], float, float]:
    """All clips in order, with the CPU seconds and the seconds that each took on average."""
    cpu, wall = time.process_time(), time.perf_counter()
    samples = [dataset[index] for index in range(len(dataset))]
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert all(isinstance(sample, Sample) for sample in samples)
    return [sample.prepared for sample in samples], cpu / len(dataset), wall / len(dataset)


def measure(clips: int, size: str, folder: Path) -> dict[str, Any]:
    """Two epochs over clips of one size."""
    height, width = SIZES[size]
    first = folder / f"{size}_0.mp4"
    make_clip(first, height, width, key_seconds=2)
    paths = [first, *(folder / f"{size}_{number}.mp4" for number in range(1, clips))]
    for path in paths[1:]:
        shutil.copyfile(first, path)
    records = [Record(path.name, path, ()) for path in paths]
    cache = folder / f"{size}_cache"
    decoded, decoding, decoding_wall = epoch(
        ClipDataset(records, PREPROCESSING, disk=DiskCache.open(cache, 10.0))
    )
    again = DiskCache.open(cache, 10.0)
    read, reading, reading_wall = epoch(ClipDataset(records, PREPROCESSING, disk=again))
    assert all(
        torch.equal(one.frames, other.frames) and torch.equal(one.spectrogram, other.spectrogram)
        for one, other in zip(decoded, read, strict=True)
    )
    return {
        "size": size,
        "clips": clips,
        "megabytes_per_clip_on_disk": round(again.used_bytes / clips / 1e6, 2),
        "first_epoch_cpu_ms_per_clip": round(1000 * decoding, 1),
        "second_epoch_cpu_ms_per_clip": round(1000 * reading, 1),
        "first_epoch_ms_per_clip": round(1000 * decoding_wall, 1),
        "second_epoch_ms_per_clip": round(1000 * reading_wall, 1),
        "times_less_cpu": round(decoding / reading, 1),
        "times_faster": round(decoding_wall / reading_wall, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "data_cache.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            rows.append(measure(arguments.clips, size, Path(folder)))
            print(rows[-1], flush=True)
    result = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/data_cache.py --clips {arguments.clips}",
        "machine": machine(torch=torch.__version__),
        "note": "One process, one thread; the second epoch found its files in the system's page cache. Other programs "
        "ran on the machine, which elapsed times show and CPU times do not.",
        "clips": f"{SECONDS} s, {RATE} frames a second, H.264 with B-frames, AAC stereo, generated",
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
