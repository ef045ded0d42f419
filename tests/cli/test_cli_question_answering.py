"""Questions from the command line, on real files: train both stages, score, ask."""

import json
from pathlib import Path

import numpy as np
import pytest

from avtune.cli import main
from avtune.media import write_video

QUICK = [
    "--data.name=questions", "--data.workers=0", "--input.segments=2", "--encoder.pretrained=false",
    "--encoder.options.reduction=16", "--head.task=question_answering", "--head.hidden=8", "--train.epochs=1",
    "--train.batch_size=4",
]  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("asked")
    rng, rows = np.random.default_rng(0), []
    for number in range(8):
        frames = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        path = root / "videos" / f"clip{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, frames, 2.0, rng.normal(0, 0.1, 32000).astype(np.float32))
        asked = {
            "video_id": f"clip{number}", "type": ["Audio", "Counting"], "answer": ("yes", "no")[number % 2],
            "question_content": "Is there a <Object> sound?",
            "split": ("train", "train", "val", "test")[number // 2],
        }  # fmt: skip
        rows += [{**asked, "templ_values": [word]} for word in ("drum", "bell")]
    (root / "questions.json").write_text(json.dumps(rows), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    ground = [*QUICK, f"--data.root={clips}", "--head.options.stage=grounding"]
    assert main(["train", "--out", str(folder / "grounding"), *ground]) == 0
    answer = [*QUICK, f"--data.root={clips}", f"--head.options.grounding_from={folder / 'grounding'}"]
    assert main(["train", "--out", str(folder / "answering"), *answer, "--train.floors=true"]) == 0
    return folder / "answering"


def test_a_run_is_scored_beside_its_floors_and_again_by_eval(run: Path, tmp_path: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["floors"]) == {
        "majority",
        "question only",
        "audio only",
        "video only",
        "shuffled audio",
    }
    assert metrics["score"]["name"] == "accuracy"
    assert metrics["details"]["questions"] == 4
    assert [row["label"] for row in metrics["details"]["per_class"]] == ["Audio", "Audio: Counting"]
    assert main(["eval", str(run), "--json", str(tmp_path / "eval.json")]) == 0
    written = json.loads((tmp_path / "eval.json").read_text())
    assert written["scores"]["value"] == metrics["score"]["value"]
    assert written["scores"]["details"] == metrics["details"]
    assert written["floors"] == metrics["floors"]
    page = (run / "report.html").read_text()
    assert "Is there a drum sound?" in page
    assert page.count("data:image/png;base64,") >= 4


def test_the_first_stage_is_scored_by_what_matches_and_shows_where_it_looks(
    run: Path, clips: Path, tmp_path: Path
) -> None:
    grounding = run.parent / "grounding"
    metrics = json.loads((grounding / "metrics.json").read_text())
    assert metrics["score"]["name"] == "matching accuracy"
    assert "question only" not in metrics["floors"]
    assert main(["predict", str(grounding), str(clips / "videos" / "clip0.mp4"), "--out", str(tmp_path)]) == 0
    assert "data:image/png;base64," in (tmp_path / "clip0.html").read_text()


def test_a_person_asks(run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["predict", str(run), str(clips / "videos" / "clip0.mp4"), "--out", str(tmp_path)]
    assert main([*ask, "--question", "is there a bell sound"]) == 0
    printed = capsys.readouterr().out
    assert "is there a bell sound" in printed
    answers = json.loads((tmp_path / "clip0.json").read_text())["answers"]
    assert {row["answer"] for row in answers} == {"yes", "no"}
    assert sum(row["probability"] for row in answers) == pytest.approx(1, abs=1e-5)
    assert main(ask) == 1
    assert 'such as --question "Is there a drum sound?"' in capsys.readouterr().err
    assert main([*ask, "--question", "is there a bel sound"]) == 1
    assert "the nearest that it knows: bell" in capsys.readouterr().err
