"""The timeline of a clip as a PNG picture."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avtune.report import palette
from avtune.report.timeline import TimelineClip, runs, top_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HATCHES = ("", "///", "\\\\\\", "|||")


def timeline_png(path: str | Path, clip: TimelineClip, width: float = 9.0) -> None:
    """Draw the timeline of `clip` as a PNG, the same bytes every time, for documents and terminals.

    Args:
        path: The file to write.
        clip: What to draw.
        width: Width of the picture in inches, at 160 dots per inch.

    Raises:
        ValueError: The clip has no segment.
    """
    # Only this function needs matplotlib, which takes longer to import than a page takes to write.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not len(clip.predicted):
        raise ValueError("the clip has no segment to draw")
    shown = top_classes(clip)
    rows = (["true"] if clip.true is not None else []) + ["predicted"] + [clip.labels[k] for k in shown]
    figure = Figure(
        figsize=(width, 0.75 + 0.36 * len(rows)), dpi=160, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if clip.true is not None:
        _draw_blocks(axes, clip, 0, clip.true, width)
    _draw_blocks(axes, clip, len(rows) - len(shown) - 1, clip.predicted, width)
    edges = np.arange(len(clip.predicted) + 1) * clip.segment_seconds
    for row, label in enumerate(shown, start=len(rows) - len(shown)):
        floor = row + 0.42
        axes.stairs(
            floor - 0.84 * clip.probabilities[:, label],
            edges,
            baseline=floor,
            fill=True,
            color=palette.LIGHT[label % len(palette.LIGHT)],
        )
        axes.axhline(floor, color="#d8d5cd", linewidth=0.6, zorder=0)
    axes.set(xlim=(0, clip.duration), ylim=(len(rows) - 0.5, -0.5), xlabel="seconds")
    axes.set_yticks(range(len(rows)), [_plain(row, 24) for row in rows], parse_math=False)
    axes.set_title(_plain(clip.name, 90), loc="left", fontsize=10, parse_math=False)
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    figure.savefig(str(path), format="png", metadata={"Software": None})


def _draw_blocks(axes: "Axes", clip: TimelineClip, row: int, values: NDArray[np.int64], width: float) -> None:
    """One row of label blocks; below the prediction's, a mark where it is wrong."""
    for run in runs(values):
        start, length = run.first * clip.segment_seconds, (run.last - run.first) * clip.segment_seconds
        background = run.value == clip.background
        fill = palette.BACKGROUND_LIGHT if background else palette.LIGHT[run.value % len(palette.LIGHT)]
        hatch = "" if background else _HATCHES[run.value // len(palette.LIGHT) % len(_HATCHES)]
        outline = 0.8 if length / clip.duration * width > 0.05 else 0.0
        axes.barh(
            row,
            length,
            left=start,
            height=0.84,
            color=fill,
            edgecolor="white",
            linewidth=outline,
            hatch=hatch,
        )
        label = _plain(clip.labels[run.value], 40)
        if length / clip.duration * (width - 1.5) > 0.075 * len(label) + 0.1:
            ink = "#55585e" if background else palette.ink(fill)
            axes.text(
                start + length / 2,
                row,
                label,
                ha="center",
                va="center",
                fontsize=8,
                color=ink,
                parse_math=False,
            )
    if clip.wrong is not None and values is clip.predicted:
        for run in runs(clip.wrong):
            if run.value:
                start, length = (
                    run.first * clip.segment_seconds,
                    (run.last - run.first) * clip.segment_seconds,
                )
                axes.barh(row + 0.46, length, left=start, height=0.1, color="#b3261e", zorder=3)


def _plain(text: str, limit: int) -> str:
    """One printable line of at most `limit` characters."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= limit else line[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
