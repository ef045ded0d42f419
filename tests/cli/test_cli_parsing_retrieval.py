"""Parsing and retrieval as people type them, on real files, with the bundled backbone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from avtune.cli import main

QUICK = ["--train.epochs=1", "--train.batch_size=4", "--data.workers=0", "--encoder.options.reduction=16"]


def test_parsing_from_training_to_a_prediction(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train = [
        "train",
        "bandstand/parsing_nano",
        "--out",
        str(run),
        f"--data.root={clips}",
        "--head.options.width=16",
    ]
    assert main([*train, *QUICK, "--train.crop_segments=2"]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["score"]["name"] == "Type@AV on segments"
    assert set(metrics["floors"]) == {"majority", "audio only", "video only", "shuffled audio"}
    assert metrics["details"]["segment_level"]["type"] == metrics["score"]["value"]
    page = (run / "report.html").read_text()
    assert "Scores by level" in page
    assert 'class="name band">heard' in page
    assert main(["eval", str(run), "--json", str(tmp_path / "eval.json")]) == 0
    assert json.loads((tmp_path / "eval.json").read_text())["scores"]["details"] == metrics["details"]
    video = next((clips / "AVE").glob("*.mp4"))
    capsys.readouterr()
    assert main(["predict", str(run), str(video), "--out", str(tmp_path / "out")]) == 0
    answer = json.loads((tmp_path / "out" / f"{video.stem}.json").read_text())
    assert len(answer["probabilities"]["seen"]) == 10
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".csv", ".html"}


def test_parsing_of_ones_own_tables(clips: Path, tmp_path: Path) -> None:
    own = tmp_path / "clips"
    own.mkdir()
    for number, file in enumerate(sorted((clips / "AVE").glob("*.mp4"))[:6]):
        shutil.copy(file, own / f"{number}.mp4")
    split = ["train"] * 4 + ["val", "test"]
    rows = "".join(f"{k}.mp4,{'dog' if k % 2 else 'horn'},{k % 3},9,{split[k]}\n" for k in range(6))
    (own / "heard.csv").write_text("file,label,start,end,split\n" + rows)
    (own / "seen.csv").write_text("file,label,start,end,split\n" + rows.replace("horn", "dog"))
    run = tmp_path / "run"
    train = [
        "train",
        "--data.name=heard_seen",
        f"--data.root={own}",
        "--head.task=parsing",
        "--out",
        str(run),
    ]
    assert main([*train, "--head.options.width=16", "--head.options.supervision=segments", *QUICK]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert [row["label"] for row in metrics["details"]["per_class"]] == ["dog", "horn"]


def test_retrieval_from_training_to_vectors(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train = ["train", "bandstand/retrieval_nano", "--out", str(run), f"--data.root={clips}", *QUICK]
    assert main([*train, "--head.options.width=16"]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    queries = metrics["details"]["queries"]
    floors = metrics["floors"]
    assert floors["chance"] == 1 / queries
    assert floors["audio only (video removed)"] == floors["video only (audio removed)"] == 0.0
    assert "Where the partner ranks" in (run / "report.html").read_text()
    videos = sorted((clips / "AVE").glob("*.mp4"))[:2]
    capsys.readouterr()
    assert main(["predict", str(run), *map(str, videos), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "cosine of its sound and its frames" in printed
    assert "fits best the frames of" in printed
    assert len((tmp_path / "out" / "matches.csv").read_text().splitlines()) == 1 + 4
    assert load_file(tmp_path / "out" / f"{videos[0].stem}.safetensors")["vectors"].shape == (2, 16)


def test_weakly_supervised_localization_trains(clips: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train = ["train", "bandstand/lavish_nano", "--out", str(run), f"--data.root={clips}", *QUICK]
    assert main([*train, "--head.supervision=clips", "--head.hidden=16", "--train.crop_segments=null",
                 "--train.floors=false"]) == 0  # fmt: skip
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["score"]["name"] == "segment accuracy"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bandstand/parsing_nano", "--head.options.widht", "3"], "no option 'widht'; did you mean 'width'?"),
        (["bandstand/retrieval_nano", "--head.preset", "feature"], "did you mean 'features'?"),
        (["bandstand/retrieval_nano", "--train.floors", "true"], "leave out train.floors"),
        (["bandstand/retrieval_nano", "--encoder.fusion", "ma_avt"], "encodes each stream without the other"),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_the_mend(
    clips: Path, arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = [] if "ma_avt" not in arguments else ["--encoder.options={}"]
    assert main(["train", *arguments, *extra, f"--data.root={clips}", "--out", str(tmp_path / "run")]) in (
        1,
        2,
    )
    error = capsys.readouterr().err.strip().splitlines()
    assert words in error[-1]
    assert not any("Traceback" in line for line in error)
