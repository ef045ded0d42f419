"""Damaged files give what is left of them, with counts, or a MediaError that says what is wrong: nothing else."""

import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from media_builders import number_of, plain_pictures, tone, write_media
from PIL import Image

from avtune.errors import AvtuneError
from avtune.media import Clip, MediaError, decode, decode_audio, probe, write_video

# A damaged file must not take many times what a healthy one does (20 ms).
LONGEST_CPU_SECONDS = 5.0
TIMES = [0.05, 0.55, 1.05, 1.95]


def survive(path: Path) -> Clip | MediaError:
    """Reads a damaged file in every way; passes only on a usable clip or a MediaError."""
    started = time.process_time()
    result: Clip | MediaError
    try:
        result = decode(path, TIMES)
    except MediaError as error:
        result = error
    if isinstance(result, MediaError):
        assert "\n" not in str(result)
        assert result.problem
        assert result.remedy
    else:
        assert result.frames is not None or result.waveform is not None
        assert result.frames is None or len(result.frames) == len(TIMES)
        if result.waveform is not None:
            assert np.isfinite(result.waveform).all()
            # However wrong its timestamps are, sound cannot fill the memory with silence.
            assert len(result.waveform) < 180 * 16000
        assert np.isfinite(result.duration)
    try:
        info = probe(path)
        assert np.isfinite(info.duration)
    except MediaError:
        assert isinstance(result, MediaError)
    assert time.process_time() - started < LONGEST_CPU_SECONDS
    return result


CONTAINERS = {
    "mp4": ("libx264", "aac", "yuv420p", 48000),
    "mkv": ("mpeg4", "flac", "yuv420p", 48000),
    "webm": ("libvpx", "libopus", "yuv420p", 48000),
    "avi": ("mjpeg", "pcm_s16le", "yuvj420p", 8000),
    "mov": ("libx265", "ac3", "yuv420p10le", 48000),
    "ts": ("libx264", "mp2", "yuv420p", 48000),
}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("healthy")
    files = {}
    for suffix, (video, audio, pixel_format, rate) in CONTAINERS.items():
        path = write_media(
            folder / f"clip.{suffix}",
            pictures=plain_pictures(20, 64, 48),
            video_codec=video,
            pixel_format=pixel_format,
            video_options={"g": "5", "b": "2M"},
            sound=tone(2, rate),
            audio_codec=audio,
            sample_rate=rate,
        )
        files[suffix] = path.read_bytes()
    write_video(folder / "fast.mp4", plain_pictures(20, 64, 48), 10, tone(2, 16000))
    files["faststart.mp4"] = (folder / "fast.mp4").read_bytes()
    return files


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken")


@pytest.mark.parametrize("suffix", [*CONTAINERS, "faststart.mp4"])
def test_healthy_files_report_no_damage(suffix: str, healthy: dict[str, bytes], broken: Path) -> None:
    path = broken / f"healthy.{suffix}"
    path.write_bytes(healthy[suffix])
    clip = decode(path, TIMES)
    assert not clip.damage.any, clip.damage
    assert clip.frames is not None
    assert [number_of(frame) for frame in clip.frames] == [0, 5, 10, 19]


@pytest.mark.parametrize("suffix", [*CONTAINERS, "faststart.mp4"])
def test_truncation_anywhere(suffix: str, healthy: dict[str, bytes], broken: Path) -> None:
    content = healthy[suffix]
    path = broken / f"cut.{suffix}"
    for share in range(1, 20):
        path.write_bytes(content[: len(content) * share // 20])
        result = survive(path)
        if suffix in ("mp4", "mov"):
            assert isinstance(result, MediaError)
            assert "moov" in result.problem
        elif share >= 12:
            assert isinstance(result, Clip), result
            # A transport stream is made to be cut: nothing in it tells its length.
            if suffix != "ts" and share <= 16:
                assert result.damage.any, f"{share}/20 of {suffix} passes for healthy"


def test_what_is_left_of_a_truncated_file_is_exact(healthy: dict[str, bytes], broken: Path) -> None:
    path = broken / "cut exact.mp4"
    content = healthy["faststart.mp4"]
    path.write_bytes(content[: len(content) * 7 // 10])
    clip = decode(path, [k / 10 + 0.05 for k in range(20)])
    assert clip.frames is not None
    assert clip.waveform is not None
    numbers = [number_of(frame) for frame in clip.frames]
    last = max(numbers)
    assert 8 < last < 19
    # Where a frame is lost that others do not need, the one before stays; nothing comes too early.
    assert numbers == sorted(numbers)
    assert all(number <= k for k, number in enumerate(numbers))
    assert numbers[: last - 2] == list(range(last - 2))
    assert clip.damage.frames_repeated == 19 - last
    assert 0.9 * 16000 < len(clip.waveform) < 1.9 * 16000
    assert clip.damage.video_packets_bad > 0 or clip.damage.notes
    assert clip.duration == pytest.approx(2.0, abs=0.1)


# A damaged header of the pictures: FFmpeg's filter of packets refuses it.
@example(suffix="mp4", changes=[(0.40625, 0)], header_only=True, kept=1.0)
@settings(max_examples=200, deadline=None)
@given(
    suffix=st.sampled_from([*CONTAINERS, "faststart.mp4"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=40),
    header_only=st.booleans(),
    kept=st.just(1.0) | st.floats(0.3, 1.0),
)
def test_any_bytes_changed(healthy, broken, suffix, changes, header_only, kept) -> None:
    content = bytearray(healthy[suffix])
    region = min(len(content), 3000) if header_only else len(content)
    # The index of mp4 and mov stands at the end unless moved.
    base = len(content) - region if header_only and suffix in ("mp4", "mov") else 0
    for place, value in changes:
        content[base + int(place * (region - 1))] = value
    path = broken / f"flipped.{suffix}"
    path.write_bytes(content[: int(len(content) * kept)])
    survive(path)


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(min_size=1, max_size=4000), suffix=st.sampled_from(["mp4", "wav", "txt", "bin", "mp3"])
)
def test_random_bytes_never_pass_for_a_healthy_file(broken: Path, content: bytes, suffix: str) -> None:
    path = broken / f"random.{suffix}"
    path.write_bytes(content)
    result = survive(path)
    # About one noise in 3000 holds a valid frame of some raw audio format.
    assert isinstance(result, MediaError) or result.damage.any


def test_large_random_bytes_are_no_media(tmp_path: Path) -> None:
    for seed in range(5):
        path = tmp_path / "noise.mp4"
        path.write_bytes(np.random.default_rng(seed).bytes(200_000))
        with pytest.raises(MediaError, match=r"is not a video or sound file|can be decoded"):
            decode(path, TIMES)


def test_damaged_audio_keeps_the_picture_and_the_rest_of_the_sound(
    healthy: dict[str, bytes], broken: Path
) -> None:
    content = bytearray(healthy["mkv"])
    # Flac frames begin with this mark; the second third of them loses its bytes.
    marks = [k for k in range(len(content) - 1) if content[k] == 0xFF and content[k + 1] in (0xF8, 0xF9)]
    for mark in marks[len(marks) // 3 : 2 * len(marks) // 3]:
        content[mark : mark + 40] = bytes(40)
    path = broken / "deaf.mkv"
    path.write_bytes(content)
    clip = decode(path, TIMES)
    assert clip.damage.audio_packets_bad >= 3
    assert clip.damage.audio_gap_seconds > 0.2
    assert clip.frames is not None
    assert [number_of(frame) for frame in clip.frames] == [0, 5, 10, 19]
    assert clip.waveform is not None
    reference = tone(2, 16000)
    # Right after the gap the place is still exact: the sine's phase agrees.
    assert np.abs(clip.waveform[30000:31500] - reference[30000:31500]).max() < 0.05


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"none\.mp4: does not exist; check the path"):
        decode(tmp_path / "none.mp4", [0.0])
    with pytest.raises(MediaError, match="does not exist"):
        probe(tmp_path / "file" / "below.mp4")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(MediaError, match=r"is empty \(0 bytes\); copy or download it again"):
        decode(tmp_path / "empty.mp4", [0.0])


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is a folder; name a file inside it"):
        decode_audio(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match="is not a regular file"):
        decode(tmp_path / "pipe.mp4", [0.0])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read any file")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(MediaError, match="cannot be opened"):
        decode(path, [0.0])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.mp4", "<html><body>404 not found</body></html>\n"),
        ("notes.txt", "Plain words, line by line.\n" * 50),
        ("art.nfo", "\x1b[31m red \x1b[0m\n" * 20),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nother.ts\n#EXT-X-ENDLIST\n"),
        ("list.txt", "ffconcat version 1.0\nfile 'other.mp4'\n"),
        (
            "call.sdp",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        ),
    ],
)
def test_text_of_any_kind_is_refused_and_leads_nowhere(name: str, text: str, tmp_path: Path) -> None:
    write_media(tmp_path / "other.mp4", pictures=plain_pictures(3))
    write_media(tmp_path / "other.ts", pictures=plain_pictures(3), video_codec="mpeg2video", rate=25)
    (tmp_path / name).write_text(text)
    with pytest.raises(MediaError, match=r"is text, not video or sound; check"):
        decode(tmp_path / name, [0.0])


def test_subtitles_alone_are_no_media(tmp_path: Path) -> None:
    path = tmp_path / "words.srt"
    path.write_text("1\n00:00:00,000 --> 00:00:02,000\nHello\n\n")
    with pytest.raises(MediaError):
        decode(path, [0.0])


def test_an_image_is_one_frame(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "clip.mov", pictures=plain_pictures(1), video_codec="png", pixel_format="rgb24"
    )
    assert number_of((decode(path, [3.0]).frames or [])[0]) == 0


@pytest.mark.parametrize("name", ["photo.jpg", "drawing.png", "photo.webp"])
def test_a_picture_cut_short_is_not_shown_half_grey(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(path)
    frames = decode(path, [0.0]).frames
    assert frames is not None
    assert frames[0].shape == (64, 96, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=rf"{name}: .*copy or download it again"):
        decode(path, [0.0])


@pytest.mark.parametrize(
    ("times", "rate", "message"),
    [
        ([float("nan")], 16000, "finite"),
        ([[0.0]], 16000, "flat"),
        ([0.0], 0, "sample_rate"),
        ([0.0], -5, "sample_rate"),
    ],
)
def test_arguments_that_mean_nothing(times: list[float], rate: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        decode(tmp_path / "any.mp4", times, sample_rate=rate)


def test_errors_travel_between_processes_on_one_line() -> None:
    error = MediaError(Path("a\nb.mp4"), "is broken", "copy it again")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, AvtuneError)
    assert (again.path, again.problem, again.remedy) == (error.path, error.problem, error.remedy)
    assert str(again) == "a b.mp4: is broken; copy it again"


def test_ffmpeg_says_nothing(
    healthy: dict[str, bytes], broken: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(healthy["mp4"])
    content[200:1200:7] = bytes(len(range(200, 1200, 7)))
    path = broken / "noisy.mp4"
    path.write_bytes(content)
    survive(path)
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_caller_is_not_swallowed(healthy: dict[str, bytes], broken: Path) -> None:
    path = broken / "callback.mp4"
    path.write_bytes(healthy["mp4"])

    def fails(picture: np.ndarray) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        decode(path, TIMES, on_frame=fails)
