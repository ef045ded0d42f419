"""The score of a run, the floors it is read beside, and the file that keeps both."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import avtune
from avtune.backbones.timm_loading import timm
from avtune.counting import count_parameters
from avtune.datasets import DatasetError
from avtune.errors import AvtuneError
from avtune.files import write_atomically
from avtune.model import CONFIG, AudioVisualModel, load
from avtune.runs.clips import Clips, RunObserver, refuse_without
from avtune.tasks import Scores, Task, Truth
from avtune.train import evaluate
from avtune.train.evaluate import BlindNetwork, ShuffledSound
from avtune.train.log import read_log
from avtune.transforms import Sample

METRICS, FLOORS = "metrics.json", "floors"


@dataclass
class ScoreSheet:
    """A score and what it is read beside.

    Attributes:
        split: Which clips were scored.
        scores: The score.
        floors: Scores that need less: ``majority``, ``audio only``, ``video only``, ``shuffled audio`` and so on.
        clips: Number of clips scored.
        damaged: Files that could not be read.
    """

    split: str
    scores: Scores
    floors: dict[str, float]
    clips: int
    damaged: dict[str, str] = field(default_factory=dict)


def score_run(
    model: AudioVisualModel,
    folder: Path,
    clips: Clips,
    split: str,
    observer: RunObserver | None = None,
    without: Literal["audio", "video"] | None = None,
) -> ScoreSheet:
    """Score a model on a split, with its floors.

    Floors: the most frequent class of the training clips; an audio-only and a video-only model, if the run
    trained them, else the same model with one stream removed; the same model hearing another clip's sound.

    Args:
        model: The model.
        folder: The run folder.
        clips: The clips.
        split: Which of them to score.
        observer: Who watches.
        without: Score the model with this stream removed; of the floors only the majority is left then.

    Raises:
        DatasetError: The split has no clip, or none that can be read.
    """
    observer = observer or RunObserver()
    refuse_without(clips.collection, split)
    chosen = clips.splits[split]
    batch = model.config.train.batch_size

    def score(
        what: str, dataset: Any, network: nn.Module = model.network, task: Task = model.task, **how: Any
    ) -> Any:
        workers = 0 if chosen.cached else model.config.data.workers
        return evaluate(
            network, task, dataset, batch_size=batch, workers=workers,
            advanced=observer.scoring(what, len(dataset)), **how,
        )  # fmt: skip

    result = score("fused" if without is None else f"{without} removed", chosen, without=without)
    if result.scores is None:
        raise DatasetError(
            f"{clips.collection.root}: not one clip of the {split} split can be read; run avtune check"
        )
    floors = {**blind_floors(model, clips, split), **result.scores.floors}
    if without is not None:
        return ScoreSheet(split, result.scores, floors, result.clips, result.damaged)
    if (folder / FLOORS / CONFIG).is_file():
        pair = load(folder / FLOORS)
        alone = score("single streams", chosen, pair.network, pair.task)
        floors |= {name: alone.scores.details[name] for name in ("audio only", "video only")}
    else:
        for stream, removed in (("audio", "video"), ("video", "audio")):
            part = score(f"{removed} removed", chosen, without=removed)
            floors[f"{stream} only ({removed} removed)"] = part.scores.value
    if len(chosen) > 1:
        seed = model.config.train.seed
        shuffled = score("shuffled audio", ShuffledSound(chosen, seed)).scores
        if shuffled is None:
            observer.message(
                f"the {split} split has one readable clip: the floor of shuffled audio is left out"
            )
        else:
            floors["shuffled audio"] = shuffled.value
    return ScoreSheet(split, result.scores, floors, result.clips, result.damaged)


def blind_floors(model: AudioVisualModel, clips: Clips, split: str) -> dict[str, float]:
    """Scores of answering without looking at a clip, by rules that the training clips teach.

    Args:
        model: Its task has the rules.
        clips: Training clips and those to score.
        split: Which of them to score.

    Returns:
        Scores by the rule's name; empty where there is no training clip or the task has no such rule.
    """
    scored = clips.splits[split]
    # Which segments exist is known of clips in memory; others are taken for whole rather than decoded once more.
    seen = scored if scored.cached else scored.unread()
    floors = {}
    for name, answer in model.task.blind_answers(_truths(model, clips)).items():
        found = evaluate(BlindNetwork(answer), model.task, seen, batch_size=model.config.train.batch_size)
        if found.scores is not None:
            floors[name] = found.scores.value
    return floors


def _truths(model: AudioVisualModel, clips: Clips) -> Iterator[Truth]:
    train, task = clips.splits.get("train"), model.task
    if train is None or not train.cached:
        for record in clips.collection.splits.get("train", ()):
            with suppress(DatasetError):
                yield Truth(task.target(record), task.question(record))
        return
    for sample in (train[k] for k in range(len(train))):
        if isinstance(sample, Sample) and sample.target is not None:
            # What lies beyond a file's end is no segment of it.
            told = sample.target[sample.prepared.valid] if task.target_per_segment else sample.target
            yield Truth(told, sample.question)


def write_metrics(
    model: AudioVisualModel, folder: Path, clips: Clips, sheet: ScoreSheet, seconds: dict[str, float]
) -> None:
    """Write ``metrics.json``: scores, floors, weights, clips, time, versions."""
    epochs = [row for row in read_log(folder / "log.jsonl") if row["event"] == "epoch"]
    parameters = count_parameters(model.network)
    write_recorded(folder, clips, sheet, {
        "validation": max((row["validation"] for row in epochs if "validation" in row), default=None),
        "parameters": {**asdict(parameters), "total": parameters.total},
        "seconds": seconds,
        "seed": model.config.train.seed,
    })  # fmt: skip


def write_recorded(folder: Path, clips: Clips, sheet: ScoreSheet, facts: dict[str, Any]) -> None:
    """Write ``metrics.json``: what any kind of run found, on what, with which versions, and ``facts`` besides."""
    content = {
        "split": sheet.split,
        "score": {"name": sheet.scores.name, "value": sheet.scores.value},
        "floors": sheet.floors,
        "details": sheet.scores.details,
        "clips": {split: len(dataset) for split, dataset in clips.splits.items()},
        "scored_clips": sheet.clips,
        "missing": list(clips.collection.missing),
        "damaged": sheet.damaged,
        "warnings": list(clips.collection.warnings),
        **facts,
        "versions": {
            "avtune": avtune.__version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "python": platform.python_version(),
        },
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
    }
    write_atomically(folder / METRICS, json.dumps(content, indent=1, ensure_ascii=False).encode())


def read_metrics(folder: Path) -> tuple[ScoreSheet, dict[str, float]]:
    """What :func:`write_metrics` recorded: the scores, and the seconds of each stage.

    Raises:
        AvtuneError: The run was not finished.
    """
    path = folder / METRICS
    if not path.is_file():
        raise AvtuneError(f"{folder}: no {METRICS}; run the train command again to finish the run")
    recorded = json.loads(path.read_text(encoding="utf-8"))
    scores = Scores(**recorded["score"], details=recorded["details"])
    sheet = ScoreSheet(
        recorded["split"], scores, recorded["floors"], recorded["scored_clips"], recorded["damaged"]
    )
    return sheet, recorded["seconds"]
