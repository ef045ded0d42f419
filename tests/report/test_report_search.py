"""The page of a search: players that begin where something was found, and what cannot be played."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from avtune.media import write_video
from avtune.report import embedding
from avtune.report.search_page import SearchReport, write_search_page
from avtune.retrieval import Found


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in ("query.mp4", "long & <old>.mp4"):
        frames = [np.full((48, 64, 3), 8 * k, np.uint8) for k in range(30)]
        write_video(folder / name, frames, 5.0, np.zeros(6 * 16000, np.float32))
    return folder


def written(videos: Path, page: Path, *found: Found, notes: tuple[str, ...] = ()) -> str:
    report = SearchReport(videos / "query.mp4", notes, videos, found, {"Searched by": "both"})
    write_search_page(page, report)
    return page.read_text(encoding="utf-8")


def test_a_player_begins_at_the_found_second(videos: Path, tmp_path: Path) -> None:
    place = Found(Path("long & <old>.mp4"), 1.5, 5.0, 2.5, 0.875, ("no <sound>",))
    text = written(videos, tmp_path / "page.html", place, notes=("damaged <frames>: 2",))
    assert '<button type="button" class="seek" data-time="2.5">Play from 0:02.5</button>' in text
    assert "0:01.5 – 0:05 · cosine <b>0.875</b>" in text
    assert "1. long &amp; &lt;old&gt;.mp4" in text
    assert "<li>no &lt;sound&gt;</li>" in text
    assert "<li>damaged &lt;frames&gt;: 2</li>" in text
    assert text.count('src="data:video/mp4;base64,') == 2
    assert text.count('poster="data:image/jpeg;base64,') == 2
    assert "<old>" not in text


def test_a_long_video_is_linked_and_not_decoded_for_a_still(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "EMBED_LIMIT", 100)
    monkeypatch.setattr(embedding, "PREVIEW_SECONDS", 0.5)
    text = written(videos, tmp_path / "out" / "page.html", Found(Path("long & <old>.mp4"), 0, 5, 2, 0.5))
    query, found = re.findall(r"<video [^>]*>", text)
    assert "poster=" in query
    assert "poster=" not in found
    source = re.search(r'src="([^"]*)"', found)[1]
    assert (tmp_path / "out" / unquote(source)).resolve() == videos / "long & <old>.mp4"
    assert 'data-time="2"' in text


def test_what_is_gone_has_no_button_and_nothing_found_is_said(videos: Path, tmp_path: Path) -> None:
    text = written(videos, tmp_path / "page.html", Found(Path("gone.mp4"), 0, 5, 2, 0.5))
    assert text.count("<video") == 1
    assert "The clip can&#x27;t be shown: gone.mp4: does not exist" in text
    assert "data-time" not in text.partition("<script>")[0]
    assert "Nothing fits." in written(videos, tmp_path / "page.html")
