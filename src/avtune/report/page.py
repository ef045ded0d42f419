"""One HTML file for a run or a prediction: everything inside, nothing loaded from elsewhere."""

import base64
import hashlib
import importlib.resources
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avtune.files import write_atomically
from avtune.report import figures, numbers, palette, tables
from avtune.report.cards import prediction_card
from avtune.report.shown import ShownClip
from avtune.report.timeline import TimelineClip


@dataclass(frozen=True)
class RunReport:
    """What a run's page tells.

    Attributes:
        title: Heading of the page.
        summary: Facts about what was trained on what, name to value, in the order to show.
        score: The score reached, a share in [0, 1].
        score_name: What the score is, such as "accuracy over segments".
        floors: Scores to beat, name to share in [0, 1]: majority, audio only, video only, shuffled audio.
        log: Rows of ``log.jsonl``, with "epoch", "step", "loss", "validation", "lr" where they apply.
        parameters: Counts under "trainable", "frozen" and "total"; under "by_part" a mapping of the
            trainable ones, part to count.
        seconds: Wall-clock time by stage, in seconds.
        per_class: Rows for :func:`avtune.report.tables.class_table`.
        tables: Further tables in the same form, rows by title.
        confusion: Counts of true against predicted labels, shape (K, K).
        labels: The K names of the confusion's rows; by default those of the first clip.
        clips: Clips to play above what was predicted of them.
        config_yaml: The complete configuration, shown as it is.
        notes: Sentences the reader should know, such as files that were skipped.

    Raises:
        ValueError: The score or a floor is no share in [0, 1].
    """

    title: str
    summary: Mapping[str, object]
    score: float
    score_name: str
    floors: Mapping[str, float] = field(default_factory=dict)
    log: Sequence[Mapping[str, object]] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    per_class: Sequence[Mapping[str, object]] = ()
    tables: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None
    labels: tuple[str, ...] = ()
    clips: Sequence[ShownClip | TimelineClip] = ()
    config_yaml: str = ""
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, value in {self.score_name: self.score, **self.floors}.items():
            if not 0 <= value <= 1 or not math.isfinite(value):
                raise ValueError(f"{name} is {value}; it must be a share between 0 and 1")


def write_run_page(path: str | Path, report: RunReport) -> None:
    """Write the page of a run. An existing file at `path` is replaced, and only by a whole one."""
    path = Path(path)
    cards = [prediction_card(clip, path.parent, heading="h3") for clip in report.clips]
    sections = [
        section("Clips", "".join(card.html for card in cards)),
        section("Training", figures.training_curves(report.log)),
        section("Parameters", _parameters(report.parameters)),
        section("Time spent", _seconds(report.seconds)),
        *(section(title, tables.class_table(rows)) for title, rows in report.tables.items()),
        section("Scores by class", tables.class_table(report.per_class)),
        section("Confusion", _confusion(report)),
        section("Notes", tables.notes(report.notes)),
        section("Configuration", _configuration(report.config_yaml)),
    ]
    header = (
        f'<p class="kicker">avtune run</p><h1>{escape(report.title)}</h1>'
        f'<div class="lead"><div class="headline"><p class="figure">{numbers.percent(report.score)}</p>'
        f"<p>{escape(report.score_name)}</p>{_margin(report)}</div>"
        f"{figures.score_bars(report.score, report.score_name, report.floors)}</div>"
        f"{tables.facts(report.summary)}"
    )
    write_page(path, report.title, header + "".join(sections), any(card.linked for card in cards))


def write_prediction_page(
    path: str | Path, clip: ShownClip | TimelineClip, model_facts: Mapping[str, object] | None = None
) -> None:
    """Write the page of one prediction.

    Args:
        path: The file to write; an existing one is replaced, and only by a whole one.
        clip: The prediction; its video is embedded, or linked where it is too large.
        model_facts: What predicted it, name to value, in the order to show.
    """
    path = Path(path)
    card = prediction_card(clip, path.parent, heading="")
    header = f'<p class="kicker">avtune prediction</p><h1>{escape(clip.name)}</h1>'
    body = header + card.html + section("Model", tables.facts(model_facts) if model_facts else "")
    write_page(path, clip.name, body, card.linked)


def section(title: str, content: str) -> str:
    """HTML under a heading; nothing where there is no content."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _margin(report: RunReport) -> str:
    if not report.floors:
        return ""
    name, best = max(report.floors.items(), key=lambda item: item[1])
    difference = numbers.points(report.score - best)
    return f'<p class="quiet">{difference} points against the best floor, {escape(name)}</p>'


def _parameters(parameters: Mapping[str, object]) -> str:
    amounts = {
        name: value for name in ("trainable", "frozen") if isinstance(value := parameters.get(name), int)
    }
    if not amounts:
        return ""
    total = parameters.get("total", sum(amounts.values()))
    written = {name: numbers.count(amount) for name, amount in amounts.items()}
    bar = figures.share_bar(amounts, written)
    total_line = f"<p>Total: <b>{numbers.count(total)}</b></p>" if isinstance(total, int) else ""
    parts = parameters.get("by_part")
    if not isinstance(parts, Mapping) or not parts:
        return bar + total_line
    listed = {str(name): numbers.count(int(amount)) for name, amount in parts.items()}
    return f"{bar}{total_line}<h3>Trainable, by part</h3>{tables.facts(listed)}"


def _seconds(seconds: Mapping[str, float]) -> str:
    if not seconds:
        return ""
    written = {name: numbers.duration(amount) for name, amount in seconds.items()}
    total = f"<p>Total: <b>{numbers.duration(sum(seconds.values()))}</b></p>"
    return figures.share_bar(seconds, written) + total


def _confusion(report: RunReport) -> str:
    if report.confusion is None:
        return ""
    labels = report.labels or (report.clips[0].labels if report.clips else ())
    return tables.confusion_table(report.confusion, labels)


def _configuration(config_yaml: str) -> str:
    if not config_yaml:
        return ""
    return f"<details><summary>config.yaml</summary><pre>{escape(config_yaml)}</pre></details>"


def write_page(path: Path, title: str, body: str, linked: bool) -> None:
    """Write a page around its body, with style and script inside. An existing file is replaced, only by a whole one.

    Args:
        path: The file.
        title: Of the browser's window.
        body: HTML.
        linked: Whether it links to media beside it.
    """
    files = importlib.resources.files("avtune.report")
    style = files.joinpath("page.css").read_text(encoding="utf-8") + palette.css()
    script = files.joinpath("page.js").read_text(encoding="utf-8")
    document = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script, linked)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n<footer>Made by avtune. Everything shown is inside this file"
        f"{', save for the linked media' if linked else ''}.</footer>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )
    write_atomically(path, document.encode())


def _policy(script: str, linked: bool) -> str:
    """The content security policy: this very script, inline styles and embedded media, nothing else.

    A page that links its media may load it from the folder tree it lies in, by file or from its own host.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    beside = " 'self' file:" if linked else ""
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        f"media-src data: blob:{beside}; base-uri 'none'; form-action 'none'"
    )
