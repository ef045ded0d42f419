"""A comparison as a picture: scores with their intervals, and what each variant trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from avtune.compare.summary import Row

SCORE, SEED, FLOOR, WEIGHTS = "#4e64b9", "#9aa7d8", "#8a867c", "#bfab35"


def comparison_png(
    path: str | Path, rows: Sequence[Row], *, score: str, floors: Mapping[str, float] | None = None
) -> None:
    """Draw a comparison.

    Each variant is a dot at its mean score with its 95 % interval and a small dot for every seed; beside it a bar
    of the weights that its method trains.

    Args:
        path: The PNG file to write; the same rows give the same bytes.
        rows: In the order from top to bottom.
        score: Name of the score.
        floors: Scores to mark by dashed lines, by name.

    Raises:
        ValueError: There is no row.
    """
    # Only this function needs matplotlib, which takes long to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError("there is no row to draw")
    figure = Figure(figsize=(9.0, 1.1 + 0.34 * len(rows)), dpi=160, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    scores, weights = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for place, row in enumerate(rows):
        width = row.score.half_width
        scores.plot(
            [100 * s for s in row.seeds.values()], [place] * len(row.seeds), ".", color=SEED, markersize=4
        )
        scores.errorbar(
            100 * row.score.mean, place, xerr=None if width is None else 100 * width, fmt="o", color=SCORE,
            markersize=5, capsize=3, linewidth=1.3,
        )  # fmt: skip
        # A method without weights of its own has no place on a logarithmic axis.
        weights.barh(place, max(row.method, 1), color=WEIGHTS, height=0.55)
        weights.annotate(
            _short(row.method), (max(row.method, 1), place), xytext=(3, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    for name, value in (floors or {}).items():
        scores.axvline(100 * value, color=FLOOR, linewidth=1, linestyle="--", zorder=0)
        scores.annotate(
            name, (100 * value, 1.0), xycoords=("data", "axes fraction"), xytext=(2, 3),
            textcoords="offset points", fontsize=7.5, color=FLOOR, rotation=20,
        )  # fmt: skip
    scores.set_yticks(range(len(rows)), [row.variant for row in rows], parse_math=False)
    scores.set(xlabel=f"{score}, %: mean, 95 % interval, seeds", ylim=(len(rows) - 0.5, -0.5))
    scores.grid(axis="x", color="#e6e3db", linewidth=0.6)
    weights.set(xlabel="weights of the method", xscale="log")
    largest = max(row.method for row in rows)
    weights.set_xlim(min([row.method for row in rows if row.method] or [1]) / 3, 40 * max(largest, 10))
    for axes in (scores, weights):
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelsize=9)
        axes.spines[:].set_visible(False)
    figure.savefig(path, metadata={"Software": None})


def _short(count: int) -> str:
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return str(count)
