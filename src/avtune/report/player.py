"""The HTML of one clip: its player above the true and predicted timeline."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avtune.media import MediaError
from avtune.report import numbers, palette, tables
from avtune.report.embedding import Media, load_media
from avtune.report.figures import ribbon
from avtune.report.timeline import Run, TimelineClip, events, runs, top_classes

_RULER_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)

_LISTED_EVENTS = 6
# Above so many blocks in a row, their outlines would cover more than the blocks.
_DENSE_RUNS = 120
_ZOOM = (
    '<div class="zoom" hidden><button type="button" data-zoom="out" aria-label="Show more time">'
    '\N{MINUS SIGN}</button><button type="button" data-zoom="in" aria-label="Show less time">+</button>'
    "</div>"
)


@dataclass(frozen=True)
class ClipCard:
    """A clip's HTML, and whether it links to media outside the page."""

    html: str
    linked: bool


def clip_card(clip: TimelineClip, page_folder: Path, heading: str) -> ClipCard:
    """The card of `clip` for a page in `page_folder`; `heading` is the tag of its title, "" for none.

    Media that can't be read leaves the timeline without a player, and a note that says why.
    """
    found = events(clip)
    middle = (found[0][0] + found[0][1]) / 2 if found else 0.0
    media, remarks = shown_media(clip.video, page_folder, clip.notes, middle)
    known = clip.accuracy
    right = f" · <b>{numbers.percent(known)}</b> of segments right" if known is not None else ""
    parts = f"{len(clip.predicted)} segments of {clip.segment_seconds:g} s"
    length = f"{numbers.clock(clip.duration)} in {parts}{right}"
    timeline = _timeline(clip) if len(clip.predicted) else "<p>This clip has no segment.</p>"
    found_table = tables.event_table(clip)
    if len(found) > _LISTED_EVENTS:
        found_table = f"<details><summary>{len(found)} predicted events</summary>{found_table}</details>"
    beside = f'<div class="readout" hidden></div>{found_table}{tables.notes(remarks)}'
    return clip_article(clip.name, heading, length, media, timeline, beside)


def shown_media(
    video: Path | None, page_folder: Path, notes: Sequence[str], at: float = 0.0
) -> tuple[Media | None, list[str]]:
    """A clip's media for a page in `page_folder`, and its remarks with what is to be said of the media.

    The poster is the picture at `at` seconds.
    """
    media, remarks = None, list(notes)
    if video is not None:
        try:
            media = load_media(video, page_folder, at)
        except MediaError as error:
            remarks.append(f"The clip can't be shown: {video.name}: {error.problem}; {error.remedy}")
        if media is not None and media.note:
            remarks.append(media.note)
    return media, remarks


def clip_article(
    name: str, heading: str, quiet: str, media: Media | None, below: str, beside: str
) -> ClipCard:
    """A clip's card: title and a quiet line, the player, HTML below it and HTML beside it."""
    title = f"<{heading}>{escape(name)}</{heading}>" if heading else ""
    ratio = f' style="--ratio:{media.ratio:.4f}"' if media else ""
    html = (
        f'<article class="clip"{ratio}><header>{title}<p class="quiet">{quiet}</p></header>'
        f'<div class="player">{_media_element(name, media)}</div>{below}'
        f'<div class="beside">{beside}</div></article>'
    )
    return ClipCard(html, media is not None and media.linked)


def _media_element(name: str, media: Media | None) -> str:
    if media is None:
        return ""
    label = escape(f"{name}, with its sound", quote=True)
    poster = f' poster="{media.poster}"' if media.poster else ""
    tag = "audio" if media.audio_only else "video"
    inline = "" if media.audio_only else " playsinline"
    source = escape(media.source, quote=True)
    fallback = f'<a href="{source}">{escape(name)}</a>' if media.linked else escape(name)
    attributes = f'controls{inline} preload="metadata" aria-label="{label}"{poster} src="{source}"'
    return f"<{tag} {attributes}>{fallback}</{tag}>"


def _timeline(clip: TimelineClip) -> str:
    """Rows over one time axis: true, predicted, wrong, then the probability of each of the top classes."""
    shown = top_classes(clip)
    names, rows = [], []
    if clip.true is not None:
        names.append('<div class="name">true</div>')
        rows.append(f'<div class="row true">{_blocks(clip, clip.true)}</div>')
    names.append('<div class="name">predicted</div>')
    rows.append(f'<div class="row predicted">{_blocks(clip, clip.predicted)}</div>')
    if clip.wrong is not None:
        names.append('<div class="name thin">wrong</div>')
        marks = "".join(f'<i style="{_place(r, clip)}"></i>' for r in runs(clip.wrong) if r.value)
        rows.append(f'<div class="row wrong">{marks}</div>')
    for k in shown:
        look = palette.css_class(k, clip.background)
        text = escape(clip.labels[k])
        names.append(
            f'<div class="name class" title="{text}"><i class="swatch {look}"></i>'
            f"<span>{text}</span><b></b></div>"
        )
        rows.append(f'<div class="row probability">{ribbon(clip, k)}</div>')
    look = "timeline dense" if len(runs(clip.predicted)) > _DENSE_RUNS else "timeline"
    return rows_over_time(names, rows, clip.duration, _data(clip, shown), look)


def rows_over_time(
    names: Sequence[str], rows: Sequence[str], duration: float, data: str, look: str = "timeline"
) -> str:
    """Rows over one time axis of `duration` seconds, with their names beside them, a playhead and a zoom.

    `data` is the JSON that the page's script reads; `look` are the classes of the whole.
    """
    end = f"{duration:.6g}"
    slider = (
        'class="track" role="slider" tabindex="0" aria-label="Position in the clip" '
        f'aria-orientation="horizontal" aria-valuemin="0" aria-valuemax="{end}" aria-valuenow="0"'
    )
    return (
        f'<div class="{look}"><div class="names"><div class="name ruler-name"></div>{"".join(names)}</div>'
        f'<div class="scroll"><div {slider}><div class="ruler">{_ruler(duration)}</div>{"".join(rows)}'
        f'<div class="playhead"></div></div></div>{_ZOOM}'
        f'<script type="application/json" class="data">{data}</script></div>'
    )


def _place(run: Run, clip: TimelineClip) -> str:
    total = len(clip.predicted)
    return f"left:{100 * run.first / total:.4f}%;width:{100 * (run.last - run.first) / total:.4f}%"


def _blocks(clip: TimelineClip, values: NDArray[np.int64]) -> str:
    """Blocks of equal labels; the text hides by itself where it doesn't fit (see the style sheet)."""
    return "".join(
        f'<div class="block {palette.css_class(run.value, clip.background)}" style="{_place(run, clip)}">'
        f"<span>{escape(clip.labels[run.value])}</span></div>"
        for run in runs(values)
    )


def _ruler(duration: float) -> str:
    step = next((s for s in _RULER_STEPS if duration / s <= 6), 14400)
    ticks = np.arange(0, duration + 1e-9, step)
    return "".join(
        f'<span style="left:{100 * t / duration:.3f}%">{numbers.clock(float(t))}</span>' for t in ticks
    )


def _data(clip: TimelineClip, shown: list[int]) -> str:
    """What the script needs, as JSON.

    Probabilities are per mille; "best" holds each segment's three most probable labels.
    """
    mille = np.round(1000 * clip.probabilities).astype(np.int64)
    best = np.argsort(-clip.probabilities, axis=1, kind="stable")[:, :3]
    data = {
        "step": clip.segment_seconds,
        "labels": list(clip.labels),
        "predicted": clip.predicted.tolist(),
        "true": None if clip.true is None else clip.true.tolist(),
        "certainty": np.take_along_axis(mille, clip.predicted[:, None], axis=1)[:, 0].tolist(),
        "best": best.tolist(),
        "bestShares": np.take_along_axis(mille, best, axis=1).tolist(),
        "rows": [mille[:, k].tolist() for k in shown],
    }
    return script_json(data)


def script_json(data: object) -> str:
    """JSON that can't end the element it stands in: every ``<`` is written as an escape."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
