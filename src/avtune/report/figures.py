"""Figures of a page as inline SVG or HTML: score bars, shares, training curves, probability ribbons."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from avtune.report import numbers, palette
from avtune.report.timeline import TimelineClip

_CURVE_POINTS = 400


def score_bars(score: float, score_name: str, floors: Mapping[str, float]) -> str:
    """The score and its floors, shares in [0, 1], as labelled bars; the best floor is marked on each."""
    best = max(floors.values(), default=0.0)
    rows = []
    for name, value, kind in [(score_name, score, "score")] + [(n, v, "floor") for n, v in floors.items()]:
        mark = f'<i class="mark" style="left:{100 * best:.2f}%"></i>' if floors else ""
        rows.append(
            f'<div class="bar {kind}"><span class="bar-name">{escape(name)}</span>'
            f'<span class="bar-track"><i class="fill" style="width:{100 * value:.2f}%"></i>{mark}</span>'
            f'<span class="bar-value">{numbers.percent(value)}</span></div>'
        )
    return f'<div class="bars">{"".join(rows)}</div>'


def share_bar(parts: Mapping[str, float], written: Mapping[str, str]) -> str:
    """One bar divided in proportion to `parts` (each >= 0), with a legend of names and `written` amounts."""
    total = sum(parts.values()) or 1.0
    blocks, legend = [], []
    for k, (name, amount) in enumerate(parts.items()):
        look = f"tint t{min(k, 5)}"
        share = amount / total
        blocks.append(f'<i class="{look}" style="width:{100 * share:.3f}%"></i>')
        legend.append(
            f'<li><i class="swatch {look}"></i>{escape(name)} <b>{escape(written[name])}</b>'
            f' <span class="quiet">{numbers.percent(share)}</span></li>'
        )
    bar = f'<div class="shares" aria-hidden="true">{"".join(blocks)}</div>'
    return f'{bar}<ul class="legend">{"".join(legend)}</ul>'


def curve(title: str, points: Sequence[tuple[float, float]], axis: str, as_percent: bool) -> str:
    """A line through `points` (x, y) as an inline SVG with gridlines and the last value written.

    Args:
        title: What y is.
        points: At least one; more than 400 are averaged over equal stretches of x.
        axis: What x is.
        as_percent: Write y as percentages.
    """
    points = _thinned(sorted(points))
    xs, ys = [x for x, _ in points], [y for _, y in points]
    ticks = _ticks(min(ys), max(ys))
    low, high = min(ticks[0], *ys), max(ticks[-1], *ys)
    left, right, top, bottom = 52.0, 446.0, 34.0, 186.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / (xs[-1] - xs[0]) if xs[-1] > xs[0] else 0.5
        up = (y - low) / (high - low) if high > low else 0.5
        return left + across * (right - left), bottom - up * (bottom - top)

    def written(y: float) -> str:
        return numbers.percent(y) if as_percent else f"{y:.3g}"

    decimals = 0 if 100 * (ticks[1] - ticks[0]) > 0.99 else 2
    parts = []
    for y in ticks:
        height = place(xs[0], y)[1]
        text = f"{100 * y:.{decimals}f}%" if as_percent else f"{y:.4g}"
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{left - 7}" y="{height + 4:.1f}" text-anchor="end">{text}</text>')
    parts += [
        f'<text x="{place(x, low)[0]:.1f}" y="{bottom + 18}" text-anchor="middle">{x:g}</text>'
        for x in _whole_ticks(xs[0], xs[-1])
    ]
    placed = [place(x, y) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    parts.append(f'<polyline class="line" points="{line}"/>')
    radius = 3.4 if len(placed) <= 40 else 0.0
    for (x, y), (cx, cy) in zip(points, placed, strict=True):
        if radius:
            note = f"<title>{escape(axis)} {x:g}: {written(y)}</title>"
            parts.append(f'<circle class="dot" cx="{cx:.1f}" cy="{cy:.1f}" r="{radius}">{note}</circle>')
    summary = f"{title}: {written(ys[0])} at {axis} {xs[0]:g}, {written(ys[-1])} at {axis} {xs[-1]:g}"
    return (
        f'<svg class="curve" viewBox="0 0 460 222" role="img" aria-label="{escape(summary)}">'
        f'<text class="title" x="{left}" y="18">{escape(title)}</text>'
        f'<text class="last" x="{right}" y="18" text-anchor="end">{written(ys[-1])}</text>{"".join(parts)}'
        f'<text class="axis" x="{right}" y="{bottom + 33}" text-anchor="end">{escape(axis)}</text></svg>'
    )


def training_curves(log: Sequence[Mapping[str, object]]) -> str:
    """Loss, validation score and learning rate of a run's log, each over epochs (or steps) where present.

    Rows are as in ``log.jsonl``; those without the value in question, or with one that is not finite, are
    passed over. The x axis counts epochs where each of them has one loss, otherwise steps.
    """
    losses = [row for row in log if _number(row, "loss") is not None]
    epochs = [_number(row, "epoch") for row in losses]
    by_step = len(set(epochs)) < len(epochs) and any(_number(row, "step") is not None for row in losses)
    axis = "step" if by_step else "epoch"
    panels = []
    for keys, title, as_percent in (
        (("loss",), "Training loss", False),
        (("validation",), "Validation score", True),
        (("learning_rate", "lr"), "Learning rate", False),
    ):
        points = []
        for position, row in enumerate(log):
            value = next((v for key in keys if (v := _number(row, key)) is not None), None)
            if value is not None:
                at = _number(row, axis)
                points.append((float(position) if at is None else at, value))
        if points:
            panels.append(curve(title, points, axis, as_percent))
    return f'<div class="curves">{"".join(panels)}</div>' if panels else ""


def ribbon(clip: TimelineClip, label: int) -> str:
    """The probability of `label` in each segment as a stepped area, stretched to its row's width."""
    steps = []
    for t, share in enumerate(np.round(100 * clip.probabilities[:, label], 1).tolist()):
        steps.append(f"{'M0 100V' if t == 0 else 'V'}{100 - min(share, 100.0):g}H{t + 1}")
    path = "".join(steps) + "V100Z"
    look = palette.css_class(label, clip.background)
    return (
        f'<svg class="ribbon {look}" viewBox="0 0 {len(clip.predicted)} 100"'
        f' preserveAspectRatio="none" aria-hidden="true"><path d="{path}"/></svg>'
    )


def _number(row: Mapping[str, object], key: str) -> float | None:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most 400 points: averages over neighbouring ones, the first and the last kept as they are."""
    if len(points) <= _CURVE_POINTS:
        return points
    inner = np.array_split(np.asarray(points[1:-1]), _CURVE_POINTS - 2)
    means = [(float(x), float(y)) for x, y in (part.mean(axis=0) for part in inner)]
    return [points[0], *means, points[-1]]


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round values that span [low, high]."""
    spread = (high - low) or abs(high) or 1.0
    raw = spread / 3
    size = 10.0 ** math.floor(math.log10(raw))
    step = size * next(m for m in (1, 2, 2.5, 5, 10) if m * size >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * k for k in range(first, max(last, first + 1) + 1)]


def _whole_ticks(low: float, high: float) -> list[float]:
    """A few whole numbers within [low, high]."""
    step = max(1, math.ceil((high - low) / 6))
    size = 10 ** math.floor(math.log10(step))
    step = next(m * size for m in (1, 2, 5, 10) if m * size >= step)
    return [float(x) for x in range(math.ceil(low / step) * step, math.floor(high) + 1, step)] or [low]
