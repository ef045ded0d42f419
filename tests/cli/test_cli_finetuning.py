"""Pretraining and fine-tuning as people type them, on real files, with the bundled backbone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

import avtune
from avtune.cli import main
from avtune.media import write_video

QUICK = ["--data.workers=0", "--train.epochs=1"]


@pytest.fixture(scope="module")
def pretrained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pretrained"
    sizes = ["--pretraining.depth=2", "--pretraining.options.decoder_depth=1"]
    command = ["pretrain", "pretrain/bandstand_nano_avsiam", f"--data.root={clips}", "--out", str(folder)]
    assert main([*command, *QUICK, *sizes]) == 0
    return folder


@pytest.fixture(scope="module")
def run(clips: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fine-tuned; its pretraining run is somewhere else by now."""
    folder = tmp_path_factory.mktemp("runs") / "finetuned"
    moved = folder.parent / "pretrained"
    shutil.copytree(pretrained, moved)
    command = [
        "train",
        "bandstand/avsiam_finetune_nano",
        f"--data.root={clips}",
        f"--encoder.pretraining={moved}",
    ]
    assert main([*command, *QUICK, "--train.batch_size=2", "--out", str(folder)]) == 0
    # The same command finds the run finished, and the same scores.
    scored = json.loads((folder / "metrics.json").read_text())["score"]
    assert main([*command, *QUICK, "--train.batch_size=2", "--out", str(folder)]) == 0
    assert json.loads((folder / "metrics.json").read_text())["score"] == scored
    shutil.rmtree(moved)
    return folder


def test_all_weights_moved_from_where_pretraining_left_them(run: Path, pretrained: Path) -> None:
    before, after = load_file(pretrained / "weights.safetensors"), load_file(run / "weights.safetensors")
    encoder = {name: value for name, value in before.items() if name.startswith("encoder.")}
    assert set(encoder) == {
        name.removeprefix("classifier.") for name in after if not name.startswith("classifier.head.")
    }
    differences = {name: abs(after[f"classifier.{name}"] - value).max() for name, value in encoder.items()}
    # A dozen updates by at most about the rate each, and decay.
    assert max(differences.values()) < 0.05
    assert sum(difference > 0 for difference in differences.values()) > 0.9 * len(differences)
    parameters = json.loads((run / "metrics.json").read_text())["parameters"]
    assert parameters["frozen"] == 0
    assert parameters["trainable"] == sum(value.size for value in after.values())
    assert parameters["parts"]["joint"] > 0


def test_what_is_left_is_scored_by_its_own_head(run: Path, tmp_path: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    for removed, kept in (("audio", "video"), ("video", "audio")):
        assert main(["eval", str(run), "--without", removed, "--json", str(tmp_path / "one.json")]) == 0
        alone = json.loads((tmp_path / "one.json").read_text())["scores"]
        assert alone["value"] == metrics["floors"][f"{kept} only ({removed} removed)"]
    assert main(["eval", str(run), "--json", str(tmp_path / "both.json")]) == 0
    assert json.loads((tmp_path / "both.json").read_text())["scores"]["details"] == metrics["details"]


def test_predictions_of_whole_and_of_silent_files(run: Path, clips: Path, tmp_path: Path) -> None:
    video = next((clips / "AVE").glob("*.mp4"))
    model = avtune.load(run)
    whole = model.predict(video)
    assert whole.probabilities.sum() == pytest.approx(1, abs=1e-5)
    pictures = (model.preprocessing.load(video).frames.permute(0, 2, 3, 1).numpy()).repeat(4, axis=0)
    write_video(tmp_path / "silent.mp4", pictures, 4, None)
    silent = model.predict(tmp_path / "silent.mp4")
    assert any("no sound" in note for note in silent.notes)
    assert abs(silent.probabilities - whole.probabilities).max() > 1e-6
    assert main(["predict", str(run), str(video), "--out", str(tmp_path / "out")]) == 0
    answer = json.loads((tmp_path / "out" / f"{video.stem}.json").read_text())
    assert answer["classes"][0]["probability"] == pytest.approx(float(whole.probabilities.max()), abs=1e-4)


def test_its_page_and_its_costs(
    run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert "avsiam on bandstand_classes" in (run / "report.html").read_text()
    capsys.readouterr()
    assert (
        main(["profile", str(run / "config.yaml"), "--labels", "10", "--json", str(tmp_path / "cost.json")])
        == 0
    )
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert cost["parameters"]["trainable"] == cost["total"]
    assert cost["tower_gmacs"] > 0
    assert cost["method_gmacs"] == 0


def test_a_start_that_does_not_fit_is_told_in_one_line(
    pretrained: Path, run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "train",
        "bandstand/avsiam_finetune_nano",
        f"--data.root={clips}",
        "--out",
        str(tmp_path / "run"),
    ]
    for extra, words in (
        ([f"--encoder.pretraining={run}"], "is of no pretraining run"),
        ([f"--encoder.pretraining={pretrained}", "--input.audio.steps=80"], "takes spectrograms of"),
        ([f"--encoder.pretraining={pretrained}", "--train.floors=true"], "leave out train.floors"),
    ):
        capsys.readouterr()
        assert main([*command, *extra]) != 0
        told = capsys.readouterr().err.strip()
        assert words in told.replace("\n", " ")
    assert not (tmp_path / "run").exists()
