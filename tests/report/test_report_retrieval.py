"""A file's vectors on a page and as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from avtune.report import ShownClip, write_prediction
from avtune.report.cards import prediction_card
from avtune.report.retrieval import write_matches
from avtune.tasks import RetrievalPrediction
from avtune.tasks.retrieval import unit


def prediction(windows: int = 2, *, deaf: bool = False) -> RetrievalPrediction:
    drawn = unit(np.random.default_rng(0).normal(size=(2, windows, 4)))
    audio = np.zeros_like(drawn[0]) if deaf else drawn[0]
    starts = np.arange(windows, dtype=np.float32) * 5
    weights = np.full(windows, 10, np.float32)
    return RetrievalPrediction(Path("my.mp4"), ("bell", "horn"), 1.0, starts, weights, audio, drawn[1])


def test_a_card_tells_how_well_sound_and_frames_agree(tmp_path: Path) -> None:
    found = prediction()
    card = prediction_card(ShownClip("my", found, None, np.asarray(1)), tmp_path, "h3").html
    assert f"<b>{found.agreement:.3f}</b>" in card
    assert "class: horn" in card
    cosines = (found.audio * found.video).sum(1)
    for start, cosine in zip((0, 5), cosines, strict=True):
        assert f"0:{start:02d} – 0:{start + 10:02d}" in card
        assert f"{cosine:.3f}" in card
    assert "class:" not in prediction_card(ShownClip("my", found, None, np.asarray(-1)), tmp_path, "h3").html


def test_a_file_without_sound_has_nothing_to_compare(tmp_path: Path) -> None:
    card = prediction_card(ShownClip("my", prediction(deaf=True)), tmp_path, "").html
    assert "It lacks sound or frames" in card
    write_prediction(prediction(deaf=True), tmp_path, "my", {})
    assert json.loads((tmp_path / "my.json").read_text())["agreement"] is None


def test_the_frames_of_all_files_are_ranked_for_each_sound(tmp_path: Path) -> None:
    eye = np.eye(3, dtype=np.float32)

    def file(name: str, audio: np.ndarray, video: np.ndarray) -> RetrievalPrediction:
        one = np.zeros(1, np.float32)
        return RetrievalPrediction(Path(name), (), 1.0, one, one + 1, audio[None], video[None])

    files = [
        file("a.mp4", eye[0], eye[0]),
        file("b.mp4", eye[1], 0.6 * eye[0] + 0.8 * eye[2]),
        file("deaf.mp4", 0 * eye[0], eye[1]),
    ]
    found = write_matches(files, tmp_path)
    assert [(m.sound, m.frames, m.rank) for m in found] == [
        ("a.mp4", "a.mp4", 1), ("a.mp4", "b.mp4", 2), ("a.mp4", "deaf.mp4", 3),
        ("b.mp4", "deaf.mp4", 1), ("b.mp4", "a.mp4", 2), ("b.mp4", "b.mp4", 3),
    ]  # fmt: skip
    assert [m.cosine for m in found] == pytest.approx([1.0, 0.6, 0.0, 1.0, 0.0, 0.0], abs=1e-6)
    lines = (tmp_path / "matches.csv").read_text().splitlines()
    assert lines[0] == "sound,frames,rank,cosine"
    assert lines[2] == "a.mp4,b.mp4,2,0.6"


def test_the_vectors_come_back_whole(tmp_path: Path) -> None:
    found = prediction(3)
    write_prediction(found, tmp_path, "my", {})
    content = json.loads((tmp_path / "my.json").read_text())
    assert content == {
        "format": 1, "file": "my.mp4", "vectors": "my.safetensors", "width": 4, "windows": 3,
        "agreement": pytest.approx(found.agreement, abs=1e-6), "notes": [],
    }  # fmt: skip
    tensors = load_file(tmp_path / content["vectors"])
    for name in ("starts", "weights", "audio", "video", "vectors"):
        np.testing.assert_array_equal(tensors[name], getattr(found, name))
