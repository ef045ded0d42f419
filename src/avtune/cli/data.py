"""``avtune check`` and ``avtune data``."""

from __future__ import annotations

import argparse
from pathlib import Path

from avtune.cli.console import ConsoleObserver, console, listing
from avtune.config import DataConfig
from avtune.datasets import read
from avtune.datasets.bandstand import render_bandstand
from avtune.datasets.check import check as check_collection


def bandstand(options: argparse.Namespace) -> int:
    """Render bandstand clips."""
    with ConsoleObserver() as observer:
        summary = render_bandstand(
            Path(options.out), options.clips, seed=options.seed, workers=options.workers,
            progress=observer.bar("rendering clips", options.clips),
        )  # fmt: skip
    console.print(f"{summary.clips} clips in {options.out}", highlight=False)
    return 0


def check(options: argparse.Namespace) -> int:
    """Read every file of a dataset and say what is wrong with it."""
    config = DataConfig(name=options.name, root=options.root, index=options.index, split=options.split)
    collection = read(config)
    with ConsoleObserver() as observer:
        report = check_collection(
            collection, workers=options.workers, progress=observer.bar("checking files", None)
        )
    for warning in report.warnings:
        console.print(f"note: {warning}", highlight=False, markup=False)
    for table in report.tables():
        console.print()
        console.print(table.title, style="bold", highlight=False)
        console.print(listing(list(table.columns), [list(row) for row in table.rows]))
    console.print()
    console.print(report.headline(), highlight=False)
    report.write(Path(options.manifest))
    console.print(f"manifest: {options.manifest}", highlight=False)
    return 0 if report.usable else 1
