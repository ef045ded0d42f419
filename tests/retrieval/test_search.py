"""Search is exact, compares what it is told to, and makes places of windows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_index import WIDTH, MadeUpEmbedder, Watcher, cosines, write_made_up

from avtune.retrieval import FileVectors, Found, SearchError, SearchIndex, update_index, what_it_has
from avtune.retrieval.map import map_files
from avtune.retrieval.search import NEAR, places, query_rows
from avtune.retrieval.store import WindowRow
from avtune.tasks.retrieval import unit

# Half precision keeps eleven bits of each of the six products' factors.
HALF_PRECISION = 2e-3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("search")
    streams = ("both", "both", "sound", "picture")
    for seed in range(60):
        write_made_up(
            root / "videos" / f"{seed:02d}.mp4", seed, windows=1 + seed % 3, streams=streams[seed % 4]
        )
    update_index(root / "videos", MadeUpEmbedder(), root / "index", Watcher())
    return root / "videos", root / "index"


@pytest.mark.parametrize("by", ["sound", "picture"])
@pytest.mark.parametrize("within", ["sound", "picture"])
def test_it_finds_what_comparing_with_everything_finds(
    folders: tuple[Path, Path], by: str, within: str
) -> None:
    videos, index = folders
    files = {path.name: MadeUpEmbedder().embed(path) for path in sorted(videos.iterdir())}
    query = files["12.mp4"]
    expected = sorted(cosines(query, files, by, within), reverse=True)
    with SearchIndex(index) as opened:
        found = opened.search(query, by, within, top=1000)
    by_file: dict[str, float] = {}
    for cosine, name, _ in expected:
        by_file.setdefault(name, cosine)
    best = {}
    for place in found:
        best.setdefault(place.file.name, place.score)
    assert best.keys() == by_file.keys()
    for name, score in best.items():
        assert score == pytest.approx(by_file[name], abs=HALF_PRECISION)
    scores = [place.score for place in found]
    assert scores == sorted(scores, reverse=True)
    assert (found[0].file.name, found[0].at) == (expected[0][1], expected[0][2])


@pytest.mark.parametrize("top", [1, 7, 40])
def test_a_longer_list_begins_with_the_shorter(folders: tuple[Path, Path], top: int) -> None:
    videos, index = folders
    query = MadeUpEmbedder().embed(videos / "08.mp4")
    with SearchIndex(index) as opened:
        found, longest = opened.search(query, top=top), opened.search(query, top=60)
    assert len(found) == top
    assert [place.file for place in found[:5]] == [place.file for place in longest[: min(top, 5)]]


def test_a_query_of_several_windows_is_found_by_any_of_them(folders: tuple[Path, Path]) -> None:
    videos, index = folders
    parts = [MadeUpEmbedder().embed(videos / name) for name in ("00.mp4", "12.mp4")]
    assert all(part.sound is not None and part.picture is not None for part in parts)
    query = FileVectors(
        np.zeros(2, np.float32),
        np.zeros(2, np.float32),
        np.concatenate([part.sound[:1] for part in parts]),
        np.concatenate([part.picture[:1] for part in parts]),
    )
    with SearchIndex(index) as opened:
        found = opened.search(query, top=2)
    assert {place.file.name for place in found} == {"00.mp4", "12.mp4"}
    assert all(place.score == pytest.approx(1, abs=HALF_PRECISION) for place in found)


def test_without_a_word_it_compares_what_the_query_has(folders: tuple[Path, Path]) -> None:
    videos, index = folders
    for name, has in (("04.mp4", "both"), ("02.mp4", "sound"), ("03.mp4", "picture")):
        query = MadeUpEmbedder().embed(videos / name)
        assert what_it_has(query) == has
        with SearchIndex(index) as opened:
            assert opened.search(query) == opened.search(query, has, has)
            assert opened.search(query, top=1)[0].file.name == name
    with SearchIndex(index) as opened:
        with pytest.raises(SearchError, match="the query has no sound; search by picture instead"):
            opened.search(MadeUpEmbedder().embed(videos / "03.mp4"), "sound")
        with pytest.raises(SearchError, match="the query has no picture; search by sound instead"):
            opened.search(MadeUpEmbedder().embed(videos / "02.mp4"), "both")


@given(st.integers(0, 2**32 - 1))
def test_the_inner_product_is_the_mean_of_the_compared_cosines(seed: int) -> None:
    a, v, wa, wv = unit(np.random.default_rng(seed).normal(size=(4, WIDTH)))
    start = np.zeros(1, np.float32)
    query, window = FileVectors(start, start, a[None], v[None]), np.concatenate([wa, wv])
    means = {
        ("sound", "sound"): a @ wa,
        ("sound", "picture"): a @ wv,
        ("sound", "both"): (a @ wa + a @ wv) / 2,
        ("picture", "both"): (v @ wa + v @ wv) / 2,
        ("both", "sound"): (a @ wa + v @ wa) / 2,
        ("both", "picture"): (a @ wv + v @ wv) / 2,
        ("both", "both"): (a @ wa + v @ wv) / 2,
    }
    for (by, within), mean in means.items():
        assert query_rows(query, by, within)[0] @ window == pytest.approx(mean, abs=1e-6)


def row(start: float, name: str = "a.mp4") -> WindowRow:
    return WindowRow(Path(name), start, start + 10, True, True, ())


def test_windows_that_touch_are_one_place() -> None:
    ranked = [
        (row(20), 0.9),
        (row(25), 0.89),
        (row(20, "b.mp4"), 0.88),
        (row(50), 0.88),
        (row(40), 0.87),  # adjoins 50, not yet 35
        (row(30), 0.86),  # between both: one place from 20 to 60
        (row(10), 0.9 - 2 * NEAR),  # touches, but fits much worse
        (row(0), 0.1),
    ]
    a, b, last = places(iter(ranked), top=10)
    assert a == Found(Path("a.mp4"), 20, 60, 20, 0.9)
    assert b == Found(Path("b.mp4"), 20, 30, 20, 0.88)
    assert last == Found(Path("a.mp4"), 0, 10, 0, 0.1)
    assert places(iter(ranked), top=1) == [Found(Path("a.mp4"), 20, 40, 20, 0.9)]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("ab"), st.floats(-1, 1)), max_size=30),
    st.integers(1, 5),
)
def test_places_keep_the_best_and_never_lose_a_window(drawn: list[tuple[int, str, float]], top: int) -> None:
    ranked = sorted(((row(5.0 * k, name), score) for k, name, score in drawn), key=lambda item: -item[1])
    found = places(iter(ranked), top)
    assert len(found) <= top
    assert [place.score for place in found] == sorted((place.score for place in found), reverse=True)
    if ranked:
        assert (found[0].file, found[0].at, found[0].score) == (
            ranked[0][0].file,
            ranked[0][0].start,
            ranked[0][1],
        )
    if len(found) < top:
        assert all(any(place.touches(window) for place in found) for window, _ in ranked)


@pytest.mark.parametrize("package", ["faiss", "sklearn.manifold"])
def test_a_missing_package_is_named_with_how_to_install_it(
    folders: tuple[Path, Path], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    told = pytest.raises(SearchError, match=r"install it with `pip install 'avtune\[search\]'`")
    with told, SearchIndex(folders[1]) as opened:
        map_files(opened.store, None, 8, 500, 0)
