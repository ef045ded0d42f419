"""Pictures of what sounds: what is lit stays as it is, what is silent fades, and files that tell the same."""

import io
import json
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avtune.cli.predicting import SHOWN
from avtune.media import decode, probe, write_video
from avtune.report.masks import mask_card, read_clip, write_masks
from avtune.report.overlays import class_regions, lit, predicted_regions, region_colour, strip
from avtune.report.shown import ShownClip
from avtune.tasks import MaskPrediction

SIDE, SECONDS, RATE = 64, 3, 8


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a bright frame, twice as wide as high, with a tone."""
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    frame = np.full((SIDE, 2 * SIDE, 3), (200, 120, 40), np.uint8)
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(16000 * SECONDS) / 16000)
    write_video(path, [frame] * (SECONDS * RATE), RATE, tone.astype(np.float32))
    return path


def prediction(video: Path) -> MaskPrediction:
    """Nothing, the left half, everything."""
    probabilities = np.zeros((SECONDS, 16, 16), np.float32)
    probabilities[1, :, :8] = 1.0
    probabilities[2] = 1.0
    return MaskPrediction(video, ("sounding",), 1.0, probabilities, notes=("a <note>",))


def semantic(video: Path) -> MaskPrediction:
    classes = np.zeros((SECONDS, 16, 16), np.uint8)
    classes[1, :, :8], classes[2] = 1, 2
    return MaskPrediction(
        video, ("silent", "dog & cat", "horn"), 1.0, np.full(classes.shape, 0.9, np.float32), classes
    )


def test_masks_are_stretched_over_the_whole_frame(video: Path) -> None:
    regions = predicted_regions(prediction(video), 1, (40, 20))
    assert regions.shape == (20, 40)
    assert regions[:, :20].all()
    assert not regions[:, 20:].any()
    classes = predicted_regions(semantic(video), 1, (40, 20))
    assert np.array_equal(classes, regions)


def test_every_pixel_of_a_stretched_mask_has_a_class_of_the_mask() -> None:
    mask = np.random.default_rng(0).choice([0, 3, 7], (8, 8)).astype(np.uint8)
    assert np.array_equal(class_regions(mask, (8, 8)), mask)
    assert set(np.unique(class_regions(mask, (50, 30)))) <= {0, 3, 7}


def test_what_sounds_keeps_its_colours_and_the_rest_fades() -> None:
    frame = np.full((40, 40, 3), (200, 120, 40), np.uint8)
    regions = np.zeros((40, 40), np.uint8)
    regions[:, :20] = 1
    shown = lit(frame, regions, tinted=False)
    assert (shown[:, :18] == frame[:, :18]).all()
    assert shown[:, 21:].mean() < 0.6 * frame.mean()
    spread = np.ptp(shown[0, 30].astype(int)) / np.ptp(frame[0, 30].astype(int))
    assert spread < 0.3
    assert tuple(shown[5, 19]) == region_colour(1)
    assert (lit(frame, np.zeros_like(regions), tinted=False) == shown[0, 30]).all()
    tinted = lit(frame, regions, tinted=True)
    assert (tinted[:, :18] != frame[:, :18]).any()
    assert (tinted[:, 21:] == shown[:, 21:]).all()


def test_a_strip_has_rows_of_five_of_one_size() -> None:
    pictures = [np.full((30, 60, 3), 40 * k, np.uint8) for k in range(6)]
    sheet = strip(pictures, [f"second {k}" for k in range(6)])
    assert sheet.width == 5 * (360 + 6) + 6
    assert sheet.height == 2 * (180 + 22 + 6) + 6
    values = np.asarray(sheet)
    assert (values[20:100, 380:700] == 40).all()
    assert (values[240:300, 20:300] == 200).all()


@pytest.mark.parametrize("kind", [prediction, semantic])
def test_files_of_a_prediction_tell_what_is_lit(video: Path, tmp_path: Path, kind: object) -> None:
    made = kind(video)  # type: ignore[operator]
    write_masks(made, tmp_path, "clip")
    content = json.loads((tmp_path / "clip.json").read_text())
    assert content["file"] == "a.mp4"
    assert content["notes"] == list(made.notes)
    assert [row["share"] for row in content["segments"]] == [0, 0.5, 1]
    assert [row["frame_time"] for row in content["segments"]] == [0.5, 1.5, 2.5]
    if made.classes is not None:
        assert content["segments"][1]["classes"] == [{"label": "dog & cat", "share": 0.5}]
    for k, row in enumerate(content["segments"]):
        picture = np.asarray(Image.open(tmp_path / row["picture"]))
        assert picture.shape == (SIDE, 2 * SIDE, 3)
        bright = picture[:, :, 0] > 150
        assert bright[10:-10, 10 : SIDE - 10].all() == (k > 0)
        assert bright[10:-10, SIDE + 10 :].any() == (k == 2)
    assert Image.open(tmp_path / "clip_masks.png").width > 500
    info = probe(tmp_path / "clip_sounding.mp4")
    assert info.audio is not None
    assert info.duration == pytest.approx(SECONDS, abs=0.2)
    shown = decode(tmp_path / "clip_sounding.mp4", [0.5, 1.5, 2.5])
    assert shown.frames is not None
    left = [frame[20:40, 20:40, 0].mean() for frame in shown.frames]
    right = [frame[20:40, SIDE + 20 :, 0].mean() for frame in shown.frames]
    assert left[0] < 120 < min(left[1:])
    assert max(right[:2]) < 120 < right[2]
    assert shown.waveform is not None
    assert np.abs(shown.waveform[16000:32000]).mean() > 0.1


def pictures(html: str) -> list[np.ndarray]:
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(b64decode(data)))) for data in found]


def test_the_card_plays_the_lit_clip_above_each_seconds_frame(video: Path, tmp_path: Path) -> None:
    card = mask_card(ShownClip("a<b>.mp4", prediction(video), video), tmp_path, "h3")
    assert "a&lt;b&gt;.mp4" in card.html
    assert "a &lt;note&gt;" in card.html
    assert 'src="data:video/mp4;base64,' in card.html
    assert not card.linked
    assert "in <b>2</b> of 3 seconds, on 50.0% of the frame" in card.html
    assert len(pictures(card.html)) == 3
    brightness = [picture.mean() for picture in pictures(card.html)]
    assert brightness[0] < brightness[1] < brightness[2]


def test_the_card_shows_the_truth_below_and_how_well_it_is_met(video: Path, tmp_path: Path) -> None:
    true = np.zeros((SECONDS, 16, 16), np.uint8)
    true[1] = 1
    true[2] = 255
    card = mask_card(ShownClip("a.mp4", semantic(video), video, true), tmp_path, "")
    assert len(pictures(card.html)) == 5
    assert card.html.count("IoU") == 2
    assert "IoU 100.0%" in card.html
    assert "IoU 50.0%" in card.html
    assert "not labelled" in card.html
    assert "dog &amp; cat 50.0%" in card.html


def test_a_clip_without_frames_or_file_is_shown_without_pictures(video: Path, tmp_path: Path) -> None:
    heard = tmp_path / "sound.mp4"
    import av

    with av.open(str(heard), "w") as out, av.open(str(video)) as source:
        stream = source.streams.audio[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    assert read_clip(prediction(heard), 100) is None
    write_masks(prediction(heard), tmp_path, "heard")
    content = json.loads((tmp_path / "heard.json").read_text())
    assert [row["picture"] for row in content["segments"]] == [None] * SECONDS
    assert not (tmp_path / "heard_masks").exists()
    card = mask_card(ShownClip("a.mp4", prediction(heard), heard), tmp_path, "")
    assert "<audio" in card.html
    assert not pictures(card.html)
    gone = mask_card(ShownClip("a.mp4", prediction(heard), tmp_path / "gone.mp4"), tmp_path, "")
    assert "The clip can&#x27;t be shown" in gone.html
    assert not pictures(gone.html)


def test_the_terminal_lists_the_seconds_in_which_something_sounds(video: Path) -> None:
    from rich.console import Console

    def printed(made: MaskPrediction) -> str:
        console = Console(file=io.StringIO(), width=100)
        console.print(SHOWN[MaskPrediction](made))
        return console.file.getvalue()  # type: ignore[attr-defined]

    text = printed(semantic(video))
    assert "0.5" not in text.split()
    assert "1.5" in text
    assert "50.0 %" in text
    assert "dog & cat" in text
    silent = MaskPrediction(video, ("sounding",), 1.0, np.zeros((2, 4, 4), np.float32))
    assert "nothing sounds" in printed(silent)
