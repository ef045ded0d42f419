"""A pretraining run from its configuration to its folder: read, prepare, pretrain, search held-out clips, report."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from avtune.config import DataConfig, HeadConfig, PretrainingRunConfig
from avtune.datasets.clips import ClipDataset
from avtune.errors import AvtuneError
from avtune.files import write_atomically
from avtune.model import CONFIG, accelerator
from avtune.options import choose
from avtune.pretrain import OBJECTIVES
from avtune.pretrain.backbone import take_backbone
from avtune.pretrain.objective import PretrainingModel
from avtune.pretrain.saved import build_model, read_pretrained, save_pretrained
from avtune.recipes import parse_pretraining_config, to_yaml
from avtune.report import RunReport, write_run_page
from avtune.runs.clips import (
    Clips,
    RunObserver,
    clip_order,
    prepare_clips,
    read_collection,
    refuse_without,
    scored_split,
)
from avtune.runs.scoring import METRICS, ScoreSheet, read_metrics, write_recorded
from avtune.runs.training import REPORT, is_main
from avtune.tasks import Task, create_task
from avtune.train import evaluate
from avtune.train.log import read_log
from avtune.train.pretraining import Matcher, Pretrainer
from avtune.train.pretraining_clips import OneFrame
from avtune.transforms import Preprocessing

BEFORE = "before pretraining"


@dataclass
class Preparation:
    """How clips are prepared, and how a model is scored on them.

    Attributes:
        preprocessing: How a file becomes tensors.
        task: The search for each sound's frames and for each clip's sound.
    """

    preprocessing: Preprocessing
    task: Task


def pretrain_run(
    config: PretrainingRunConfig, folder: Path, observer: RunObserver | None = None
) -> ScoreSheet:
    """Pretrain, search and report; the same call goes on with a run that was cut short.

    Args:
        config: What to do.
        folder: The run folder.
        observer: Who watches.

    Returns:
        How often sound and frames of held-out clips (test, or else validation) find each other, beside chance and
        the same model before pretraining.

    Raises:
        avtune.errors.AvtuneError: Something is wrong that the user can mend.
    """
    observer = observer or RunObserver()
    started = time.perf_counter()
    config = complete(config)
    collection = read_collection(config, observer)
    split = scored_split(collection)
    preparation = prepare(config, collection.labels)
    if not (folder / "state").exists():
        # A run with other settings in this folder is refused later and must keep its own.
        write_atomically(folder / CONFIG, to_yaml(config).encode())
    clips = prepare_clips(config, preparation, collection, observer)
    prepared = time.perf_counter()
    seconds = {"preparing clips": prepared - started}
    damaged = _fit(config, folder, clips, preparation, observer)
    seconds["pretraining"] = time.perf_counter() - prepared
    before = time.perf_counter()
    sheet, model = _score(config, folder, clips, split, preparation, observer)
    sheet.damaged = {**damaged, **sheet.damaged}
    seconds["scoring"] = time.perf_counter() - before
    seconds = {name: round(value, 2) for name, value in seconds.items()}
    if is_main():
        facts = {
            "dataset": clips.collection.name,
            "parameters": _parameters(model),
            "seed": config.train.seed,
        }
        write_recorded(folder, clips, sheet, {**facts, "seconds": seconds})
        write_pretraining_page(folder)
    return sheet


def score_pretrained(
    folder: Path, data: DataConfig, split: str, observer: RunObserver | None = None
) -> ScoreSheet:
    """Search clips of any dataset with a pretrained model: zero-shot retrieval, as AVSiam's Table 2.

    Args:
        folder: A finished pretraining run.
        data: The clips.
        split: Which of them.
        observer: Who watches.

    Raises:
        AvtuneError: The run is not whole, or there is no such clip.
    """
    observer = observer or RunObserver()
    config = replace(parse_pretraining_config(base=folder / CONFIG), data=data)
    pretrained = read_pretrained(folder)
    collection = read_collection(config, observer)
    refuse_without(collection, split)
    task = create_task(collection.labels, config.input, HeadConfig(task="retrieval"))
    preparation = Preparation(pretrained.preprocessing, task)
    clips = prepare_clips(config, preparation, collection, observer, (split,))
    return match(pretrained.model, clips.splits[split], split, preparation, config, observer)


def write_pretraining_page(folder: Path) -> None:
    """Write a finished run's page from what its folder holds.

    Raises:
        AvtuneError: The run was not finished.
    """
    sheet, seconds = read_metrics(folder)
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    config = parse_pretraining_config(base=folder / CONFIG)
    pretraining, details = config.pretraining, sheet.scores.details
    report = RunReport(
        title=f"{pretraining.objective} on {metrics['dataset']}",
        summary={
            "Objective": pretraining.objective,
            "Preset": pretraining.preset or next(iter(OBJECTIVES[pretraining.objective].presets)),
            "Begins from": pretraining.backbone,
            "Clips": ", ".join(f"{count} {split}" for split, count in metrics["clips"].items()),
            "Searched": f"{sheet.clips} {sheet.split} clips that it was not trained on",
            "Seed": config.train.seed,
        },
        score=sheet.scores.value,
        score_name=sheet.scores.name,
        floors=sheet.floors,
        log=read_log(folder / "log.jsonl"),
        parameters=metrics["parameters"],
        seconds=seconds,
        tables=details["tables"],
        config_yaml=to_yaml(config),
        notes=[
            *metrics["warnings"],
            *details["notes"],
            *(f"Could not be read: {name}: {problem}" for name, problem in sheet.damaged.items()),
        ],
    )
    write_run_page(folder / REPORT, report)


def complete(config: PretrainingRunConfig) -> PretrainingRunConfig:
    """The configuration with the objective's own sound preset where it states none.

    Raises:
        avtune.options.OptionError: There is no such objective.
    """
    objective = choose("objective", config.pretraining.objective, OBJECTIVES)
    audio = replace(config.input.audio, preset=config.input.audio.preset or objective.sound)
    model = replace(config.pretraining, backbone=config.pretraining.backbone or objective.backbone)
    return replace(config, input=replace(config.input, audio=audio), pretraining=model)


def prepare(config: PretrainingRunConfig, labels: tuple[str, ...]) -> Preparation:
    """How a complete configuration prepares clips.

    Args:
        config: See :func:`complete`.
        labels: Names of the clips' classes, among which they are searched too.

    Raises:
        AvtuneError: The backbone cannot be had, or each segment would hear a stretch of its own.
    """
    assert config.pretraining.backbone is not None
    backbone = take_backbone(config.pretraining.backbone, pretrained=False, depth=1, device="meta")
    preprocessing = Preprocessing.from_config(config.input, backbone.image_size, backbone.mean, backbone.std)
    if preprocessing.audio.placement != "clip":
        raise AvtuneError(
            f"pretraining hears a clip as a whole, and input.audio.preset {config.input.audio.preset} gives each "
            "segment a sound of its own; set input.audio.placement=clip, and seconds, shift_ms and steps for it"
        )
    task = create_task(labels, config.input, HeadConfig(task="retrieval"))
    return Preparation(preprocessing, task)


def start_model(config: PretrainingRunConfig, preprocessing: Preprocessing) -> PretrainingModel:
    """The model before its first update, the same each time."""
    torch.manual_seed(config.train.seed)
    return build_model(config.pretraining, preprocessing, pretrained=config.pretraining.pretrained)


def match(
    model: PretrainingModel, clips: ClipDataset, split: str, preparation: Preparation, config: PretrainingRunConfig,
    observer: RunObserver,
) -> ScoreSheet:  # fmt: skip
    """Search for each sound's frames, and for each clip's sound, among clips the model was not trained on.

    Raises:
        AvtuneError: No clip has both that can be read.
    """
    found = evaluate(
        Matcher(model.to(accelerator()), preparation.preprocessing), preparation.task, OneFrame(clips),
        batch_size=config.train.batch_size, workers=0 if clips.cached else config.data.workers,
        advanced=observer.scoring(f"the {split} clips", len(clips)),
    )  # fmt: skip
    if found.scores is None:
        raise AvtuneError(f"not one {split} clip with sound and frames can be read; run avtune check")
    return ScoreSheet(split, found.scores, dict(found.scores.floors), found.clips, found.damaged)


def _fit(
    config: PretrainingRunConfig, folder: Path, clips: Clips, preparation: Preparation, observer: RunObserver
) -> dict[str, str]:
    """Pretrain, and write the weights; the files that could not be read."""
    train, validation = clips.splits["train"], clips.splits.get("validation")
    trainer = Pretrainer(
        start_model(config, preparation.preprocessing), preparation.preprocessing, config, folder, train,
        None if validation is None else OneFrame(validation), preparation.task,
        names=[record.name for record in train.records],
        order=clip_order(config.data, train.records),
        observer=observer,
        workers=0 if train.cached else config.data.workers,
    )  # fmt: skip
    progress = trainer.fit()
    weights = trainer.weights()
    if is_main():
        save_pretrained(folder, weights, config.pretraining, preparation.preprocessing)
    if torch.distributed.is_initialized():
        # Every process reads them back for scoring.
        torch.distributed.barrier()
    return progress.damaged


def _score(
    config: PretrainingRunConfig, folder: Path, clips: Clips, split: str, preparation: Preparation,
    observer: RunObserver,
) -> tuple[ScoreSheet, PretrainingModel]:  # fmt: skip
    start = start_model(config, preparation.preprocessing)
    before = match(start, clips.splits[split], split, preparation, config, observer)
    del start
    model = read_pretrained(folder).model
    sheet = match(model, clips.splits[split], split, preparation, config, observer)
    sheet.floors[BEFORE] = before.scores.value
    sheet.scores.details[BEFORE] = {
        name: value for name, value in before.scores.details.items() if name not in ("tables", "notes")
    }
    titles = sheet.scores.details["tables"], before.scores.details["tables"]
    sheet.scores.details["tables"] = {
        **titles[0],
        **{f"{title}, {BEFORE}": rows for title, rows in titles[1].items()},
    }
    return sheet, model


def _parameters(model: PretrainingModel) -> dict[str, int]:
    counts = {True: 0, False: 0}
    for weight in model.parameters():
        counts[weight.requires_grad] += weight.numel()
    return {"trainable": counts[True], "frozen": counts[False], "total": sum(counts.values())}
