"""What a variant costs to train: measured one after another when all runs are done, so that the figures compare."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from avtune.compare.memory import peak_bytes, reset_peak
from avtune.compare.plan import Comparison
from avtune.compare.running import ClipShelf, CompareObserver, variant_folder
from avtune.config import RunConfig
from avtune.counting import example_batch, saved_bytes
from avtune.files import write_atomically
from avtune.model import AudioVisualModel
from avtune.runs import Clips, RunObserver, fit_model
from avtune.train.log import read_log

COST = "cost.json"
UPDATES = 6


@dataclass(frozen=True)
class Cost:
    """What training a variant takes.

    Attributes:
        saved_mib: Bytes kept between forward and backward pass of one clip, 2^20.
        peak_mib: Largest memory over some updates, 2^20: allocated on the accelerator, or resident in the process with
            Python, PyTorch and the few clips; ``None``: not known.
        seconds_per_step: Median time of an update, reading left out.
    """

    saved_mib: float
    peak_mib: float | None
    seconds_per_step: float


def measure_costs(
    comparison: Comparison, folder: Path, observer: CompareObserver | None = None
) -> dict[str, Cost]:
    """Measure what is not measured yet, variant by variant, by the first updates of a run on the first clips.

    Runs themselves are not timed: several may share the machine, and clips held in memory would hide what a method
    takes.

    Args:
        comparison: What is compared.
        folder: Its folder; a variant's figures go to ``<variant>/cost.json``.
        observer: Who watches.

    Returns:
        The figures by variant.
    """
    observer = observer or CompareObserver()
    costs = finished_costs(comparison, folder)
    missing = [name for name in comparison.variants if name not in costs]
    batch = max((comparison.variant(name).train.batch_size for name in missing), default=0)
    shelf = ClipShelf(RunObserver(), training_clips=UPDATES * batch)
    for done, name in enumerate(missing):
        observer.measuring(name, done, len(missing))
        config = comparison.variant(name)
        costs[name] = _measure(config, shelf.clips(config))
        place = variant_folder(folder, name) / COST
        write_atomically(place, json.dumps(asdict(costs[name]), indent=1).encode())
    return costs


def finished_costs(comparison: Comparison, folder: Path) -> dict[str, Cost]:
    """The figures that were measured already, by variant."""
    places = {name: variant_folder(folder, name) / COST for name in comparison.variants}
    return {
        name: Cost(**json.loads(place.read_text(encoding="utf-8")))
        for name, place in places.items()
        if place.is_file()
    }


def _measure(config: RunConfig, clips: Clips) -> Cost:
    config = replace(config, train=replace(config.train, epochs=1, floors=False))
    torch.manual_seed(config.train.seed)
    model = AudioVisualModel(config, clips.collection.labels, words=clips.collection.words)
    saved = _saved(model)
    with tempfile.TemporaryDirectory() as place:
        reset_peak()
        fit_model(model, config, Path(place), clips, RunObserver())
        peak = peak_bytes()
        steps: list[Mapping[str, float]] = [
            row for row in read_log(Path(place) / "log.jsonl") if row["event"] == "step"
        ]
    # The first update also allocates what later ones find in place.
    seconds = statistics.median(row["seconds"] for row in steps[1:] or steps)
    return Cost(round(saved / 2**20, 1), None if peak is None else round(peak / 2**20, 1), round(seconds, 4))


def _saved(model: AudioVisualModel) -> int:
    device = next(model.parameters()).device
    batch = example_batch(model.preprocessing, device, question_length=model.task.question_length)
    model.network.train()
    with saved_bytes(model) as count:
        model.network(batch)
    model.eval()
    return count[0]
