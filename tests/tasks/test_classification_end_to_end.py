"""Shown and heard digits whose sum is the label: neither stream alone tells anything, and both together tell all."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from avtune.cli import main
from avtune.config import DataConfig
from avtune.datasets import read
from avtune.media import write_video

# The sum modulo 3 is learned too (0.81 of 54 clips against 0.37 alone), but takes twice as long.
DIGITS = 2
PITCHES = (300.0, 900.0)
SIZE, RATE = 64, 8
CLIPS = {"train": 16, "val": 4, "test": 8}
"""Clips of each pair of digits."""


def shown(digit: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A disc or a lying bar of any colour, somewhere on a dark ground: (frames, SIZE, SIZE, 3)."""
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    across, down = np.abs(x - rng.integers(22, 42)), np.abs(y - rng.integers(22, 42))
    reach = rng.integers(10, 17)
    shape = (across**2 + down**2 < reach**2, (across < reach) & (down < 0.3 * reach))[digit]
    picture = np.full((SIZE, SIZE, 3), rng.integers(20, 60), np.uint8)
    picture[shape] = rng.integers(150, 255, 3)
    return np.repeat(picture[None], RATE, axis=0)


def heard(digit: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A second of a tone that is low or high, within a tenth of its pitch."""
    time = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * PITCHES[digit] * rng.uniform(0.9, 1.1) * time + rng.uniform(0, 6))
    return (rng.uniform(0.2, 0.4) * tone + rng.normal(0, 0.01, len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``<split>/<sum>/<picture>_<sound>_<number>.mp4``."""
    root, rng = tmp_path_factory.mktemp("digits"), np.random.default_rng(0)
    for split, count in CLIPS.items():
        for picture in range(DIGITS):
            for sound in range(DIGITS):
                folder = root / split / f"sum {(picture + sound) % DIGITS}"
                folder.mkdir(parents=True, exist_ok=True)
                for number in range(count):
                    path = folder / f"{picture}_{sound}_{number}.mp4"
                    write_video(path, shown(picture, rng), RATE, heard(sound, rng))
    return root


@pytest.fixture(scope="module")
def run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    arguments = [
        "train", f"--data.root={clips}", "--data.name=folder", "--data.workers=0",
        f"--data.cache_folder={folder / 'cache'}", "--input.segments=1", "--head.task=classification",
        "--head.hidden=64", "--optimizer.lr=0.003", "--optimizer.lr_gate=0.03", "--optimizer.weight_decay=0.01",
        "--optimizer.schedule=constant", "--train.epochs=9", "--train.batch_size=8",
    ]  # fmt: skip
    assert main([*arguments, "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_each_stream_alone_is_at_chance_by_construction(clips: Path) -> None:
    collection = read(DataConfig(name="folder", root=str(clips)))
    assert [len(collection.splits[split]) for split in ("train", "validation", "test")] == [
        DIGITS**2 * CLIPS[name] for name in ("train", "val", "test")
    ]
    for records in collection.splits.values():
        for place in (0, 1):
            told = Counter((Path(record.name).stem.split("_")[place], record.truths) for record in records)
            assert len(told) == DIGITS**2
            assert len(set(told.values())) == 1


def test_the_fused_model_knows_what_neither_stream_does(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["score"]["name"] == "top-1 accuracy"
    floors = metrics["floors"]
    assert floors["majority"] <= 1 / DIGITS
    alone = [
        floors["audio only (video removed)"],
        floors["video only (audio removed)"],
        floors["shuffled audio"],
    ]
    # Of 32 clips, each right by chance in a half, 0.77 is three standard deviations above.
    assert max(alone) < 0.77
    assert metrics["score"]["value"] > 0.85
    assert metrics["score"]["value"] > max(alone) + 0.25
    assert (run / "report.html").stat().st_size > 0


def test_a_removed_stream_is_the_floor_of_the_run(run: Path, tmp_path: Path) -> None:
    floors = json.loads((run / "metrics.json").read_text())["floors"]
    for stream, kept in (("video", "audio"), ("audio", "video")):
        assert main(["eval", str(run), "--without", stream, "--json", str(tmp_path / "alone.json")]) == 0
        written = json.loads((tmp_path / "alone.json").read_text())
        assert written["scores"]["value"] == floors[f"{kept} only ({stream} removed)"]
        assert list(written["floors"]) == ["majority"]


def test_a_second_evaluation_reads_the_disk_cache_and_scores_the_same(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode_again(*arguments: object) -> None:
        raise AssertionError("a clip was decoded again")

    monkeypatch.setattr("avtune.transforms.Preprocessing.load", decode_again)
    assert main(["eval", str(run), "--json", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    assert again["scores"]["value"] == metrics["score"]["value"]
    assert again["floors"] == metrics["floors"]


def test_clips_are_predicted_with_the_probability_of_each_label(
    run: Path, clips: Path, tmp_path: Path
) -> None:
    assert main(["predict", str(run), str(clips / "test" / "sum 0"), "--out", str(tmp_path)]) == 0
    answers = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert len(answers) == DIGITS * CLIPS["test"]
    for answer in answers:
        shares = [row["probability"] for row in answer["classes"]]
        assert {row["label"] for row in answer["classes"]} == {f"sum {k}" for k in range(DIGITS)}
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert not answer["multi_label"]
    assert np.mean([answer["classes"][0]["label"] == "sum 0" for answer in answers]) > 0.75
    assert "sum 0" in (tmp_path / "1_1_0.html").read_text()
