"""``avtune pretrain``, and ``eval`` and ``report`` of what it made."""

from __future__ import annotations

import argparse
from pathlib import Path

from avtune.cli.console import ConsoleObserver, report_run
from avtune.config import PretrainingRunConfig
from avtune.errors import AvtuneError
from avtune.model import CONFIG
from avtune.recipes import parse_pretraining_config, recipe_path, refuse_unknown, setting_names, to_yaml
from avtune.runs import ScoreSheet
from avtune.runs.pretraining import complete, pretrain_run, score_pretrained
from avtune.runs.training import REPORT


def pretrain(options: argparse.Namespace) -> int:
    """Pretrain a recipe's model into a run folder."""
    refuse_unknown(setting_names(options.settings), PretrainingRunConfig)
    base = recipe_path(options.recipe, PretrainingRunConfig) if options.recipe else None
    config = parse_pretraining_config(options.settings, base)
    if options.print_config:
        print(to_yaml(complete(config)), end="")
        return 0
    name = base.stem if base is not None else f"{config.data.name}_{config.pretraining.objective}"
    folder = Path(options.out or f"runs/{name}")
    with ConsoleObserver() as observer:
        sheet = pretrain_run(config, folder, observer)
    report_run(sheet, folder / REPORT)
    return 0


def score(options: argparse.Namespace) -> ScoreSheet:
    """Search clips with a pretraining run's model."""
    folder = Path(options.folder)
    if options.without is not None:
        raise AvtuneError(
            f"{folder}: is a pretraining run, whose score compares sound with frames; leave out --without"
        )
    data = parse_pretraining_config(options.settings, folder / CONFIG).data
    with ConsoleObserver() as observer:
        return score_pretrained(folder, data, options.split, observer)
