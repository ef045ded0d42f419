"""Written files play, come back where they were, and depend on nothing but their input."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from media_builders import click_lags, clicks, number_of, plain_pictures, tone

from avtune.media import MediaError, decode, decode_audio, probe, write_video


def scene(count: int, height: int = 96, width: int = 128) -> list[np.ndarray]:
    """A gradient with moving boxes: enough motion for the encoder's lookahead to matter."""
    y, x = np.mgrid[:height, :width]
    pictures = []
    for k in range(count):
        picture = np.stack([x * 255 // width, y * 128 // height, 0 * x], axis=-1).astype(np.uint8)
        picture[20:50, (3 * k) % (width - 30) :][:, :30] = (200, 50, 90)
        picture[60:80, (5 * k) % (width - 20) :][:, :20] = (20, 250, 90)
        pictures.append(picture)
    return pictures


@pytest.mark.parametrize("rate", [1, 10, 12.5, 29.97, 30000 / 1001, 60])
def test_frames_and_sound_come_back_in_place(rate: float, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    pictures = plain_pictures(20)
    write_video(path, iter(pictures), rate, clicks(4, 16000))
    clip = decode(path, [(k + 0.5) / rate for k in range(20)] + [k / rate for k in range(20)])
    assert clip.frames is not None
    assert [number_of(frame) for frame in clip.frames] == [*range(20), *range(20)]
    assert clip.waveform is not None
    assert max(map(abs, click_lags(clip.waveform, 4))) <= 2
    assert not clip.damage.any
    info = probe(path)
    assert info.video is not None
    assert info.audio is not None
    assert (info.video.codec, info.video.pixel_format, info.audio.codec) == ("h264", "yuv420p", "aac")
    assert info.video.average_rate == pytest.approx(rate, rel=1e-4)
    assert info.video.frames == 20


@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 48000])
def test_clicks_at_other_sample_rates(sample_rate: int, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, plain_pictures(2), 1, clicks(4, sample_rate), sample_rate)
    waveform, _ = decode_audio(path)
    assert max(map(abs, click_lags(waveform, 4))) <= 2


def test_pictures_and_sound_are_faithful(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    pictures = scene(20)
    sound = sum(tone(2, 16000, hertz, 0.2) for hertz in (440, 1333, 3571))
    write_video(path, pictures, 10, sound, quality=18)
    clip = decode(path, [k / 10 for k in range(20)])
    assert clip.frames is not None
    assert clip.waveform is not None
    # Colour edges blur by 4:2:0 (their mean error alone is about 1); a wrong matrix or range costs over 5.
    error = np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(clip.frames, pictures, strict=True)])
    assert error < 2.5
    body = slice(2000, 30000)
    noise = np.mean((clip.waveform[body] - sound[body]) ** 2)
    assert 10 * np.log10(np.mean(sound[body] ** 2) / noise) > 40


def test_colours_are_tagged_so_that_players_agree(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, [np.broadcast_to(np.array([200, 40, 90], np.uint8), (64, 64, 3))], 10)
    frames = decode(path, [0.0]).frames
    assert frames is not None
    assert np.abs(frames[0][32, 32].astype(int) - [200, 40, 90]).max() <= 4
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range) == (5, 1)


WRITE_AND_HASH = """
import hashlib, sys
from pathlib import Path
import numpy as np
from test_media_write import scene
from avtune.media import write_video

sound = (0.1 * np.random.default_rng(0).standard_normal(32000)).astype(np.float32)
for _ in range(4):
    write_video(sys.argv[1], scene(20, 160, 160), 10, sound)
    print(hashlib.sha256(Path(sys.argv[1]).read_bytes()).hexdigest())
"""


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """Also where memory holds other contents: an encoder that reads what it never wrote would show."""
    digests = []
    for filler in ("0", "85", "170"):
        # The C library fills allocated and freed memory with this byte.
        environment = os.environ | {"MALLOC_PERTURB_": filler}
        command = [sys.executable, "-c", WRITE_AND_HASH, str(tmp_path / "clip.mp4")]
        run = subprocess.run(
            command, env=environment, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        digests += run.stdout.split()
    assert len(digests) == 12
    assert len(set(digests)) == 1


def test_index_comes_first_so_that_pages_can_stream(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, scene(10), 10, tone(1, 16000))
    content = path.read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, plain_pictures(3), 10)
    before = path.read_bytes()

    def breaks():
        yield from plain_pictures(3)
        raise RuntimeError("the renderer failed")

    with pytest.raises(RuntimeError, match="the renderer failed"):
        write_video(path, breaks(), 10, tone(1, 16000))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write_video(path, plain_pictures(5), 10)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


@pytest.mark.parametrize(
    ("pictures", "sound", "rate", "message"),
    [
        ([], None, 16000, "cannot be written without any frame; give at least one"),
        ([np.zeros((63, 64, 3), np.uint8)], None, 16000, "frames of 64x63 pixels; crop or pad to even"),
        ([np.zeros((64, 0, 3), np.uint8)], None, 16000, "frames of 0x64 pixels"),
        ([np.zeros((64, 64), np.uint8)], None, 16000, "give RGB uint8"),
        ([np.zeros((64, 64, 3), np.float32)], None, 16000, "give RGB uint8"),
        (
            [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8)],
            None,
            16000,
            "a frame of 32x64 after one of 64x64; give all frames the same size",
        ),
        (plain_pictures(1), np.zeros(100, np.float32), 12345, "AAC has no sample rate of 12345 Hz; resample"),
        (plain_pictures(1), np.zeros((2, 100), np.float32), 16000, "give mono float32"),
        (plain_pictures(1), np.zeros(0, np.float32), 16000, "give mono float32"),
        (plain_pictures(1), np.full(100, np.nan, np.float32), 16000, "not finite"),
    ],
)
def test_what_cannot_be_written_is_refused(
    pictures: list[np.ndarray], sound: np.ndarray | None, rate: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    with pytest.raises(MediaError, match=message) as caught:
        write_video(path, pictures, 10, sound, rate)
    assert caught.value.path == path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rate", "quality"), [(0, 23), (-1, 23), (float("nan"), 23), (10, -1), (10, 52)])
def test_arguments_out_of_range(rate: float, quality: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rate must be in"):
        write_video(tmp_path / "clip.mp4", plain_pictures(1), rate, quality=quality)


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="cannot be written"):
        write_video(tmp_path / "nowhere" / "clip.mp4", plain_pictures(1), 10)


def test_views_and_odd_strides_are_fine(tmp_path: Path) -> None:
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, ::2] = 200
    write_video(tmp_path / "clip.mp4", [picture[::-1, ::2]], 10, tone(1, 32000)[::2])
    clip = decode(tmp_path / "clip.mp4", [0.0])
    assert clip.frames is not None
    assert abs(float(clip.frames[0].mean()) - 200) < 2
