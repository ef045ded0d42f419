"""Tables of a report: facts, events, per-class scores, confusion. All text is escaped here."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from avtune.report import numbers, palette
from avtune.report.timeline import TimelineClip, events

MATRIX_CLASSES = 40
"""Up to this many classes the whole confusion matrix is shown; above, its largest errors."""

_LARGEST_ERRORS = 25


def facts(values: Mapping[str, object]) -> str:
    """Names and values as a definition list; a share stays as it is given, so write it before."""
    rows = (
        f"<div><dt>{escape(str(name))}</dt><dd>{_value(value)}</dd></div>" for name, value in values.items()
    )
    return f'<dl class="facts">{"".join(rows)}</dl>'


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value)
    return escape(str(value))


def notes(sentences: Sequence[str]) -> str:
    """Sentences as a list; nothing where there is none."""
    return (
        f'<ul class="notes">{"".join(f"<li>{escape(s)}</li>" for s in sentences)}</ul>' if sentences else ""
    )


def event_table(clip: TimelineClip) -> str:
    """Predicted events, each row with a button that takes the player to its start."""
    found = events(clip)
    if not found:
        return '<p class="quiet">No event was predicted: every segment is background.</p>'
    rows = []
    for start, end, label, probability in found:
        look = palette.css_class(clip.labels.index(label), clip.background)
        rows.append(
            f'<tr><td><button type="button" class="seek" data-time="{start:.6g}">'
            f"{numbers.clock(start)} – {numbers.clock(end)}</button></td>"
            f'<td><span class="tagged"><i class="swatch {look}"></i>{escape(label)}</span></td>'
            f'<td class="number">{numbers.percent(probability)}</td></tr>'
        )
    head = (
        '<tr><th scope="col">Time</th><th scope="col">Event</th>'
        '<th scope="col" class="number" title="mean over the event">Probability</th></tr>'
    )
    return _table("", head, rows, "wide events")


def _table(look: str, head: str, rows: Sequence[str], around: str = "wide") -> str:
    body = f'<table class="{look}"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="{around}" tabindex="0" role="group" aria-label="Table">{body}</div>'


def class_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Scores by class: the columns are the first row's keys, "label" first.

    Floating-point values are shares in [0, 1] and get a bar; ``None`` and NaN mean that the class has no
    segment to score; whole numbers are counts.
    """
    if not rows:
        return ""
    columns = list(rows[0])
    head = "".join(
        f'<th scope="col"{"" if k == 0 else " class=number"}>{escape(column.replace("_", " "))}</th>'
        for k, column in enumerate(columns)
    )
    body = []
    for row in rows:
        cells = [f'<th scope="row">{escape(str(row[columns[0]]))}</th>']
        cells += [_class_cell(row.get(column)) for column in columns[1:]]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return _table("classes", f"<tr>{head}</tr>", body)


def _class_cell(value: object) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return '<td class="number quiet">–</td>'
    if isinstance(value, float | np.floating):
        share = float(value)
        fill = min(max(share, 0.0), 1.0)
        return f'<td class="number share" style="--share:{fill:.3f}">{numbers.percent(share)}</td>'
    return f'<td class="number">{_value(value)}</td>'


def confusion_table(confusion: NDArray[np.int64], labels: Sequence[str]) -> str:
    """Counts of true (rows) against predicted (columns) labels, shape (K, K), shaded by share of the row."""
    if confusion.shape != (len(labels), len(labels)):
        raise ValueError(f"confusion has shape {confusion.shape}; expected {(len(labels), len(labels))}")
    if len(labels) > MATRIX_CLASSES:
        return _largest_errors(confusion, labels)
    head = "".join(f'<th scope="col"><span>{escape(label)}</span></th>' for label in labels)
    body = []
    for k, label in enumerate(labels):
        total = int(confusion[k].sum())
        cells = []
        for j, amount in enumerate(confusion[k].tolist()):
            share = amount / total if total else 0.0
            look = "hit" if j == k else "miss"
            title = f"{label}, predicted as {labels[j]}: {amount} of {total}, {numbers.percent(share)}"
            text = str(amount) if amount else '<span class="quiet">·</span>'
            cells.append(
                f'<td class="{look}" style="--share:{share:.2f}" title="{escape(title)}">{text}</td>'
            )
        body.append(f'<tr><th scope="row">{escape(label)}</th>{"".join(cells)}</tr>')
    words = '<p class="quiet">Rows: true label. Columns: predicted label. Shade: share of the row.</p>'
    return words + _table("confusion", f"<tr><td></td>{head}</tr>", body)


def _largest_errors(confusion: NDArray[np.int64], labels: Sequence[str]) -> str:
    errors = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-errors, axis=None, kind="stable")[:_LARGEST_ERRORS]
    rows = []
    for true, predicted in zip(*np.unravel_index(order, errors.shape), strict=True):
        amount, total = int(errors[true, predicted]), int(confusion[true].sum())
        if amount:
            rows.append(
                {
                    "true": labels[true],
                    "predicted as": labels[predicted],
                    "segments": amount,
                    "share": amount / total,
                }
            )
    return f"<p>The largest of {len(labels)} × {len(labels)} entries off the diagonal.</p>{class_table(rows)}"
