"""A folder of tiny real clips, its shards, and tars as others write them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from test_clips_dataset import write_clip

from avtune.cli import main
from avtune.config import DataConfig
from avtune.datasets import Collection, read
from avtune.datasets.clips import ClipDataset
from avtune.transforms import Damaged, Preprocessing, Sample

LABELS = ("hum", "whistle")
CLIPS = 7
# Two clips of about 20 kB fit.
GIGABYTES = 6e-5


def write_clips(root: Path) -> Path:
    """Seven clips of each label, two seconds long."""
    for label in LABELS:
        for number in range(CLIPS):
            write_clip(root / label / f"{number}.mp4", seconds=2.0, seed=number + CLIPS * LABELS.index(label))
    return root


def shard(root: Path, out: Path, *options: str, name: str = "folder") -> int:
    """Run ``avtune data shard`` in this process."""
    command = [
        "data", "shard", f"--data.root={root}", f"--data.name={name}", "--out", str(out), "--workers", "0",
        "--gigabytes", str(GIGABYTES), *options,
    ]  # fmt: skip
    return main(command)


def collection_of(root: Path, name: str = "shards") -> Collection:
    return read(DataConfig(name=name, root=str(root)))


def samples(collection: Collection, preprocessing: Preprocessing) -> dict[str, list[Sample | Damaged]]:
    """All clips of all splits, decoded."""
    datasets = {split: ClipDataset(records, preprocessing) for split, records in collection.splits.items()}
    return {split: [dataset[k] for k in range(len(dataset))] for split, dataset in datasets.items()}


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """A tar as Python's own module writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def as_json(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts).encode()
