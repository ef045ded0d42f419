"""``avtune compare``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table

import avtune
from avtune.cli.console import ConsoleObserver, console
from avtune.compare import (
    CompareObserver,
    Comparison,
    ComparisonError,
    Row,
    RunResult,
    as_json,
    compare_methods,
    comparison_png,
    finished_costs,
    finished_results,
    markdown,
    measure_costs,
    processor_name,
    read_comparison,
    run_comparison,
    source_commit,
    summarise,
)
from avtune.compare.summary import HEADINGS, cells_of
from avtune.files import write_atomically
from avtune.recipes import refuse_unknown, setting_names

NAME = "comparison"


class ComparingObserver(ConsoleObserver, CompareObserver):
    """Shows which run of how many is under way; the bars of a run go when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.overall = self.progress.add_task("comparison", total=None, note="")

    def running(self, variant: str, seed: int, rate: float, done: int, runs: int) -> None:
        """Move the bar of all runs on and take those of the last one away."""
        self._next(done, runs, f"{variant}, seed {seed}, rate {rate:g}")

    def measuring(self, variant: str, done: int, variants: int) -> None:
        """Show what is measured."""
        self._next(done, variants, f"{variant}: memory and time")

    def ran(self, result: RunResult) -> None:
        """A line for each finished run, so that a log tells them too."""
        self.message(
            f"{result.variant}, seed {result.seed}, rate {result.learning_rate:g}: {100 * result.test:.1f} % "
            f"({result.seconds:.0f} s)"
        )

    def _next(self, done: int, of: int, note: str) -> None:
        for task in self.progress.task_ids:
            if task != self.overall:
                self.progress.remove_task(task)
        self.last_validation = ""
        self.progress.update(self.overall, completed=done, total=of, note=note)


def compare(options: argparse.Namespace) -> int:
    """Run a comparison, or go on with one, and write what it says so far."""
    refuse_unknown(setting_names(options.settings))
    comparison = _comparison(options)
    folder = Path(options.out or f"runs/compare_{comparison.name}")
    with ComparingObserver() as observer:
        run_comparison(comparison, folder, observer, options.only)
        # With --only another process may be at work beside this one.
        costs = (
            finished_costs(comparison, folder)
            if options.only
            else measure_costs(comparison, folder, observer)
        )
    results, searches = finished_results(comparison, folder)
    rows = summarise(results, comparison.reference, searches, costs)
    facts = _facts(comparison, results, options.settings)
    write_atomically(folder / f"{NAME}.json", json.dumps(as_json(rows, **facts), indent=1).encode())
    write_atomically(folder / f"{NAME}.md", markdown(rows).encode())
    comparison_png(folder / f"{NAME}.png", rows, score=facts["score"], floors={"majority": facts["majority"]})
    console.print(_table(rows))
    if missing := [name for name in comparison.variants if name not in {row.variant for row in rows}]:
        console.print(f"not run yet: {', '.join(missing)}", highlight=False)
    console.print(f"table, plot and numbers: {folder / NAME}.md, .png, .json", highlight=False)
    return 0


def _comparison(options: argparse.Namespace) -> Comparison:
    if (options.comparison is None) == (options.methods is None):
        raise ComparisonError(
            "name a comparison (`avtune list comparisons`), or methods by --methods lavish frozen ...; not both"
        )
    if options.methods is not None:
        found = compare_methods(options.methods, options.seeds or (0, 1, 2), options.settings)
    else:
        found = read_comparison(options.comparison, options.settings)
        if options.seeds is not None:
            found = replace(found, seeds=tuple(options.seeds))
    return found if options.reference is None else replace(found, reference=options.reference)


def _facts(comparison: Comparison, results: list[RunResult], settings: list[str]) -> dict[str, Any]:
    first = results[0]
    # Where the clips lie on this machine is nobody else's business.
    told = [setting for setting in settings if not setting.startswith("--data.root")]
    return {
        "comparison": comparison.name,
        "settings": shlex.join(told),
        "score": first.score,
        "majority": first.majority,
        "clips": first.clips,
        "seeds": list(comparison.seeds),
        "learning_rates": list(comparison.learning_rates),
        "reference": comparison.reference,
        # Of the runs, which may be older than this command; what they cost is measured by the present one.
        "commits": sorted({result.commit for result in results if result.commit}),
        "commit": source_commit(),
        "machine": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {
            "avtune": avtune.__version__, "torch": torch.__version__, "python": platform.python_version()
        },
    }  # fmt: skip


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for k, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if k in (0, 2) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in cells_of(row)))
    return table
