"""What people see in the terminal: progress bars, tables, messages."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from avtune.runs import RunObserver, ScoreSheet

# Of several processes under torchrun only the first speaks.
SILENT = os.environ.get("RANK", "0") != "0"
# Progress goes to standard error, results to standard output, so that results can be piped.
progress_console = Console(stderr=True, quiet=SILENT)
# Piped or in a log, tables need not fit a terminal of 80 columns.
console = Console(width=None if sys.stdout.isatty() else 160, quiet=SILENT)


def new_progress() -> Progress:
    """Bars for this process; only the first of several processes shows them."""
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=progress_console,
        disable=SILENT,
    )


class ConsoleObserver(RunObserver):
    """Shows a run's progress; use as a context manager."""

    def __init__(self) -> None:
        self.progress = new_progress()
        self.training: TaskID | None = None
        self.last_validation = ""

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def bar(self, text: str, total: int | None) -> Callable[[int, int], None]:
        """A new bar; the answer is called with (done, all)."""
        task = self.progress.add_task(text, total=total, note="")

        def update(done: int, whole: int) -> None:
            self.progress.update(task, completed=done, total=whole)

        return update

    def reading(self, clips: int) -> Callable[[int, int], None] | None:
        """A bar for the clips that are read."""
        return self.bar("reading clips", clips)

    def sharding(self, samples: int) -> Callable[[int, int], None] | None:
        """A bar for the samples that are written."""
        return self.bar("writing shards", samples)

    def scoring(self, what: str, clips: int) -> Callable[[int], None] | None:
        """A bar for the clips that are scored."""
        task = self.progress.add_task(f"scoring {what}", total=clips, note="")
        return lambda done: self.progress.advance(task, done)

    def started(self, step: int, steps: int) -> None:
        """A bar for the updates."""
        self.training = self.progress.add_task("training", total=steps, completed=step, note="")

    def stepped(self, row: dict[str, Any]) -> None:
        """Move the bar on."""
        assert self.training is not None
        note = f"loss {row['loss']:.3f}{self.last_validation}"
        self.progress.update(self.training, completed=row["step"] + 1, note=note)

    def evaluated(self, row: dict[str, Any]) -> None:
        """Show the validation score beside the bar."""
        if "validation" in row:
            self.last_validation = f"  validation {100 * row['validation']:.1f} %"

    def message(self, text: str) -> None:
        """Print above the bars."""
        self.progress.console.print(escape(text), highlight=False)


def score_table(sheet: ScoreSheet) -> Table:
    """The score above its floors."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_row(
        f"[bold]{sheet.scores.name}[/bold] ({sheet.split})", f"[bold]{100 * sheet.scores.value:.1f} %[/bold]"
    )
    for name, value in sheet.floors.items():
        table.add_row(f"  {escape(name)}", f"{100 * value:.1f} %")
    return table


def report_run(sheet: ScoreSheet, page: Path) -> None:
    """What a run reached, what it could not read, and where its page is."""
    console.print(score_table(sheet))
    report_damage(sheet.damaged)
    console.print(f"page: {page}", highlight=False)


def facts_table(facts: Mapping[str, str]) -> Table:
    """Names and values side by side."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, value in facts.items():
        table.add_row(escape(name), escape(value))
    return table


def listing(headings: list[str], rows: list[list[str]]) -> Table:
    """A table with a heading line."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def report_damage(damaged: Mapping[str, str]) -> None:
    """List the files that could not be read."""
    if damaged:
        console.print(f"{len(damaged)} files could not be read and were left out:", highlight=False)
        for name, problem in damaged.items():
            console.print(f"  {escape(name)}: {escape(problem)}", highlight=False)
