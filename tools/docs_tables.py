"""Tables of the documentation and of README.md, made from the code and from measured results.

    python tools/docs_tables.py            # rewrite the marked parts of README.md
    python tools/docs_tables.py --check    # only say whether they are current

The build of the documentation calls :func:`write_pages` for its own tables, so these cannot grow stale.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from avtune import cli
from avtune.config import PretrainingRunConfig, RunConfig
from avtune.fusion import METHODS
from avtune.fusion.lavish import LavishConfig
from avtune.heads import HEADS
from avtune.transforms import AUDIO_PRESETS
from avtune.tuning import TUNINGS
from docs_measured import (
    MEASURED_BLOCKS,
    blocks,
    blocks_on,
    comparison,
    decoding,
    grid,
    profiles,
    recipes,
    shard_speed,
    table,
    task_scores,
    try_results,
)
from docs_pretraining import finetuning_scores, packing, pretraining_cost, pretraining_scores

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
MARKED = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def methods() -> str:
    rows = [
        [f"`{name}`", method.title, method.paper or "(baseline)", ", ".join(f"`{p}`" for p in method.presets)]
        for name, method in METHODS.items()
    ]
    return table(["method", "what it is", "published", "presets"], rows)


def tunings() -> str:
    rows = [
        [f"`{name}`", tuning.title, tuning.paper, ", ".join(f"`{p}`" for p in tuning.presets)]
        for name, tuning in TUNINGS.items()
    ]
    return table(["tuning", "what it is", "published", "presets"], rows)


def heads() -> str:
    rows = [
        [f"`{name}`", head.title, head.paper, ", ".join(f"`{p}`" for p in head.presets)]
        for name, head in HEADS.items()
    ]
    return table(["head", "what it is", "published", "presets"], rows)


def variants() -> str:
    """The variants of LAVISH that Table 4 of its paper compares, each one option away from another."""
    directions = LavishConfig.__annotations__["direction"]
    names = ast.literal_eval(directions.removeprefix("Literal").strip())
    rows = [[f"`--encoder.options.direction {name}`", _directions()[name]] for name in names]
    rows.append(
        [
            "`--encoder.options.latents 0`",
            "AVISH: full cross-attention instead of latent tokens, any direction",
        ]
    )
    return table(["setting of `lavish`", "what it does"], rows)


def _directions() -> dict[str, str]:
    return {
        "both": "each stream hears the other (the default)",
        "audio_to_visual": "the frames hear the sound, not the other way round",
        "visual_to_audio": "the sound hears the frames, not the other way round",
        "none": "plain adapters: the streams meet in the head alone",
    }


def presets() -> str:
    """Every setting of LAVISH under every preset."""
    known: Mapping[str, LavishConfig] = METHODS["lavish"].presets
    rows = []
    for field in dataclasses.fields(LavishConfig):
        values = [getattr(preset, field.name) for preset in known.values()]
        shown = [f"`{_yaml(value)}`" for value in values]
        rows.append([f"`{field.name}`", *(value if value == shown[0] else f"**{value}**" for value in shown)])
    return table(["setting", *(f"`{name}`" for name in known)], rows)


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def sounds() -> str:
    rows = [
        [
            f"`{name}`",
            f"{p.steps} x {p.mels}",
            f"{p.shift_ms:g} ms",
            f"{p.seconds:g} s",
            p.placement,
            p.source,
        ]
        for name, p in AUDIO_PRESETS.items()
    ]
    return table(["preset", "steps x mels", "shift", "window", "placement", "source"], rows)


def settings(whole: type[RunConfig | PretrainingRunConfig] = RunConfig, sections: Sequence[str] = ()) -> str:
    """Every setting of a kind of run, from the docstrings of the dataclasses; only those of some sections, if given."""
    rows: list[list[str]] = []

    def add(kind: type, prefix: str) -> None:
        described = _attributes(inspect.getdoc(kind) or "")
        for field in dataclasses.fields(kind):
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
            if dataclasses.is_dataclass(default):
                add(type(default), f"{prefix}{field.name}.")
            else:
                shown = "" if default is None else f"`{json.dumps(default)}`"
                rows.append([f"`--{prefix}{field.name}`", shown, described[field.name]])

    add(whole, "")
    wanted = tuple(f"`--{section}." for section in sections)
    rows = [row for row in rows if not wanted or row[0].startswith(wanted)]
    return table(["setting", "default", "meaning"], rows)


def _attributes(docstring: str) -> dict[str, str]:
    """Name to text of a Google-style ``Attributes:`` section."""
    section = docstring.partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    for line in section.splitlines():
        if match := re.match(r" {4}(\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        elif line.strip():
            found[name] += f" {line.strip()}"
    return {name: text.replace("``", "`") for name, text in found.items()}


def help_pages() -> str:
    """The help text of every command."""
    width, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "96"
    try:
        parts = []
        for name, command in _commands(cli._parser()):
            parts.append(f"## avtune {name}\n\n```text\n{command.format_help().rstrip()}\n```\n")
    finally:
        if width is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = width
    return "\n".join(parts)


def _commands(parser: argparse.ArgumentParser, prefix: str = "") -> list[tuple[str, argparse.ArgumentParser]]:
    found: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                nested = _commands(command, f"{prefix}{name} ")
                found += nested or [(f"{prefix}{name}", command)]
    return found


README_PARTS: dict[str, Callable[[], str]] = {
    "methods": methods,
    "tunings": tunings,
    "variants": variants,
    "try": try_results,
}
PAGES: dict[str, Callable[[], str]] = {
    "methods": methods,
    "tunings": tunings,
    "heads": heads,
    "variants": variants,
    "presets": presets,
    "recipes": recipes,
    "profiles": profiles,
    "grid": grid,
    "comparison": comparison,
    "decoding": decoding,
    "shard_speed": shard_speed,
    "sounds": sounds,
    "settings": settings,
    "packing": packing,
    "pretraining_cost": pretraining_cost,
    "pretraining_scores": pretraining_scores,
    "finetuning_scores": finetuning_scores,
    "pretraining_settings": partial(settings, PretrainingRunConfig, ("pretraining", "train")),
    "help": help_pages,
    "try": try_results,
    "task_scores": task_scores,
    "blocks": blocks,
    **{f"blocks_{page}": partial(blocks_on, page) for page in MEASURED_BLOCKS},
}


def filled(text: str) -> str:
    """A document with its marked parts as they should be."""
    return MARKED.sub(lambda match: f"{match[1]}{README_PARTS[match[2]]()}{match[3]}", text)


def write_pages(folder: Path) -> None:
    """Write the tables that pages of the documentation include."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (folder / f"{name}.inc").write_text(make(), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fill the marked parts of README.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where it is not current")
    options = parser.parse_args()
    present = README.read_text(encoding="utf-8")
    wanted = filled(present)
    if options.check:
        return int(present != wanted)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
