"""A parsed clip: what is heard and what is seen as two bands of rows over one time axis, and its plain files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avtune.metrics.parsing import runs, segment_scores
from avtune.report import numbers, palette, tables
from avtune.report.answer_json import write_answer_json
from avtune.report.player import ClipCard, clip_article, rows_over_time, script_json, shown_media
from avtune.report.shown import ShownClip
from avtune.tasks import ParsingPrediction, Prediction

Booleans = NDArray[np.bool_]

STREAMS = ("heard", "seen")
SHOWN_CLASSES = 8
"""Most rows of a band."""


def parsing_card(clip: ShownClip, page_folder: Path, heading: str) -> ClipCard:
    """The card of a parsed clip: player, two bands of rows, and its events as a table."""
    prediction = clip.prediction
    assert isinstance(prediction, ParsingPrediction)
    length = len(prediction.present) if clip.true is None else min(len(clip.true), len(prediction.present))
    present = prediction.present[:length]
    true = None if clip.true is None else clip.true[:length].astype(bool)
    seconds = prediction.segment_seconds
    quiet = f"{numbers.clock(length * seconds)} in {length} segments of {seconds:g} s"
    if true is not None:
        scores = segment_scores(*present.transpose(1, 2, 0), *true.transpose(1, 2, 0))
        quiet += f" · <b>{numbers.percent(scores.type)}</b> Type@AV; the true segments stand above the answered ones"
    starts = [event.start for event in (*prediction.heard, *prediction.seen)]
    media, remarks = shown_media(
        clip.video, page_folder, prediction.notes, min(starts, default=0.0) + seconds / 2
    )
    names, rows, shares = _bands(prediction, present, true)
    data = script_json(_data(prediction, present, true, shares))
    timeline = rows_over_time(names, rows, length * seconds, data)
    beside = f'<div class="readout" hidden></div>{_event_table(prediction)}{tables.notes(remarks)}'
    return clip_article(clip.name, heading, quiet, media, timeline, beside)


def _bands(
    prediction: ParsingPrediction, present: Booleans, true: Booleans | None
) -> tuple[list[str], list[str], list[list[int]]]:
    """Names, rows and probabilities per mille of what is heard, then of what is seen."""
    names, rows, shares = [], [], []
    total = len(present)
    for stream, title in enumerate(STREAMS):
        names.append(f'<div class="name band">{title}</div>')
        rows.append('<div class="row band"></div>')
        for k in _shown_classes(present[:, stream], None if true is None else true[:, stream]):
            look, text = palette.css_class(k, len(prediction.labels)), escape(prediction.labels[k])
            names.append(
                f'<div class="name class" title="{text}"><i class="swatch {look}"></i>'
                f"<span>{text}</span><b></b></div>"
            )
            marks = [] if true is None else [_mark("truth", *run, total) for run in runs(true[:, stream, k])]
            marks += [_mark(f"block {look}", *run, total) for run in runs(present[:, stream, k])]
            rows.append(f'<div class="row parsed{"" if true is None else " told"}">{"".join(marks)}</div>')
            column = prediction.probabilities[:total, stream, k]
            shares.append(np.round(1000 * column).astype(int).tolist())
    return names, rows, shares


def _shown_classes(present: Booleans, true: Booleans | None) -> list[int]:
    """The classes that are true or answered somewhere, those of most segments, in their own order."""
    uses = present.sum(axis=0) + (0 if true is None else true.sum(axis=0))
    chosen = np.argsort(-uses, kind="stable")[:SHOWN_CLASSES]
    return sorted(int(k) for k in chosen if uses[k])


def _mark(look: str, first: int, end: int, total: int) -> str:
    place = f"left:{100 * first / total:.4f}%;width:{100 * (end - first) / total:.4f}%"
    return f'<div class="{look}" style="{place}"></div>'


def _data(
    prediction: ParsingPrediction, present: Booleans, true: Booleans | None, shares: list[list[int]]
) -> dict[str, Any]:
    """What the page's script reads: each segment's answer and truth in words, by number."""
    words: dict[str, int] = {}

    def numbered(answers: Booleans) -> list[int]:
        return [words.setdefault(_words(prediction.labels, answer), len(words)) for answer in answers]

    predicted = numbered(present)
    told = None if true is None else numbered(true)
    return {
        "step": prediction.segment_seconds, "labels": list(words), "predicted": predicted, "true": told,
        "rows": shares,
    }  # fmt: skip


def _words(labels: tuple[str, ...], answer: Booleans) -> str:
    heard, seen = (", ".join(labels[k] for k in np.flatnonzero(part)) or "nothing" for part in answer)
    return f"heard: {heard}; seen: {seen}"


def _event_table(prediction: ParsingPrediction) -> str:
    """Events, each row with a button that takes the player to its start."""
    rows = [
        f'<tr><td><button type="button" class="seek" data-time="{event.start:.6g}">'
        f"{numbers.clock(event.start)} – {numbers.clock(event.end)}</button></td><td>{stream}</td>"
        f'<td><span class="tagged"><i class="swatch '
        f'{palette.css_class(prediction.labels.index(event.label), len(prediction.labels))}"></i>'
        f'{escape(event.label)}</span></td><td class="number">{numbers.percent(event.probability)}</td></tr>'
        for stream, event in _events(prediction)
    ]
    if not rows:
        return '<p class="quiet">Nothing is heard and nothing is seen.</p>'
    head = (
        '<tr><th scope="col">Time</th><th scope="col"></th><th scope="col">Event</th>'
        '<th scope="col" class="number" title="mean over the event">Probability</th></tr>'
    )
    return (
        '<div class="wide events" tabindex="0" role="group" aria-label="Table">'
        f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _events(prediction: ParsingPrediction) -> Iterator[tuple[str, Any]]:
    for stream, events in zip(STREAMS, (prediction.heard, prediction.seen), strict=True):
        for event in events:
            yield stream, event


def write_parsing(prediction: Prediction, out: Path, stem: str) -> None:
    """Write ``<stem>.json`` (events and all probabilities) and ``<stem>.csv`` (one line an event).

    Args:
        prediction: A :class:`avtune.tasks.ParsingPrediction`.
        out: Folder to write into.
        stem: File name without suffix.
    """
    assert isinstance(prediction, ParsingPrediction)
    events: dict[str, list[dict[str, object]]] = {stream: [] for stream in STREAMS}
    with (out / f"{stem}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stream", "label", "start", "end", "probability"])
        for stream, event in _events(prediction):
            times = round(event.start, 6), round(event.end, 6)
            writer.writerow([stream, event.label, *times, f"{event.probability:.6f}"])
            row = {"label": event.label, "start": times[0], "end": times[1]}
            events[stream].append({**row, "probability": round(event.probability, 6)})
    heard, seen = np.round(prediction.probabilities.astype(np.float64), 6).transpose(1, 0, 2).tolist()
    content = {
        "segment_seconds": prediction.segment_seconds,
        "labels": list(prediction.labels),
        **events,
        "probabilities": {
            "heard": heard,
            "seen": seen,
            "clip": np.round(prediction.clip_probabilities.astype(np.float64), 6).tolist(),
        },
    }
    write_answer_json(out / f"{stem}.json", prediction, content)
