"""``avtune check`` and ``avtune data``."""

from __future__ import annotations

import argparse
from pathlib import Path

from avtune.cli.console import ConsoleObserver, console, listing, report_damage
from avtune.config import DataConfig
from avtune.datasets import read
from avtune.datasets.bandstand import render_bandstand
from avtune.datasets.check import check as check_collection
from avtune.datasets.shards import index_shards
from avtune.errors import AvtuneError
from avtune.recipes import parse_recipe
from avtune.runs.sharding import shard_dataset


def bandstand(options: argparse.Namespace) -> int:
    """Render bandstand clips."""
    with ConsoleObserver() as observer:
        summary = render_bandstand(
            Path(options.out), options.clips, seed=options.seed, workers=options.workers,
            progress=observer.bar("rendering clips", options.clips),
        )  # fmt: skip
    console.print(f"{summary.clips} clips in {options.out}", highlight=False)
    return 0


def shard(options: argparse.Namespace) -> int:
    """Pack a dataset into shards."""
    if options.prepared and options.recipe is None:
        raise AvtuneError("--prepared packs what a model takes of the clips; name the recipe of the model")
    config = parse_recipe(options.recipe, options.settings)
    with ConsoleObserver() as observer:
        written = shard_dataset(
            config, Path(options.out), prepared=options.prepared, gigabytes=options.gigabytes, seed=options.seed,
            workers=options.workers, observer=observer,
        )  # fmt: skip
    report_damage(written.damaged)
    console.print(f"{written.samples} samples in {written.shards} shards in {options.out}", highlight=False)
    return 0 if written.samples else 1


def index(options: argparse.Namespace) -> int:
    """Index shards that others wrote."""
    with ConsoleObserver() as observer:
        found = index_shards(Path(options.root), options.workers, observer.bar("indexing shards", None))
    report_damage(found.damaged)
    console.print(f"{found.samples} samples found; {found.shards} shards have an index", highlight=False)
    return 0 if found.shards else 1


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
