"""The command line as people type it, on real files, with the bundled backbone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avtune.cli import main
from avtune.datasets.bandstand import render_bandstand
from avtune.model import load

QUICK = [
    "--train.epochs=1",
    "--train.batch_size=4",
    "--data.workers=0",
    "--head.hidden=16",
    "--encoder.options.reduction=16",
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bandstand")
    render_bandstand(root, 12, seed=3, workers=1)
    return root


@pytest.fixture(scope="module")
def run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", "bandstand/lavish_nano", "--out", str(folder), f"--data.root={clips}", *QUICK]) == 0
    return folder


def test_training_leaves_a_whole_run_folder(run: Path) -> None:
    for name in (
        "config.yaml",
        "weights.safetensors",
        "labels.json",
        "metrics.json",
        "log.jsonl",
        "report.html",
    ):
        assert (run / name).stat().st_size > 0, name
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["floors"]) == {"majority", "audio only", "video only", "shuffled audio"}
    assert 0 <= metrics["score"]["value"] <= 1
    assert metrics["scored_clips"] == metrics["clips"]["test"]
    assert (
        metrics["parameters"]["total"] == metrics["parameters"]["trainable"] + metrics["parameters"]["frozen"]
    )
    assert metrics["versions"]["torch"]
    page = (run / "report.html").read_text()
    assert "data:video/mp4;base64," in page
    assert "shuffled audio" in page


def test_training_again_changes_nothing_and_keeps_the_score(run: Path, clips: Path) -> None:
    before = (run / "weights.safetensors").read_bytes()
    assert main(["train", "bandstand/lavish_nano", "--out", str(run), f"--data.root={clips}", *QUICK]) == 0
    assert (run / "weights.safetensors").read_bytes() == before


def test_eval_repeats_the_score_of_training(run: Path, tmp_path: Path) -> None:
    assert main(["eval", str(run), "--json", str(tmp_path / "eval.json")]) == 0
    written = json.loads((tmp_path / "eval.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    assert written["scores"]["value"] == metrics["score"]["value"]
    assert written["floors"] == metrics["floors"]


def test_eval_takes_a_stream_away_from_the_same_model(run: Path, clips: Path, tmp_path: Path) -> None:
    heard = []
    for audio in ("audio", "video"):
        assert main(["eval", str(run), "--without", audio, "--json", str(tmp_path / "alone.json")]) == 0
        written = json.loads((tmp_path / "alone.json").read_text())
        assert written["without"] == audio
        assert list(written["floors"]) == ["majority"]
        heard.append(written["scores"]["details"]["confusion"])
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["details"]["confusion"] not in heard


def test_report_writes_the_page_anew_with_the_recorded_score(run: Path) -> None:
    page = run / "report.html"
    before = page.read_text()
    page.unlink()
    assert main(["report", str(run), "--clips", "3"]) == 0
    assert page.read_text() == before


def test_predict_writes_json_csv_and_a_page_and_goes_on_past_a_damaged_file(
    run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    good = next((clips / "AVE").glob("*.mp4"))
    assert main(["predict", str(run), str(bad), str(good), "--out", str(tmp_path / "out")]) == 0
    for suffix in (".json", ".csv", ".html"):
        assert (tmp_path / "out" / f"{good.stem}{suffix}").is_file()
    printed = capsys.readouterr()
    assert "bad.mp4" in printed.err
    assert "Traceback" not in printed.err
    rows = json.loads((tmp_path / "out" / f"{good.stem}.json").read_text())
    assert rows["labels"][-1] == "background"
    assert main(["predict", str(run), str(bad), "--out", str(tmp_path / "out2")]) == 1


def test_own_clips_in_folders_of_labels(clips: Path, tmp_path: Path) -> None:
    own = tmp_path / "clips"
    for number, file in enumerate(sorted((clips / "AVE").glob("*.mp4"))):
        folder = own / ("loud dogs" if number % 2 else "horns")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_bytes(file.read_bytes())
    (own / "horns" / "broken.mp4").write_bytes(b"\x00" * 400)
    out = tmp_path / "own"
    arguments = ["train", "--data.root", str(own), "--data.name", "folder", "--encoder.fusion", "lavish"]
    assert main([*arguments, "--out", str(out), *QUICK]) == 0
    assert load(out).labels == ("horns", "loud dogs")
    damaged = json.loads((out / "metrics.json").read_text())["damaged"]
    assert [name for name in damaged if "broken" in name]
    assert "broken.mp4" in (out / "report.html").read_text()


def test_two_processes_train_score_and_report_one_run(clips: Path, tmp_path: Path) -> None:
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "avtune",
    ]
    command = [
        "train",
        "bandstand/lavish_nano",
        "--out",
        str(tmp_path / "two"),
        f"--data.root={clips}",
        *QUICK,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *command], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("segment accuracy") == 1
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert metrics["scored_clips"] == metrics["clips"]["test"]
    assert "audio only" in metrics["floors"]
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()[:-1]
    ]
    assert steps == sorted(set(steps))


def test_check_walks_a_set_and_writes_the_manifest(clips: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    assert (
        main(["check", str(clips), "--name", "bandstand", "--manifest", str(manifest), "--workers", "0"]) == 0
    )
    assert len(json.loads(manifest.read_text())["files"]) == 12


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "ave/lavish_swinv2"], "did you mean"),
        (["train", "bandstand/lavish_nano", "--train.epoch", "3"], "did you mean 'train.epochs'?"),
        (["train", "bandstand/lavish_nano", "--data.root", "/nowhere/at/all"], "/nowhere/at/all"),
        (["train", "--data.name", "foldr"], "did you mean folder?"),
        (["train", "bandstand/lavish_nano", "--encoder.fusion", "lavsh"], "did you mean 'lavish'?"),
        (["train", "--lr", "3"], "did you mean 'optimizer.lr'?"),
        (["eval", "no/such/run"], "no config.yaml"),
        (["predict", "no/such/run", "x.mp4"], "no config.yaml"),
        (["profile", "--encoder.tower", "vit_base_patch16_225"], "there is no backbone named vit_base_patch16_225"),
        (["check", "/nowhere/at/all"], "/nowhere/at/all"),
        (["list", "methods", "--colour"], "takes no --colour"),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_the_mend(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], clips: Path
) -> None:
    if "lavsh" in arguments:
        arguments = [*arguments, f"--data.root={clips}"]
    assert main(arguments) in (1, 2)
    error = capsys.readouterr().err.strip().splitlines()
    assert words in error[-1]
    assert not any("Traceback" in line for line in error)


def test_print_config_gives_every_setting_and_reads_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", "ave/lavish_vit_b", "--train.seed", "7", "--print_config"]) == 0
    printed = capsys.readouterr().out
    file = tmp_path / "mine.yaml"
    file.write_text(printed)
    assert main(["train", str(file), "--print_config"]) == 0
    assert capsys.readouterr().out == printed
    assert "seed: 7" in printed


@pytest.mark.parametrize("what", ["methods", "presets", "recipes", "datasets", "sounds"])
def test_lists(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 2


def test_profile_tells_the_papers_counts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["profile", "ave/lavish_vit_b", "--json", str(tmp_path / "p.json")]) == 0
    assert "4.645 M" in capsys.readouterr().out
    assert round(json.loads((tmp_path / "p.json").read_text())["published"] / 1e6, 3) == 107.241


def test_help_needs_no_pytorch_and_the_module_runs() -> None:
    code = "import sys; from avtune.cli import _parser; _parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    shown = subprocess.run(
        [sys.executable, "-m", "avtune", "--version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("avtune ")


def test_try_leaves_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from avtune.cli import trying

    settled = trying._config

    def quick(out: Path, seed: int) -> object:
        config = settled(out, seed)
        return replace(config, train=replace(config.train, epochs=1), data=replace(config.data, workers=0))

    monkeypatch.setattr(trying, "_config", quick)
    assert main(["try", "--out", str(tmp_path / "try"), "--clips", "12"]) == 0
    assert (tmp_path / "try" / "run" / "report.html").stat().st_size > 50_000
