"""What a run's page tells."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from avtune.counting import count_parameters
from avtune.datasets.clips import ClipDataset
from avtune.errors import AvtuneError
from avtune.model import AudioVisualModel
from avtune.recipes import to_yaml
from avtune.report import RunReport, ShownClip
from avtune.runs.clips import Clips
from avtune.runs.scoring import ScoreSheet
from avtune.train.log import read_log


def run_report(
    model: AudioVisualModel, folder: Path, clips: Clips, sheet: ScoreSheet, seconds: dict[str, float],
    shown: int = 3,
) -> RunReport:  # fmt: skip
    """What the run's page tells, with a few scored clips to play."""
    config, details = model.config, sheet.scores.details
    parameters = count_parameters(model.network)
    dataset = clips.splits[sheet.split]
    notes = [*clips.collection.warnings]
    if clips.collection.missing:
        notes.append(f"{len(clips.collection.missing)} annotated clips were not on disk.")
    notes += [f"Could not be read: {name}: {problem}" for name, problem in sheet.damaged.items()]
    notes += details.get("notes", ())
    method = " and ".join(config.encoder.methods)
    return RunReport(
        title=f"{method} on {clips.collection.name}",
        summary={
            "Task": config.head.task,
            "Tower": config.encoder.tower,
            "Method": method,
            "Clips": ", ".join(f"{len(part)} {split}" for split, part in clips.splits.items()),
            "Scored on": _scored(sheet),
            "Seed": config.train.seed,
        },
        score=sheet.scores.value,
        score_name=sheet.scores.name,
        floors=sheet.floors,
        log=read_log(folder / "log.jsonl"),
        parameters={
            "trainable": parameters.trainable,
            "frozen": parameters.frozen,
            "total": parameters.total,
            "by_part": {name: count for name, count in parameters.parts.items() if count},
        },
        seconds=seconds,
        per_class=details.get("per_class", ()),
        tables=details.get("tables", {}),
        confusion=torch.tensor(details["confusion"]).numpy() if "confusion" in details else None,
        labels=model.class_names,
        clips=list(islice(_shown_clips(model, dataset), shown)),
        config_yaml=to_yaml(config),
        notes=notes,
    )


def _scored(sheet: ScoreSheet) -> str:
    segments = sheet.scores.details.get("segments")
    return f"{sheet.clips} {sheet.split} clips" + (f", {segments} segments" if segments else "")


def shown_clip(model: AudioVisualModel, dataset: ClipDataset, index: int) -> ShownClip:
    """One labelled clip with what the model says of it."""
    record = dataset.records[index]
    path = record.files[0]
    question = None if record.question is None else record.question.text
    prediction = model.predict(path, question=question)
    return ShownClip(record.name, prediction, path, model.task.target(record).numpy())


def _shown_clips(model: AudioVisualModel, dataset: ClipDataset) -> Iterator[ShownClip]:
    """The clips that can be read as one file, those that hold an event; all where none does."""
    files = [
        k for k, record in enumerate(dataset.records) if isinstance(record.source, Path) and record.start == 0
    ]
    for k in [k for k in files if dataset.records[k].events] or files:
        try:
            yield shown_clip(model, dataset, k)
        except AvtuneError:
            # It is listed among the damaged clips already.
            continue
