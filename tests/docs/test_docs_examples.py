"""Each example runs as its docstring says, on real files, and prints what it promises."""

import re
import runpy
from pathlib import Path

import pytest

from avtune.datasets.bandstand import render_bandstand

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--train.epochs", "1", "--data.workers", "0")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples") / "clips"
    render_bandstand(folder, 10, seed=3, workers=1)
    return folder


@pytest.fixture(scope="module")
def videos(clips):
    return sorted((clips / "AVE").glob("*.mp4"))


@pytest.fixture
def run(monkeypatch, capsys):
    def call(name, *arguments):
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_has_a_test(example):
    text = example.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert f"python examples/{example.name} " in text.split('"""')[1]
    assert f'run("{example.stem}"' in Path(__file__).read_text(encoding="utf-8")


def test_look_into_a_file(run, videos):
    shown = run("look_into_a_file", videos[0])
    assert "10 frames of" in shown
    assert "codec='h264'" in shown
    assert "damage: none" in shown


def test_features_of_a_video(run, videos):
    shown = run("features_of_a_video", videos[0]).splitlines()
    likeness = [line.split() for line in shown if line.startswith("  ")]
    assert [len(row) for row in likeness] == [10, 10]
    assert {row[0] for row in likeness} == {"1.00"}


@pytest.fixture(scope="module")
def own_clips(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples") / "own"
    folder.mkdir()
    rows = ["file,label,start,end"]
    for number, video in enumerate(videos[:8]):
        (folder / video.name).symlink_to(video)
        rows.append(f"{video.name},{'even' if number % 2 else 'odd'},{number % 5},{number % 5 + 4}")
    (folder / "events.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def test_train_own_clips_then_predict_videos(run, own_clips, videos, tmp_path):
    trained = run("train_own_clips", own_clips, tmp_path / "run", *QUICK)
    assert "segment accuracy on 1 test clips" in trained
    assert "majority" in trained
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    shown = run("predict_videos", tmp_path / "run", videos[9], broken, "--out", tmp_path / "pages")
    assert str(broken) in shown
    written = {page.name for page in (tmp_path / "pages").iterdir()}
    assert written == {f"{videos[9].stem}.{kind}" for kind in ("html", "json", "csv")}


def test_compare_methods(run, clips, tmp_path):
    methods = ["head only", "adapters, no exchange"]
    shown = run("compare_methods", clips, tmp_path, *QUICK, "--only", *methods).splitlines()
    assert shown[0].split() == ["method", "score", "trained", "weights"]
    counts = {line[:28].strip(): int(line.split()[-1].replace(",", "")) for line in shown[1:]}
    assert set(counts) == set(methods)
    assert counts["head only"] < counts["adapters, no exchange"]


def test_run_folder_holds_what_its_page_lists(run, own_clips, tmp_path):
    run("train_own_clips", own_clips, tmp_path / "run", *QUICK)
    page = (ROOT / "docs/run_folder.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w./]+)` \|", page, re.MULTILINE)
    optional = {"floors/", "predictions/"}
    assert optional < set(listed)
    for name in set(listed) - optional:
        assert (tmp_path / "run" / name).is_file(), name
    known = {name.partition("/")[0] for name in listed} | {"tensorboard"}
    assert {path.name for path in (tmp_path / "run").iterdir()} <= known
