"""``avtune try``: from nothing to a page, without a network."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from avtune.cli.console import ConsoleObserver, console, report_damage, score_table
from avtune.config import RunConfig
from avtune.datasets.bandstand import render_bandstand
from avtune.recipes import parse_config, recipe_path
from avtune.runs import REPORT, train_run

RECIPE = "bandstand/lavish_nano"
CLIPS = 240


def try_avtune(options: argparse.Namespace) -> int:
    """Render clips, adapt the bundled backbone to them, score it, write the page."""
    started = time.perf_counter()
    out = Path(options.out)
    clips = options.clips or CLIPS
    with ConsoleObserver() as observer:
        observer.message(f"rendering {clips} clips of instruments that are heard, seen, or both")
        render_bandstand(
            out / "clips",
            clips,
            seed=options.seed,
            workers=2,
            progress=observer.bar("rendering clips", clips),
        )
        observer.message("adapting the frozen nano backbone with LAVISH, then the floors")
        sheet = train_run(_config(out, options.seed), out / "run", observer)
    console.print(score_table(sheet))
    report_damage(sheet.damaged)
    console.print(f"{time.perf_counter() - started:.0f} s in all", highlight=False)
    console.print(f"[bold]open this page:[/bold] {(out / 'run' / REPORT).resolve()}", highlight=False)
    console.print(f"then: avtune predict {out / 'run'} YOUR_VIDEO.mp4", highlight=False)
    return 0


def _config(out: Path, seed: int) -> RunConfig:
    config = parse_config((), recipe_path(RECIPE))
    return replace(
        config, data=replace(config.data, root=str(out / "clips")), train=replace(config.train, seed=seed)
    )
