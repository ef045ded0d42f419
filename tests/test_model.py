"""Build, save, load and predict, through real files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import avtune
from avtune.media import MediaError, write_video
from avtune.model import AudioVisualModel, ModelError, create_model, load
from avtune.tasks import TimelinePrediction

LABELS = ("bell", "drum")


def small(**options: object) -> AudioVisualModel:
    torch.manual_seed(0)
    model = create_model("nano", labels=LABELS, pretrained=False, segments=4, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in model.network.encoder.fusion.named_parameters():
            if "gate" in name:
                weight.fill_(0.3)
    return model


def film(path: Path, seconds: float, sound: bool = True, rate: float = 5.0) -> Path:
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 255, (max(1, round(seconds * rate)), 48, 64, 3), dtype=np.uint8)
    waveform = generator.normal(0, 0.1, round(seconds * 16000)).astype(np.float32)
    write_video(path, frames, rate, waveform if sound else None)
    return path


def test_predictions_of_a_loaded_run_are_those_of_the_saved_model(tmp_path: Path) -> None:
    model, file = small(), film(tmp_path / "a film.mp4", 7.3)
    before = model.predict(file)
    model.save(tmp_path / "run")
    again = load(tmp_path / "run")
    assert again.labels == LABELS
    assert again.preprocessing == model.preprocessing
    after = again.predict(file)
    assert np.array_equal(before.probabilities, after.probabilities)
    assert avtune.load(tmp_path / "run").class_names == ("bell", "drum", "background")


def test_only_trained_weights_are_saved(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "run")
    saved = load_file(tmp_path / "run" / "weights.safetensors")
    trained = {name for name, weight in model.network.named_parameters() if weight.requires_grad}
    assert trained <= set(saved)
    assert not any("tower" in name for name in saved)


def test_predictions_cover_a_file_of_any_length_and_rows_sum_to_one(tmp_path: Path) -> None:
    model = small()
    for seconds, segments in ((0.4, 1), (1.0, 1), (3.6, 4), (4.0, 4), (9.0, 9), (13.2, 13)):
        prediction = model.predict(film(tmp_path / f"{seconds}.mp4", seconds))
        assert prediction.probabilities.shape == (segments, 3), seconds
        np.testing.assert_allclose(prediction.probabilities.sum(1), 1, atol=1e-5)


def test_windows_that_overlap_agree_with_the_whole_for_a_method_without_time(tmp_path: Path) -> None:
    model, file = small(), film(tmp_path / "film.mp4", 11.0)
    strides = [model.predict(file, stride_segments=stride).probabilities for stride in (1, 3, 4)]
    for other in strides[1:]:
        np.testing.assert_allclose(strides[0], other, atol=1e-5)


def test_a_file_without_sound_is_answered_and_said_so(tmp_path: Path) -> None:
    prediction = small().predict(film(tmp_path / "mute.mp4", 4.0, sound=False))
    assert len(prediction.classes) == 4
    assert any("no sound" in note for note in prediction.notes)


def test_what_cannot_be_read_is_one_error_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    for name in ("text.mp4", "missing.mp4"):
        with pytest.raises(MediaError) as caught:
            small().predict(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_the_timeline_joins_equal_answers_and_leaves_background_out() -> None:
    rows = np.eye(3, dtype=np.float32)[[2, 0, 0, 1, 2, 2]] * 0.8 + 0.2 / 3
    timeline = TimelinePrediction(Path("x"), ("bell", "drum", "background"), 0.5, rows).timeline
    assert [(event.start, event.end, event.label) for event in timeline] == [
        (0.5, 1.5, "bell"),
        (1.5, 2.0, "drum"),
    ]
    assert timeline[0].probability == pytest.approx(0.8 + 0.2 / 3)


def test_damaged_and_unfinished_runs_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.yaml, so this is no finished run"):
        load(tmp_path)
    run = tmp_path / "run"
    small().save(run)
    weights = (run / "weights.safetensors").read_bytes()
    (run / "weights.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="damaged"):
        load(run)
    (run / "weights.safetensors").write_bytes(b"\x80\x04not a pickle to be read")
    with pytest.raises(ModelError, match="damaged"):
        load(run)
    save_file({"other": torch.zeros(1)}, run / "weights.safetensors")
    with pytest.raises(ModelError, match="not of the same run"):
        load(run)


def test_a_run_on_other_tower_weights_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small().save(run)
    text = (run / "config.yaml").read_text()
    assert "tower_seed: 0" in text
    (run / "config.yaml").write_text(text.replace("tower_seed: 0", "tower_seed: 1"))
    with pytest.raises(ModelError, match="was trained on other weights of nano"):
        load(run)


def test_labels_and_preprocessing_are_plain_files(tmp_path: Path) -> None:
    small().save(tmp_path)
    assert json.loads((tmp_path / "labels.json").read_text()) == list(LABELS)
    assert json.loads((tmp_path / "preprocessing.json").read_text())["segments"] == 4


@pytest.mark.parametrize(
    ("tower", "shape"),
    [("nano", (64, 64)), ("vit_tiny_patch16_224", (102, 128)), ("swinv2_tiny_window8_256", (256, 256))],
)
def test_each_kind_of_tower_gets_a_spectrogram_that_fits_it(tower: str, shape: tuple[int, int]) -> None:
    model = create_model(tower, labels=LABELS, device="meta")
    assert model.preprocessing.spectrogram_shape == shape
