"""Tables of the documentation that hold measured numbers, from the files in `benchmarks/results`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avtune.compare import from_json, markdown
from avtune.profile_all import GRID_TOWERS
from avtune.recipes.published import published

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks/results"
PROFILES = RESULTS / "profile_all.json"
DECODING = RESULTS / "decode_speed.json"
SHARDS = RESULTS / "shard_speed.json"
COMPARISON = RESULTS / "comparison_bandstand_nano.json"
SEEDS = RESULTS / "try_seeds.json"
BLOCKS = RESULTS / "method_blocks.json"
TASK_SCORES = RESULTS / "bandstand_tasks.json"
FLOORS = ("majority", "audio only", "video only", "shuffled audio")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def recipes() -> str:
    """The recipes of the LAVISH paper's rows: what the paper reports and what avtune builds."""
    rows = []
    for profile in _profiles():
        row = published().get(profile["recipe"])
        if row is None or row.paper != "LAVISH":
            continue
        rows.append([
            f"`{profile['recipe']}`", row.table.removeprefix("Table "),
            "" if row.accuracy is None else f"{row.accuracy} %", row.weights,
            f"{profile['trainable'] / 1e6:.3f} M", f"{profile['total'] / 1e6:.3f} M",
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
        if profile["recipe"] is None:
            continue
        row = published().get(profile["recipe"])
        counts = ("trainable", "trainable_without_head", "total_built", "total_without_head",
                  "total_with_class_head", "total")  # fmt: skip
        rows.append([
            f"`{profile['recipe']}`", row.source if row else "",
            *(f"{profile[count] / 1e6:.3f}" for count in counts), row.weights if row else "",
            f"{profile['tower_gmacs']:.0f} + {profile['method_gmacs']:.1f}",
            f"{profile['saved_mib']:.0f} ({profile['tower_saved_mib']:.0f})", profile["verdict"],
        ])  # fmt: skip
    return table(
        ["recipe", "row of", "trained, M", "without the task head", "total, M", "without the task head",
         "with the unused class head", "as the paper counts", "printed", "GMAC: towers + method and head",
         "MiB kept for backward (towers alone)", "agrees"],
        rows,
    )  # fmt: skip


def grid() -> str:
    """Every method and tuning in its first preset on four towers."""
    content = json.loads(PROFILES.read_text(encoding="utf-8"))
    cells = {(row["method"], row["tower"]): "refused" for row in content["refused"]}
    for row in content["rows"]:
        if row["recipe"] is None:
            kept = row["saved_mib"] / row["tower_saved_mib"]
            costs = f"{row['method_gmacs']:.1f} GMAC, {kept:.2f} x"
            cells[row["method"], row["tower"]] = f"{row['trainable_without_head'] / 1e6:.3f} M, {costs}"
    names = dict.fromkeys(row["method"] for row in content["rows"] if row["recipe"] is None)
    rows = [[f"`{name}`", *(cells[name, tower] for tower in GRID_TOWERS.values())] for name in names]
    reasons = dict.fromkeys(f"`{row['method']}`: {row['reason']}." for row in content["refused"])
    return f"{table(['method', *GRID_TOWERS], rows)}\nRefused: {' '.join(reasons)}\n"


def _profiles() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(PROFILES.read_text(encoding="utf-8"))["rows"]
    return found


def comparison() -> str:
    """The committed comparison of methods on generated clips; a plain sentence where it was not yet run."""
    return measured_in(COMPARISON, _comparison)


def _comparison(content: Mapping[str, Any]) -> str:
    rows = from_json(content)
    clear = [f"`{row.variant}`" for row in rows if row.verdict == "better"]
    others = [f"`{row.variant}`" for row in rows if row.verdict not in ("better", "reference")]
    machine = content["machine"]
    return (
        f"{markdown(rows)}\nScore: {content['score']} on {content['clips']} test clips; always giving the most "
        f"frequent answer gives {_percent(content['majority'])}. Reference: `{content['reference']}`. Clearly better "
        f"than it: {', '.join(clear) or 'none'}. Not clearly better: {', '.join(others) or 'none'}.\n\n"
        f"Commit {', '.join(content['commits'])}, seeds {', '.join(map(str, content['seeds']))}, learning rates "
        f"{', '.join(map(str, content['learning_rates']))}, {machine['processor']}, "
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


def shard_speed() -> str:
    """How fast clips come from files and from shards, as `benchmarks/shard_speed.py` measured it."""
    measured = json.loads(SHARDS.read_text(encoding="utf-8"))
    recipes = list(dict.fromkeys(row["recipe"] for row in measured["rows"]))
    speeds = {(row["read"], row["recipe"]): f"{row['clips_per_cpu_second']:.0f}" for row in measured["rows"]}
    ways = dict.fromkeys(row["read"] for row in measured["rows"])
    rows = [[way, *(speeds[way, recipe] for recipe in recipes)] for way in ways]
    rows.append(
        ["megabytes of a prepared clip", *(f"{measured['megabytes'][recipe]:.2f}" for recipe in recipes)]
    )
    heading = ["clips per second and core", *(f"`{recipe}`" for recipe in recipes)]
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


def try_results() -> str:
    """What ``avtune try`` reached, seed by seed; a plain sentence where it was not yet measured.

    ``benchmarks/experiments/try_seeds.py`` measures it: under ``runs`` lies the ``metrics.json`` of each
    seed's run, with wall time and memory of the whole command.
    """
    return measured_in(SEEDS, _try_results)


def _try_results(measured: Mapping[str, Any]) -> str:
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


def task_scores() -> str:
    """What each task reached on generated clips beside its floors, means over seeds; a plain sentence before that."""
    return measured_in(TASK_SCORES, _task_scores)


def _task_scores(measured: Mapping[str, Any]) -> str:
    by_task: dict[str, list[dict[str, Any]]] = {}
    for run in measured["runs"]:
        by_task.setdefault(run["task"], []).append(run)
    rows = []
    for task, runs in by_task.items():
        score = f"**{spread(100 * run['score']['value'] for run in runs)}**"
        floors = {name: statistics.mean(run["floors"][name] for run in runs) for name in runs[0]["floors"]}
        told = ", ".join(f"{name} {100 * value:.1f}" for name, value in floors.items())
        rows.append([f"`bandstand/{task}_nano`", runs[0]["score"]["name"], score, told])
    return f"{table(['recipe', 'score, %', 'reached', 'floors'], rows)}\n{over_seeds(measured)}"


def measured_in(file: Path, show: Callable[[Mapping[str, Any]], str]) -> str:
    """A file of results as a page shows it; a plain sentence where nothing was measured yet."""
    if not file.is_file():
        return f"Not measured yet: `benchmarks/results/{file.name}` is absent.\n"
    return show(json.loads(file.read_text(encoding="utf-8")))


def spread(values: Iterable[float]) -> str:
    """Their mean, and where there are several their standard deviation."""
    found = list(values)
    deviation = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.1f}{deviation}"


def over_seeds(measured: Mapping[str, Any]) -> str:
    """Which seeds a table is over, and what measured it."""
    seeds = sorted({run["seed"] for run in measured["runs"]})
    told = "Mean and standard deviation over the seeds" if len(seeds) > 1 else "One run each, of seed"
    return (
        f"{told} {', '.join(map(str, seeds))}. Measured by `{measured['command']}` ({measured['machine']}, "
        f"PyTorch {measured['torch']}).\n"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
