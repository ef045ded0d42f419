"""What a search found, as a page whose players begin at the found second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from avtune.datasets.records import printable
from avtune.report import numbers, tables
from avtune.report.page import section, write_page
from avtune.report.player import ClipCard, clip_article, shown_media
from avtune.retrieval import Found


@dataclass(frozen=True)
class SearchReport:
    """A search and what it found.

    Attributes:
        query: The file that was searched with.
        notes: What a person should know of it.
        videos: The folder that the found files lie in.
        found: The places, the best first.
        facts: What was compared with what, name to value, in the order to show.
    """

    query: Path
    notes: Sequence[str]
    videos: Path
    found: Sequence[Found]
    facts: Mapping[str, object]


def write_search_page(path: Path, report: SearchReport) -> None:
    """Write the page of a search.

    Media is embedded, or linked where it is too large. An existing file is replaced, and only by a whole one.

    Args:
        path: The file to write.
        report: What it tells.
    """
    media, remarks = shown_media(report.query, path.parent, report.notes)
    name = printable(report.query.name)
    query = clip_article(name, "h3", "", media, "", tables.notes(remarks))
    cards = [
        _card(place, report.videos, path.parent, rank) for rank, place in enumerate(report.found, start=1)
    ]
    found = f'<div class="found">{"".join(card.html for card in cards)}</div>'
    body = (
        f'<p class="kicker">avtune search</p><h1>What is like {escape(name)}</h1>{tables.facts(report.facts)}'
        + section("Searched with", f'<div class="found">{query.html}</div>')
        + section("Found", found if cards else '<p class="quiet">Nothing fits.</p>')
    )
    write_page(path, f"Search: {name}", body, any(card.linked for card in (query, *cards)))


def _card(place: Found, videos: Path, page_folder: Path, rank: int) -> ClipCard:
    media, remarks = shown_media(videos / place.file, page_folder, place.notes, place.at)
    stretch = f"{numbers.clock(place.start)} – {numbers.clock(place.end)}"
    play = f"Play from {numbers.clock(place.at)}"
    button = f'<button type="button" class="seek" data-time="{place.at:.6g}">{play}</button>'
    return clip_article(
        f"{rank}. {printable(place.file.as_posix())}",
        "h3",
        f"{stretch} · cosine <b>{place.score:.3f}</b>",
        media,
        "",
        (button if media else "") + tables.notes(remarks),
    )
