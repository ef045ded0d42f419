"""Sounds and pictures of files in the plane, as a PNG."""

from io import BytesIO
from pathlib import Path

from avtune.datasets.records import printable
from avtune.files import write_atomically
from avtune.report import palette
from avtune.retrieval.map import Map

SUFFIX = ".png"


def draw_map(path: Path, points: Map) -> None:
    """Draw a plus for each file's sound and a dot for its pictures, in the colour of its category, and a line between.

    Args:
        path: The PNG to write, whatever its name; the same bytes every time.
        points: What to draw.

    Raises:
        AvtuneError: ``path`` is a folder, or its folder is a file.
    """
    # Only this function needs matplotlib, which takes longer to import than everything else here.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(9, 6.6), dpi=160, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = [palette.LIGHT[k] for k in points.category]
    lines = list(zip(points.sound, points.picture, strict=True))
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=0.5, alpha=0.35, zorder=1))
    axes.scatter(
        points.picture[:, 0], points.picture[:, 1], c=colours, marker="o", s=16, linewidths=0, zorder=2
    )
    axes.scatter(
        points.sound[:, 0], points.sound[:, 1], c=colours, marker="+", s=34, linewidths=1.1, zorder=3
    )
    kinds = [
        Line2D([], [], color="#1d2024", marker="+", linestyle="", label="sound"),
        Line2D([], [], color="#1d2024", marker="o", markersize=4, linestyle="", label="pictures"),
    ]
    named = [
        Line2D(
            [],
            [],
            color=palette.LIGHT[k],
            marker="s",
            linestyle="",
            label=printable(name).replace("$", r"\$"),
        )
        for k, name in enumerate(points.names)
    ]
    figure.legend(handles=kinds + named, loc="outside right upper", frameon=False, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#d8d5cd")
    axes.set_aspect("equal", adjustable="datalim")
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    write_atomically(path, picture.getvalue())
