"""A run from its configuration to its folder: read, prepare, train, score, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from avtune.config import EncoderConfig, RunConfig
from avtune.datasets import Record
from avtune.errors import AvtuneError
from avtune.files import write_atomically
from avtune.model import CONFIG, AudioVisualModel
from avtune.recipes import to_yaml
from avtune.report import write_run_page
from avtune.runs.clips import Clips, RunObserver, clip_order, prepare_clips, read_collection, scored_split
from avtune.runs.page import run_report
from avtune.runs.scoring import FLOORS, ScoreSheet, score_run, write_metrics
from avtune.tasks import create_task
from avtune.train import Trainer
from avtune.train.order import Order, balanced_weights, drawn, together

REPORT = "report.html"


def train_run(config: RunConfig, folder: Path, observer: RunObserver | None = None) -> ScoreSheet:
    """Train, score and report; the same call goes on with a run that was cut short.

    Args:
        config: What to do.
        folder: The run folder.
        observer: Who watches.

    Returns:
        The score on the test split (where there is none, on the validation split).

    Raises:
        avtune.errors.AvtuneError: Something is wrong that the user can mend.
    """
    observer = observer or RunObserver()
    started = time.perf_counter()
    collection = read_collection(config, observer)
    split = scored_split(collection)
    torch.manual_seed(config.train.seed)
    model = AudioVisualModel(config, collection.labels, words=collection.words)
    if config.train.floors:
        # What cannot have them is refused before the hours of training, not behind them.
        create_task(
            collection.labels, model.config.input, replace(config.head, streams="alone"), collection.words
        )
    if not (folder / "state").exists():
        model.task.begin(model.network.head)
        # A run with other settings in this folder is refused later and must keep its own.
        write_atomically(folder / CONFIG, to_yaml(model.config).encode())
    clips = prepare_clips(config, model, collection, observer)
    prepared = time.perf_counter()

    seconds = {"preparing clips": prepared - started}
    damaged = fit_model(model, config, folder, clips, observer)
    seconds["training"] = time.perf_counter() - prepared
    main = is_main()
    if main:
        model.save(folder)
    if config.train.floors:
        before = time.perf_counter()
        _fit_floors(config, folder / FLOORS, clips, observer)
        seconds["training the floors"] = time.perf_counter() - before
    before = time.perf_counter()
    sheet = score_run(model, folder, clips, split, observer)
    sheet.damaged = {**damaged, **sheet.damaged}
    seconds["scoring"] = time.perf_counter() - before
    seconds = {name: round(value, 2) for name, value in seconds.items()}
    if main:
        write_metrics(model, folder, clips, sheet, seconds)
        write_run_page(folder / REPORT, run_report(model, folder, clips, sheet, seconds))
    return sheet


def fit_model(
    model: AudioVisualModel, config: RunConfig, folder: Path, clips: Clips, observer: RunObserver
) -> dict[str, str]:
    """Train a model and put its best weights into it.

    Args:
        model: What is trained.
        config: How.
        folder: Run folder: log and state; the same call goes on with a run that was cut short.
        clips: On what.
        observer: Who watches.

    Returns:
        The files that could not be read, with what is wrong with each.
    """
    train = clips.splits["train"]
    if config.train.compile:
        if config.train.checkpoint:
            raise AvtuneError(
                "train.compile and train.checkpoint do not go together: the compiler cannot follow a step that is "
                "computed twice; leave one of them out"
            )
        model.network.encoder.compile()
    trainer = Trainer(
        model.network, model.task, model.config, folder, train, clips.splits.get("validation"),
        names=[record.name for record in train.records],
        order=_order(config, train.records),
        observer=observer,
        workers=0 if train.cached else config.data.workers,
    )  # fmt: skip
    result = trainer.fit()
    model.network.load_trained_state(result.weights)
    model.eval()
    return result.progress.damaged


def _order(config: RunConfig, records: Sequence[Record]) -> Order:
    if config.train.sampling != "uniform" and config.data.shards_at_once is not None:
        raise AvtuneError(
            f"train.sampling {config.train.sampling} draws clips from all shards; leave data.shards_at_once out"
        )
    if config.train.sampling == "balanced":
        return drawn(balanced_weights([record.truths for record in records]))
    if config.train.sampling == "by_clip":
        return together([(record.source, record.start) for record in records])
    return clip_order(config.data, records)


def _fit_floors(config: RunConfig, folder: Path, clips: Clips, observer: RunObserver) -> None:
    """Train the audio-only and the video-only model, as bottleneck adapters without exchange."""
    observer.message("training the floors: the sound alone and the frames alone, same clips and schedule")
    options = config.encoder.options if config.encoder.fusion == "lavish" else {}
    encoder = EncoderConfig(**{
        **asdict(config.encoder), "fusion": "lavish", "options": {**options, "direction": "none"},
        "preset": config.encoder.preset if config.encoder.fusion == "lavish" else None,
    })  # fmt: skip
    # A head for two streams has nothing to compare where one is missing.
    head = replace(
        config.head,
        streams="alone",
        name="segment",
        preset=None if config.head.name != "segment" else config.head.preset,
    )
    alone = replace(
        config, encoder=encoder, head=head, train=replace(config.train, floors=False, mining="off")
    )
    torch.manual_seed(config.train.seed)
    model = AudioVisualModel(alone, clips.collection.labels, words=clips.collection.words)
    if not (folder / "state").exists():
        model.task.begin(model.network.head)
    fit_model(model, alone, folder, clips, observer)
    if is_main():
        model.save(folder)
    if torch.distributed.is_initialized():
        # Every process reads them back for scoring.
        torch.distributed.barrier()


def is_main() -> bool:
    """Whether this is the only process, or the first of several."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
