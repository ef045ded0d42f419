"""``avtune train``, ``eval`` and ``report``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from avtune.cli.console import ConsoleObserver, console, report_damage, report_run, score_table
from avtune.cli.pretraining import score as score_pretraining
from avtune.config import RunConfig
from avtune.errors import AvtuneError
from avtune.files import write_atomically
from avtune.model import AudioVisualModel, load
from avtune.pretrain.saved import holds_pretrained
from avtune.recipes import parse_config, recipe_path, refuse_unknown, setting_names, to_yaml
from avtune.report import write_run_page
from avtune.runs import (
    REPORT,
    Clips,
    ScoreSheet,
    prepare_clips,
    read_collection,
    read_metrics,
    run_report,
    score_run,
    train_run,
)
from avtune.runs.pretraining import write_pretraining_page


def train(options: argparse.Namespace) -> int:
    """Train a recipe into a run folder."""
    refuse_unknown(setting_names(options.settings))
    base = recipe_path(options.recipe) if options.recipe else None
    config = parse_config(options.settings, base)
    if options.print_config:
        print(to_yaml(config), end="")
        return 0
    name = base.stem if base is not None else "_".join((config.data.name, *config.encoder.methods))
    folder = Path(options.out or f"runs/{name}")
    with ConsoleObserver() as observer:
        sheet = train_run(config, folder, observer)
    report_run(sheet, folder / REPORT)
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Score a run on one of its splits."""
    folder = Path(options.folder)
    sheet = score_pretraining(options) if holds_pretrained(folder) else _score(options)
    console.print(score_table(sheet))
    report_damage(sheet.damaged)
    if options.json:
        content = {**asdict(sheet), "run": str(folder), "without": options.without}
        write_atomically(Path(options.json), json.dumps(content, indent=1, ensure_ascii=False).encode())
    return 0


def report(options: argparse.Namespace) -> int:
    """Write a run's page from what the run folder holds and its clips."""
    folder = Path(options.folder)
    if holds_pretrained(folder):
        write_pretraining_page(folder)
    else:
        _write_page(options)
    console.print(f"page: {folder / REPORT}", highlight=False)
    return 0


def _score(options: argparse.Namespace) -> ScoreSheet:
    folder = Path(options.folder)
    model, config = _loaded(folder, options.settings)
    with ConsoleObserver() as observer:
        clips = _clips(model, config, observer, options.split)
        return score_run(model, folder, clips, options.split, observer, options.without)


def _write_page(options: argparse.Namespace) -> None:
    folder = Path(options.folder)
    model, config = _loaded(folder, options.settings)
    sheet, seconds = read_metrics(folder)
    with ConsoleObserver() as observer:
        # The scores are recorded; only the clips that the page shows are decoded.
        collection = read_collection(config, observer)
        unread = replace(config, data=replace(config.data, cache=False))
        clips = prepare_clips(unread, model, collection, observer)
        page = run_report(model, folder, clips, sheet, seconds, options.clips)
    write_run_page(folder / REPORT, page)


def _loaded(folder: Path, settings: list[str]) -> tuple[AudioVisualModel, RunConfig]:
    model = load(folder, device="auto")
    moved = parse_config(settings, folder / "config.yaml")
    # Where the clips lie may have changed since; what the model is may not.
    config = replace(model.config, data=moved.data)
    return model, config


def _clips(model: AudioVisualModel, config: RunConfig, observer: ConsoleObserver, split: str) -> Clips:
    collection = read_collection(config, observer)
    if foreign := set(collection.labels) - set(model.labels):
        raise AvtuneError(
            f"{collection.root}: the model does not know its labels {', '.join(sorted(foreign))}; give the data it was "
            "trained on, or train anew"
        )
    return prepare_clips(config, model, collection, observer, (split,))
