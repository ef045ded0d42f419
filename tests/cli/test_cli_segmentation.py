"""Segmentation as people type it, on real files, with the bundled backbone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avtune.cli import main
from avtune.model import load
from avtune.tasks import MaskPrediction

QUICK = [
    "--train.epochs=1", "--train.batch_size=4", "--data.workers=0", "--train.crop_segments=2",
    "--head.options.size=32", "--head.options.channels=[4,4,4,4]", "--head.options.width=8",
    "--encoder.options.reduction=16",
]  # fmt: skip


def train(root: Path, out: Path, *settings: str, name: str = "bandstand") -> int:
    start = [
        "train",
        "bandstand/segmentation_nano",
        "--out",
        str(out),
        f"--data.root={root}",
        f"--data.name={name}",
    ]
    return main([*start, *QUICK, *settings])


def test_from_training_to_a_prediction(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert train(clips, run) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["score"]["name"] == "mIoU"
    assert {"all silent", "mean mask"} <= set(metrics["floors"])
    assert metrics["details"]["frames"] == 10 * metrics["clips"]["test"]
    page = (run / "report.html").read_text()
    assert "IoU" in page
    assert "data:image/jpeg;base64," in page
    assert "data:video/mp4;base64," in page
    assert main(["eval", str(run), "--json", str(tmp_path / "eval.json")]) == 0
    again = json.loads((tmp_path / "eval.json").read_text())
    assert again["scores"]["details"] == metrics["details"]
    assert again["floors"] == metrics["floors"]
    video = next((clips / "AVE").glob("*.mp4"))
    capsys.readouterr()
    assert main(["predict", str(run), str(video), "--out", str(out)]) == 0
    written = {path.name for path in out.iterdir()}
    stem = video.stem
    assert written == {f"{stem}{end}" for end in (".html", ".json", "_masks", "_masks.png", "_sounding.mp4")}
    assert len(list((out / f"{stem}_masks").iterdir())) == 10
    answer = json.loads((out / f"{stem}.json").read_text())
    assert len(answer["segments"]) == 10
    prediction = load(run).predict(video)
    assert isinstance(prediction, MaskPrediction)
    assert prediction.probabilities.shape == (10, 32, 32)
    shares = [row["share"] for row in answer["segments"]]
    assert shares == pytest.approx(prediction.shares.tolist(), abs=1e-6)


def test_own_masks_in_a_table_with_their_floors_and_a_damaged_one(clips: Path, tmp_path: Path) -> None:
    own, run = tmp_path / "own", tmp_path / "run"
    rows = ["file,label,start,end,split"]
    for number, file in enumerate(sorted((clips / "AVE").glob("*.mp4"))[:6]):
        split = ("train", "train", "train", "train", "val", "test")[number]
        (own / "day").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, own / "day" / f"{number}.mp4")
        shutil.copytree(clips / "masks" / file.stem, own / "masks/day" / str(number))
        rows.append(f"day/{number}.mp4,{'dog' if number % 2 else 'horn'},0,10,{split}")
    (own / "events.csv").write_text("\n".join(rows) + "\n")
    (own / "masks/day/1/3.png").write_bytes(b"no picture")
    (own / "masks/day/5/2.png").unlink()
    assert train(own, run, "--head.options.semantic=true", "--train.floors=true", name="csv") == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["score"]["name"] == "mIoU over classes"
    assert {"audio only", "video only"} <= set(metrics["floors"])
    assert [row["label"] for row in metrics["details"]["per_class"]] == ["silent", "dog", "horn"]
    # The second without a mask counts nowhere.
    assert metrics["details"]["frames"] == 9
    (problem,) = metrics["damaged"].values()
    assert "masks/day/1/3.png is no PNG that can be decoded" in problem
    assert main(["predict", str(run), str(own / "day/5.mp4"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/5_sounding.mp4").is_file()


def test_masks_of_another_shape_are_named_and_clips_without_any_cannot_be_learned(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    shutil.copytree(clips, own)
    for mask in (own / "masks").glob("*/0.png"):
        Image.fromarray(np.zeros((10, 30), np.uint8)).save(mask)
    assert train(own, tmp_path / "wide") == 1
    error = capsys.readouterr().err
    assert "0.png is 30x10, its frame 64x64; draw masks over whole frames" in error
    assert "Traceback" not in error
    shutil.rmtree(own / "masks")
    assert train(own, tmp_path / "none") == 1
    assert "has no masks; put them into masks/<name of the clip>/<second>.png" in capsys.readouterr().err
