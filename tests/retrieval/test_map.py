"""The map of an index: which files, in which colours, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up_index import MadeUpEmbedder, Watcher, write_made_up
from PIL import Image

from avtune.report.map_picture import draw_map
from avtune.retrieval import SearchError, SearchIndex, update_index
from avtune.retrieval.map import map_files, read_categories


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("map")
    for seed in range(24):
        label = ("bell", "horn", "horn", "rain")[seed % 4]
        write_made_up(root / "videos" / label / f"{seed}.mp4", seed, windows=1 + seed % 2)
    write_made_up(root / "videos" / "bell" / "deaf.mp4", 99, streams="picture")
    update_index(root / "videos", MadeUpEmbedder(), root / "index", Watcher())
    return root / "index"


def test_folders_are_categories_and_files_without_a_stream_are_left_out(index: Path) -> None:
    with SearchIndex(index) as opened:
        points = map_files(opened.store, None, 8, 500, 0)
        fewer = map_files(opened.store, None, 2, 500, 0)
        drawn = [map_files(opened.store, None, 8, 10, seed).files for seed in (0, 0, 1)]
    assert points.names == ("horn", "bell", "rain")
    assert len(points.files) == 24
    assert [points.names[k] for k in points.category] == [path.parts[0] for path in points.files]
    assert points.sound.shape == points.picture.shape == (24, 2)
    assert np.isfinite(points.sound).all()
    assert fewer.names == ("horn", "bell")
    assert len(fewer.files) == 18
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 10


def test_the_same_seed_draws_the_same_picture(index: Path, tmp_path: Path) -> None:
    with SearchIndex(index) as opened:
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            draw_map(tmp_path / f"{name}.png", map_files(opened.store, None, 8, 20, seed))
    first, again, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert first == again != other
    colours = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3)
    for colour in ((0x4E, 0x64, 0xB9), (0xBF, 0xAB, 0x35), (0xC5, 0x69, 0x92)):
        assert (colours == colour).all(axis=1).sum() > 50


def test_a_table_names_the_categories(index: Path, tmp_path: Path) -> None:
    table = index.parent / "videos" / "events.csv"
    rows = [
        f"horn/{seed}.mp4,{'odd' if seed % 4 == 1 else 'even'},0,5"
        for seed in range(24)
        if seed % 4 in (1, 2)
    ]
    # As spreadsheets save it, with a mark in front.
    table.write_text(
        "file,label,start,end\n" + "\n".join([*rows, "horn/1.mp4,later,5,9", "none.mp4,odd,0,1"]),
        encoding="utf-8-sig",
    )
    with SearchIndex(index) as opened:
        points = map_files(opened.store, read_categories(table), 8, 500, 0)
    assert set(points.names) == {"odd", "even"}
    assert {
        path.as_posix(): points.names[k] for path, k in zip(points.files, points.category, strict=True)
    } == {f"horn/{seed}.mp4": "odd" if seed % 4 == 1 else "even" for seed in range(24) if seed % 4 in (1, 2)}
    (tmp_path / "short.csv").write_text("file,label\na.mp4,odd\n\nb.mp4\n")
    with pytest.raises(SearchError, match=r"short\.csv line 4: ends before its file or label; complete"):
        read_categories(tmp_path / "short.csv")
    (tmp_path / "bare.csv").write_text("name\n1\n")
    with pytest.raises(SearchError, match="has no columns file and label"):
        read_categories(tmp_path / "bare.csv")
    with pytest.raises(SearchError, match="cannot be read as a table"):
        read_categories(tmp_path / "absent.csv")


def test_too_few_files_and_impossible_numbers_are_refused(index: Path) -> None:
    with SearchIndex(index) as opened:
        with pytest.raises(SearchError, match=r"needs 4 files .* here are 0"):
            map_files(opened.store, {}, 8, 500, 0)
        for most, files in ((0, 500), (9, 500), (8, 3)):
            with pytest.raises(SearchError, match="must lie between 1 and 8, and --files"):
                map_files(opened.store, None, most, files, 0)
