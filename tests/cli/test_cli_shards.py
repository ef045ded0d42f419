"""Training and pretraining from shards as people type it: as from the files, killed or not, on two processes too."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import shards_driver as driver
import torch

from avtune.cli import main
from avtune.datasets.shard_index import read_index
from avtune.train.log import read_log
from torchrun import run_on_two_processes

RECIPE = "pretrain/bandstand_nano_avsiam"
QUICK = [
    "--train.epochs=1", "--train.batch_size=2", "--data.workers=0", "--pretraining.depth=2",
    "--pretraining.options.decoder_depth=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def shards(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    source = [f"--data.root={clips}", "--workers", "0", "--gigabytes", "0.0004"]
    assert main(["data", "shard", RECIPE, *source, "--out", str(out / "files")]) == 0
    assert main(["data", "shard", RECIPE, *source, "--out", str(out / "tensors"), "--prepared"]) == 0
    return out


def pretraining(root: Path, out: Path, *settings: str) -> list[str]:
    name = [] if settings and settings[0].startswith("--data.name") else ["--data.name=shards"]
    return ["pretrain", RECIPE, "--out", str(out), f"--data.root={root}", *name, *QUICK, *settings]


def weights(run: Path) -> bytes:
    return (run / "weights.safetensors").read_bytes()


def steps(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_log(run / "log.jsonl") if row["event"] == "step"]


def test_pretraining_from_shards_equals_pretraining_from_the_files(
    clips: Path, shards: Path, tmp_path: Path
) -> None:
    assert main(pretraining(clips, tmp_path / "folder", "--data.name=bandstand_pairs")) == 0
    for kind in ("files", "tensors"):
        settings = ["--data.cache=false"] if kind == "tensors" else []
        assert main(pretraining(shards / kind, tmp_path / kind, *settings)) == 0
        assert weights(tmp_path / kind) == weights(tmp_path / "folder")
        scores = [json.loads((tmp_path / run / "metrics.json").read_text()) for run in (kind, "folder")]
        assert scores[0]["score"] == scores[1]["score"]
        assert scores[0]["clips"] == scores[1]["clips"]


def test_training_from_shards_equals_training_from_the_files(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = "bandstand/lavish_nano"
    assert (
        main(
            [
                "data",
                "shard",
                recipe,
                f"--data.root={clips}",
                "--out",
                str(tmp_path / "shards"),
                "--workers=0",
            ]
        )
        == 0
    )
    quick = [
        "--train.epochs=1", "--train.batch_size=4", "--data.workers=0", "--train.floors=false", "--head.hidden=16",
        "--encoder.options.reduction=16",
    ]  # fmt: skip
    for out, data in (
        ("folder", [f"--data.root={clips}"]),
        ("run", [f"--data.root={tmp_path / 'shards'}", "--data.name=shards"]),
    ):
        assert main(["train", recipe, "--out", str(tmp_path / out), *quick, *data]) == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "folder")
    assert "the masks of 12 clips are not in the shards" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["clips"]["test"] > 0
    settings = ["--data.shards_at_once=2", "--train.sampling=balanced", "--train.epochs=2"]
    command = ["train", recipe, "--out", str(tmp_path / "none"), *quick, *settings]
    assert main([*command, f"--data.root={tmp_path / 'shards'}", "--data.name=shards"]) == 1
    assert "leave data.shards_at_once out" in " ".join(capsys.readouterr().err.split())


def test_a_killed_streaming_run_goes_on_to_the_same_weights(shards: Path, tmp_path: Path) -> None:
    streaming = ["--data.shards_at_once=2", "--data.cache=false", "--train.save_every=1"]
    assert main(pretraining(shards / "tensors", tmp_path / "whole", *streaming)) == 0
    assert main(pretraining(shards / "tensors", tmp_path / "random", "--data.cache=false")) == 0
    assert weights(tmp_path / "random") != weights(tmp_path / "whole")
    program = (
        "import os, signal, sys\n"
        "from avtune.cli.console import ConsoleObserver\n"
        "from avtune.cli import main\n"
        "def die(self, row):\n"
        "    if row['step'] == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ConsoleObserver.stepped = die\n"
        "main(sys.argv[1:])\n"
    )
    command = pretraining(shards / "tensors", tmp_path / "killed", *streaming)
    killed = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert main(command) == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_two_processes_over_damaged_shards(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "shards"
    shutil.copytree(shards / "tensors", root)
    victim = sorted(root.glob("train-*.tar"))[0]
    part = read_index(victim).samples[0].part
    content = bytearray(victim.read_bytes())
    content[part.offset + part.size // 2] ^= 1
    victim.write_bytes(content)
    streaming = ["--data.shards_at_once=2", "--data.cache=false"]
    assert main(pretraining(root, tmp_path / "one", *streaming, "--train.batch_size=4")) == 0
    (tmp_path / "words.json").write_text(json.dumps(pretraining(root, tmp_path / "two", *streaming)))
    run_on_two_processes(driver.__file__, tmp_path)
    one, two = steps(tmp_path / "one"), steps(tmp_path / "two")
    assert len(one) == len(two) > 1
    # The first update's loss depends on which clips are in it, and sums floats in another order.
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)
    damaged = [json.loads((tmp_path / run / "metrics.json").read_text())["damaged"] for run in ("one", "two")]
    assert damaged[0] == damaged[1]
    assert list(damaged[0].values()) == [
        "its tensors are damaged; copy the file again, or prepare the clip anew"
    ]
