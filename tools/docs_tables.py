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
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from avtune import cli
from avtune.compare import from_json, markdown
from avtune.config import RunConfig
from avtune.fusion import METHODS
from avtune.fusion.lavish import LavishConfig
from avtune.heads import HEADS
from avtune.recipes.published import Published, published
from avtune.transforms import AUDIO_PRESETS
from avtune.tuning import TUNINGS

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PROFILES = ROOT / "benchmarks/results/profile_all.json"
DECODING = ROOT / "benchmarks/results/decode_speed.json"
COMPARISON = ROOT / "benchmarks/results/comparison_bandstand_nano.json"
SEEDS = ROOT / "benchmarks/results/try_seeds.json"
BLOCKS = ROOT / "benchmarks/results/method_blocks.json"
FLOORS = ("majority", "audio only", "video only", "shuffled audio")
MARKED = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


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


def recipes() -> str:
    """The recipes of the LAVISH paper's rows: what the paper reports and what avtune builds."""
    rows = []
    for profile in _profiles():
        row = published().get(profile["recipe"])
        if row is None or row.paper != "LAVISH":
            continue
        rows.append([
            f"`{profile['recipe']}`", row.table.removeprefix("Table "), f"{row.accuracy} %", _printed(row),
            f"{profile['trainable'] / 1e6:.3f} M", f"{profile['total_with_class_head'] / 1e6:.3f} M",
            f"{profile['method_gmacs']:.1f}",
        ])  # fmt: skip
    rows.sort(key=lambda row: (row[1], row[0]))
    return table(
        ["recipe", "Table", "published accuracy", "published weights", "trained here",
         "total here, as the paper counts", "method and head, GMAC per clip"],
        rows,
    )  # fmt: skip


def profiles() -> str:
    """The ruler: weights and costs of every recipe beside what its paper printed."""
    rows = []
    for profile in _profiles():
        row = published().get(profile["recipe"])
        head = profile["parts"]["head"]
        rows.append([
            f"`{profile['recipe']}`", row.source if row else "",
            f"{profile['trainable'] / 1e6:.3f}", f"{(profile['trainable'] - head) / 1e6:.3f}",
            f"{profile['total'] / 1e6:.3f}", f"{profile['total_with_class_head'] / 1e6:.3f}",
            _printed(row) if row else "",
            f"{profile['tower_gmacs']:.0f} + {profile['method_gmacs']:.1f}",
            f"{profile['saved_mib']:.0f} ({profile['tower_saved_mib']:.0f})", profile["verdict"],
        ])  # fmt: skip
    return table(
        ["recipe", "row of", "trained, M", "without the task head", "total, M", "with the unused class head",
         "printed", "GMAC: towers + method and head", "MiB kept for backward (towers alone)", "agrees"],
        rows,
    )  # fmt: skip


def _profiles() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(PROFILES.read_text(encoding="utf-8"))["rows"]
    return found


def _printed(row: Published) -> str:
    return "" if row.trainable is None else f"{row.trainable} of {row.total or '?'}"


def comparison() -> str:
    """The committed comparison of methods on generated clips; a plain sentence where it was not yet run."""
    if not COMPARISON.is_file():
        return "Not measured yet: `benchmarks/results/comparison_bandstand_nano.json` is absent.\n"
    content = json.loads(COMPARISON.read_text(encoding="utf-8"))
    rows = from_json(content)
    clear = [f"`{row.variant}`" for row in rows if row.verdict == "better"]
    others = [f"`{row.variant}`" for row in rows if row.verdict not in ("better", "reference")]
    machine = content["machine"]
    return (
        f"{markdown(rows)}\nScore: {content['score']} on {content['clips']} test clips; always giving the most "
        f"frequent answer gives {_percent(content['majority'])}. Reference: `{content['reference']}`. Clearly better "
        f"than it: {', '.join(clear) or 'none'}. Not clearly better: {', '.join(others) or 'none'}.\n\n"
        f"Commit {content['commit']}, seeds {', '.join(map(str, content['seeds']))}, {machine['processor']}, "
        f"{machine['cores']} cores, {machine['threads']} threads, PyTorch {content['versions']['torch']}.\n"
    )


def decoding() -> str:
    """How fast files are read, as `benchmarks/decode_speed.py` measured it."""
    measured = json.loads(DECODING.read_text(encoding="utf-8"))
    rows = [
        [row["size"], f"{row['key_frame_every_s']} s", row["what"], f"{row['cpu_ms']:.0f} ms",
         f"{row['clips_per_second_per_core']:.1f}"]
        for row in measured["rows"]
        if "clips_per_second_per_core" in row and "key_frame_every_s" in row
    ]  # fmt: skip
    heading = ["size", "key frame every", "what is read", "processor time", "clips per second and core"]
    return (
        f"{table(heading, rows)}\nClips: {measured['clips']}. {measured['note']} Measured by "
        f"`{measured['command']}` on {measured['machine']['cpu'].strip()}.\n"
    )


MEASURED_BLOCKS: dict[str, dict[str, str]] = {
    "lavish": {"lavish": "LAVISH", "avish": "AVISH"},
    "dg_sct": {"dg_sct": "DG-SCT"},
    "mbt": {"mbt": "MBT"},
    "stg_cma": {"stg_cma": "STG-CMA"},
    "copl": {"copl": "CoPL", "copl with interaction": "CoPL with interaction prompts"},
    "ma_avt": {"ma_avt": "MA-AVT"},
    "tuning": {
        "adapter houlsby": "`adapter` `houlsby`",
        "adapter lavish_table_5_lora": "`adapter` `lavish_table_5_lora`",
        "compacter": "`compacter` `paper`",
        "lora": "`lora` `attention`",
        "prompts": "`prompts` `deep`",
        "norms": "`norms` `own`",
        "full": "`full` `own`",
        "cma+adapter": "`cma` and `adapter` `lavish_table_5`",
    },
}
"""Page to what `benchmarks/method_blocks.py` measured for it, and how that is called there."""
BLOCK_FORMS = {
    "frozen": "frozen block alone",
    "frozen_unfused": "frozen block alone, scores kept",
    "avtune": "avtune",
    "straightforward": "straightforward",
}
REFUSED = "refused: takes towers of one width only"


def blocks() -> str:
    """Every method at one block: the frozen block alone, avtune, and the straightforward form."""
    measured: dict[str, Any] = json.loads(BLOCKS.read_text(encoding="utf-8"))
    titles = {name: title for page in MEASURED_BLOCKS.values() for name, title in page.items()}
    rows, more, slower = [], [], []
    for row in measured["rows"]:
        first = [titles[row["method"]], row["block"]]
        if "refused" in row:
            rows.append([*first, REFUSED, *[""] * 7])
            continue
        over = row["avtune_over_straightforward"]
        more += [f"{' at '.join(first)} ({over['saved_mib']})"] if over["saved_mib"] > 1 else []
        slower += [f"{' at '.join(first)} ({over['cpu_seconds']})"] if over["cpu_seconds"] > 1 else []
        cells = []
        for what, digits in (("saved_mib", 0), ("cpu_seconds", 2)):
            shown = {form: f"{value[what]:.{digits}f}" for form, value in row["forms"].items()}
            unfused = f" ({shown['frozen_unfused']})" if "frozen_unfused" in shown else ""
            cells += [shown["frozen"] + unfused, shown["avtune"], shown["straightforward"], f"{over[what]}"]
        rows.append([*first, *cells])
    heading = [
        "method", "block", "MiB: frozen block (scores kept)", "avtune", "straightforward", "ratio",
        "seconds: frozen block (scores kept)", "avtune", "straightforward", "ratio",
    ]  # fmt: skip
    return (
        f"{table(heading, rows)}\navtune keeps more than the straightforward form: {', '.join(more) or 'nowhere'}. It "
        f"takes longer: {', '.join(slower) or 'nowhere'}; where both run the same code, as for LoRA, norms and full "
        f"fine-tuning on Swin-V2, the ratio shows by how much times vary.\n\n{_measured_by(measured)}"
    )


def blocks_on(page: str) -> str:
    """The rows of one page, form by form."""
    measured: dict[str, Any] = json.loads(BLOCKS.read_text(encoding="utf-8"))
    titles = MEASURED_BLOCKS[page]
    found = [row for row in measured["rows"] if row["method"] in titles]
    rows, sentences = [], []
    for row in found:
        called = f"{titles[row['method']]}, {row['block']}"
        if "refused" in row:
            sentences.append(f"- {called}: {REFUSED}.")
            continue
        for form, name in BLOCK_FORMS.items():
            if form in row["forms"]:
                value = row["forms"][form]
                rows.append([
                    called, name, f"{value['gmacs']} G", f"{value['saved_mib']} MiB", f"{value['cpu_seconds']} s"
                ])  # fmt: skip
        frozen, naive = row["avtune_over_frozen"], row["avtune_over_straightforward"]
        worse = ["keeps more"] * (naive["saved_mib"] > 1) + ["takes longer"] * (naive["cpu_seconds"] > 1)
        sentences.append(
            f"- {called} ({row['audio_tokens']} tokens of sound, {row['video_tokens']} of a frame): avtune keeps "
            f"{frozen['saved_mib']} times the bytes of the frozen block alone and takes {frozen['cpu_seconds']} times "
            f"its time; of the straightforward form, {naive['saved_mib']} of the bytes and {naive['cpu_seconds']} of "
            f"the time{': it ' + ' and '.join(worse) if worse else ''}."
        )
    sentences += [
        f"- The authors' own code keeps {mib} MiB at the {block} block."
        for method in titles
        for block, mib in measured["authors_form_saved_mib"].get(method, {}).items()
    ]
    heading = ["block", "form", "multiply-adds", "kept for backward", "CPU time"]
    return f"{table(heading, rows)}\n{chr(10).join(sentences)}\n\n{_measured_by(measured)}"


def _measured_by(measured: Mapping[str, Any]) -> str:
    alike = [
        row["forms"]["frozen"]["cpu_seconds"]
        for row in measured["rows"]
        if (row["block"], row.get("audio_tokens")) == ("ViT-B", 49)
    ]
    return (
        f"Measured by `{measured['command']}` on one thread of a machine with other work on it ({measured['machine']}, "
        f"PyTorch {measured['torch']}): CPU time of the process, the least of {measured['repeats']} passes, the forms "
        f"of a row in turn. It varies: the same frozen ViT-B block took {min(alike):.2f} s in one row and "
        f"{max(alike):.2f} s in another. Bytes and operations do not.\n"
    )


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


def settings() -> str:
    """Every setting of a run, from the docstrings of the dataclasses."""
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

    add(RunConfig, "")
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


def try_results() -> str:
    """What ``avtune try`` reached, seed by seed; a plain sentence where it was not yet measured.

    ``benchmarks/experiments/try_seeds.py`` measures it: under ``runs`` lies the ``metrics.json`` of each
    seed's run, with wall time and memory of the whole command.
    """
    if not SEEDS.is_file():
        return "Not measured yet: `benchmarks/results/try_seeds.json` is absent.\n"
    measured: dict[str, Any] = json.loads(SEEDS.read_text(encoding="utf-8"))
    runs = sorted(measured["runs"], key=lambda run: run["seed"])
    columns = [
        [run["score"]["value"] for run in runs],
        *([run["floors"][name] for run in runs] for name in FLOORS),
    ]
    rows = [
        [f"{run['seed']}", *map(_percent, shares), f"{run['wall_seconds']:.0f} s"]
        for run, *shares in zip(runs, *columns, strict=True)
    ]
    means = [f"**{_percent(statistics.mean(column))}**" for column in columns]
    rows.append(["mean", *means, f"{statistics.mean(run['wall_seconds'] for run in runs):.0f} s"])
    peak = max(run["peak_process_mib"] for run in runs)
    heading = ["seed", "sound and frames", *FLOORS, "time of the whole command"]
    machine = f"{measured['machine']}, at most {peak} MiB of memory in one process"
    return f"{table(heading, rows)}\nMeasured by `{measured['command']}` ({machine}).\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


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
    "comparison": comparison,
    "decoding": decoding,
    "sounds": sounds,
    "settings": settings,
    "help": help_pages,
    "try": try_results,
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
