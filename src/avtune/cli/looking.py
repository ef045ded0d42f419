"""``avtune profile`` and ``avtune list``."""

from __future__ import annotations

import argparse
import fnmatch
import json
from dataclasses import asdict
from pathlib import Path

from avtune.backbones.timm_loading import timm
from avtune.cli.console import console, facts_table, listing, new_progress
from avtune.compare.plan import FOLDER, comparison_names
from avtune.config import PretrainingRunConfig, RunConfig
from avtune.counting import millions
from avtune.datasets import READERS
from avtune.errors import AvtuneError
from avtune.files import write_atomically
from avtune.fusion import METHODS
from avtune.heads import HEADS
from avtune.profile import Cost, measure
from avtune.profile_all import (
    GRID_TOWERS,
    ProfileRow,
    Refusal,
    grid_methods,
    profile_all,
    profile_grid,
)
from avtune.recipes import parse_config, recipe_names, recipe_path
from avtune.transforms import AUDIO_PRESETS
from avtune.tuning import TUNINGS


def profile(options: argparse.Namespace) -> int:
    """Show what a recipe costs, or what all of them do."""
    if options.all:
        return _profile_all(options)
    config = parse_config(options.settings, recipe_path(options.recipe) if options.recipe else None)
    labels = tuple(f"label {k}" for k in range(options.labels))
    cost = measure(config, labels, repeats=3 if options.time else 0)
    console.print(facts_table(_facts(cost, config.input.segments)))
    if options.json:
        content = {
            **asdict(cost),
            "total": cost.parameters.total,
            "published": cost.parameters.total_published,
        }
        write_atomically(Path(options.json), json.dumps(content, indent=1).encode())
    return 0


def _profile_all(options: argparse.Namespace) -> int:
    names = fnmatch.filter(recipe_names(), options.recipe or "*")
    if not names:
        raise AvtuneError(f"no recipe matches {options.recipe!r}; `avtune list recipes` shows them all")
    if options.settings:
        raise AvtuneError(f"profile --all takes recipes as they are; leave out {options.settings[0]}")
    rows: list[ProfileRow] = []
    refused: list[Refusal] = []
    combinations = 0 if options.recipe else len(GRID_TOWERS) * len(grid_methods())
    with new_progress() as progress:
        task = progress.add_task("profiles", total=len(names) + combinations, note="")
        for row in profile_all(names):
            rows.append(row)
            progress.update(task, advance=1, note=row.recipe)
        if combinations:
            for found in profile_grid(began=lambda note: progress.update(task, note=note)):
                if isinstance(found, Refusal):
                    refused.append(found)
                else:
                    rows.append(found)
                progress.update(task, advance=1)
    headings = [
        "recipe",
        "trained",
        "head",
        "total",
        "as the paper counts",
        "printed",
        "GMAC",
        "MiB kept",
        "verdict",
    ]
    console.print(listing(headings, [_ruled(row) for row in rows]))
    for refusal in refused:
        console.print(f"{refusal.method} does not walk {refusal.tower}: {refusal.reason}", highlight=False)
    if options.json:
        content = {"rows": [row.as_json() for row in rows], "refused": [asdict(one) for one in refused]}
        write_atomically(Path(options.json), (json.dumps(content, indent=1) + "\n").encode())
    return 0


def _ruled(row: ProfileRow) -> list[str]:
    weights, printed = row.parameters, row.published
    assert row.cost is not None
    return [
        row.recipe or f"({row.method} on {row.tower})",
        millions(weights.trainable),
        millions(weights.parts["head"]),
        millions(weights.total),
        millions(row.total),
        "" if printed is None else printed.weights,
        f"{row.cost.tower_gmacs:.0f} + {row.cost.method_gmacs:.1f}",
        f"{row.cost.saved_mib:.0f}",
        row.verdict,
    ]


def _facts(cost: Cost, segments: int) -> dict[str, str]:
    parameters = cost.parameters
    facts = {"trainable": millions(parameters.trainable)}
    facts |= {f"  {part}": millions(count) for part, count in parameters.parts.items() if count}
    facts |= {
        "frozen": millions(parameters.frozen),
        "total": millions(parameters.total),
        "total as papers count": f"{millions(parameters.total_published)} (with the towers' unused class head)",
        "towers": f"{cost.tower_gmacs:.2f} GMAC per clip of {segments} segments",
        "method and head": f"{cost.method_gmacs:.2f} GMAC",
        "kept for backward": f"{cost.saved_mib:.0f} MiB per clip (towers alone: {cost.tower_saved_mib:.0f} MiB)",
    }
    if cost.seconds is not None:
        facts["forward and backward"] = f"{cost.seconds:.2f} s per clip on this machine's CPU"
    return facts


def show(options: argparse.Namespace) -> int:
    """List what there is."""
    if options.what == "methods":
        rows = [[name, method.title, method.paper] for name, method in METHODS.items()]
        console.print(listing(["method", "what it is", "published"], rows))
    elif options.what == "presets":
        rows = [
            [name, preset] for table in (METHODS, TUNINGS) for name in table for preset in table[name].presets
        ]
        console.print(listing(["method or tuning", "preset"], rows))
    elif options.what == "tunings":
        rows = [[name, tuning.title, tuning.paper] for name, tuning in TUNINGS.items()]
        console.print(listing(["tuning", "what it is", "published"], rows))
    elif options.what == "heads":
        rows = [[name, head.title, head.paper] for name, head in HEADS.items()]
        console.print(listing(["head", "what it is", "published"], rows))
    elif options.what == "recipes":
        kinds = (RunConfig, PretrainingRunConfig)
        rows = [[name, _first_line(recipe_path(name, kind))] for kind in kinds for name in recipe_names(kind)]
        console.print(listing(["recipe", "source"], rows))
    elif options.what == "comparisons":
        rows = [[name, _first_line(FOLDER / f"{name}.yaml")] for name in comparison_names()]
        console.print(listing(["comparison", "what it holds"], rows))
    elif options.what == "datasets":
        console.print("\n".join(READERS), highlight=False)
    elif options.what == "sounds":
        rows = [[name, preset.source] for name, preset in AUDIO_PRESETS.items()]
        console.print(listing(["preset", "source"], rows))
    else:
        print("\n".join(["nano", *timm.list_pretrained(options.pattern)]))
    return 0


def _first_line(path: Path) -> str:
    """The comment that heads a packaged file."""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()
