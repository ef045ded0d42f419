"""``avtune pretrain`` as people type it, on real files, with the bundled backbone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from avtune.cli import main
from avtune.pretrain.saved import PretrainedError, load_pretrained, read_pretrained

RECIPE = "pretrain/bandstand_nano_avsiam"
QUICK = [
    "--train.epochs=2", "--train.batch_size=4", "--train.accumulate=2", "--data.workers=0", "--data.name=bandstand",
    "--pretraining.depth=2", "--pretraining.options.decoder_depth=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(["pretrain", RECIPE, "--out", str(folder), f"--data.root={clips}", *QUICK]) == 0
    return folder


def test_a_run_folder_is_whole(run: Path) -> None:
    for name in (
        "config.yaml",
        "weights.safetensors",
        "preprocessing.json",
        "metrics.json",
        "log.jsonl",
        "state/last.pt",
    ):
        assert (run / name).stat().st_size > 0, name
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["floors"]) == {"chance", "before pretraining"}
    assert metrics["score"]["name"] == "mean recall at 1"
    for scores in (metrics["details"], metrics["details"]["before pretraining"]):
        for direction in ("audio_to_video", "video_to_audio"):
            found = scores[direction]
            assert 0 <= found["recall_at_1"] <= found["recall_at_5"] <= found["recall_at_10"] <= 1
            assert 1 <= found["median_rank"] <= found["queries"] == metrics["clips"]["test"]
    page = (run / "report.html").read_text()
    for words in ("before pretraining", "Training loss", "Validation score", "sound to frames", "chance"):
        assert words in page, words


def test_what_was_pretrained_is_read_back_and_differs_from_its_start(run: Path) -> None:
    found = read_pretrained(run)
    assert found.config.depth == 2
    rows, columns = found.preprocessing.spectrogram_shape
    vectors = found.model.encoder.embed_audio(torch.randn(3, rows, columns))
    assert vectors.shape == (3, 128)
    again = load_pretrained(run)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), found.model.parameters(), strict=True))


def test_the_same_command_again_changes_nothing(run: Path, clips: Path) -> None:
    before = {name: (run / name).read_bytes() for name in ("weights.safetensors", "log.jsonl")}
    score = json.loads((run / "metrics.json").read_text())["score"]
    assert main(["pretrain", RECIPE, "--out", str(run), f"--data.root={clips}", *QUICK]) == 0
    assert before == {name: (run / name).read_bytes() for name in before}
    assert json.loads((run / "metrics.json").read_text())["score"] == score


def test_eval_and_report_repeat_what_pretraining_found(
    run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run), f"--data.root={clips}", "--json", str(tmp_path / "eval.json")]) == 0
    written = json.loads((tmp_path / "eval.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    assert written["scores"]["value"] == metrics["score"]["value"]
    other = ["--data.name=bandstand_pairs", "--split", "train", "--json", str(tmp_path / "other.json")]
    assert main(["eval", str(run), *other]) == 0
    assert json.loads((tmp_path / "other.json").read_text())["clips"] == 9
    page = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_text() == page
    assert main(["eval", str(run), "--without", "audio"]) == 1
    assert "compares sound with frames; leave out --without" in " ".join(capsys.readouterr().err.split())


def test_a_killed_run_goes_on_to_the_same_weights(run: Path, clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    program = (
        "import os, signal, sys\n"
        "from avtune.cli.console import ConsoleObserver\n"
        "from avtune.cli import main\n"
        "def die(self, row):\n"
        "    if row['step'] == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ConsoleObserver.stepped = die\n"
        "main(sys.argv[1:])\n"
    )
    command = [
        "pretrain",
        RECIPE,
        "--out",
        str(folder),
        f"--data.root={clips}",
        *QUICK,
        "--train.save_every=1",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(
        [sys.executable, "-c", program, *command], env=environment, capture_output=True, text=True
    )
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert not (folder / "weights.safetensors").exists()
    with pytest.raises(
        PretrainedError, match=r"no weights\.safetensors, so this is no finished pretraining run"
    ):
        load_pretrained(folder)
    assert main(command) == 0
    assert (folder / "weights.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()


def test_mistakes_are_one_line(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["pretrain", "pretrain/bandstand_nano_avsia"], "did you mean 'pretrain/bandstand_nano_avsiam'?"),
        (["pretrain", RECIPE, "--train.patience=3"], "there is no setting 'train.patience'"),
        (
            ["pretrain", RECIPE, "--pretraining.objective=avsaim"],
            "unknown objective 'avsaim'; did you mean 'avsiam'?",
        ),
        (["pretrain", RECIPE, "--input.audio.placement=grid"], "set input.audio.placement=clip"),
        (["pretrain", RECIPE, "--train.shard=true"], "start them by torchrun"),
        (["train", RECIPE], f"run avtune pretrain {RECIPE}"),
    ):
        settings = QUICK[1:] if arguments[0] == "pretrain" else []
        code = main([*arguments, f"--data.root={clips}", "--out", str(tmp_path / "out"), *settings])
        printed = capsys.readouterr()
        assert code == 1, arguments
        problem = printed.err.strip().splitlines()[-1]
        assert words in problem.replace("\n", " "), printed.err
        assert "Traceback" not in printed.err


def test_a_pretraining_run_is_told_apart_from_one_that_answers(
    run: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run), str(next(clips.rglob("*.mp4")))]) == 1
    problem = capsys.readouterr().err.strip()
    assert "a pretraining run, which answers no task; search with it" in problem
    assert "\n" not in problem
