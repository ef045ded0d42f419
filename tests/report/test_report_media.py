"""Media in a page: embedded unchanged, made small, or linked; and what happens where none can be read."""

import base64
import re
from urllib.parse import unquote

import av
import numpy as np
import pytest

from avtune.media import decode, probe, write_video
from avtune.report import TimelineClip, embedding, write_prediction_page
from avtune.report.embedding import load_media

LABELS = ("dog", "background")


def pictures(count, height=64, width=96, seed=0):
    draw = np.random.default_rng(seed)
    for k in range(count):
        picture = np.full((height, width, 3), (40, 90, 200), np.uint8)
        picture[:, : width // 2] = (200, 60, 30) if k < count / 2 else (30, 180, 60)
        yield picture + draw.integers(0, 8, picture.shape, np.uint8)


def tone(seconds, hertz=440.0):
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(round(16000 * seconds)) / 16000)).astype(np.float32)


def loudest_hertz(waveform):
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum) * 16000 / len(waveform))


def write_old_avi(path, seconds=2):
    """MPEG-4 part 2 with PCM sound in AVI: no browser plays that."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=20)
        video.width, video.height, video.pix_fmt = 640, 480, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for picture in pictures(20 * seconds, 480, 640):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(video.encode())
        samples = (tone(seconds) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate = 16000
        container.mux(audio.encode(frame))
        container.mux(audio.encode())


def write_wav(path, seconds=3):
    with av.open(str(path), "w", format="wav") as container:
        audio = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray((tone(seconds) * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = 16000
        container.mux(audio.encode(frame))
        container.mux(audio.encode())


def clip_of(video, segments=2):
    shares = np.tile(np.float32([0.75, 0.25]), (segments, 1))
    return TimelineClip("a clip", 1.0, LABELS, shares, np.zeros(segments, np.int64), None, video)


def content(source, kind):
    head, data = source.split(",", 1)
    assert head == f"data:{kind};base64"
    return base64.b64decode(data, validate=True)


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "one & 'two' #3.mp4"
    write_video(path, pictures(20), 10, tone(2))
    return path


def test_a_small_mp4_is_embedded_byte_for_byte(mp4, tmp_path):
    media = load_media(mp4, tmp_path, poster_time=1.5)
    assert content(media.source, "video/mp4") == mp4.read_bytes()
    assert (media.linked, media.audio_only, media.note) == (False, False, "")
    assert media.ratio == pytest.approx(1.5)
    (tmp_path / "poster.jpg").write_bytes(content(media.poster, "image/jpeg"))
    left = decode(tmp_path / "poster.jpg", [0.0], audio=False).frames[0][:, :40].mean(axis=(0, 1))
    assert left[1] > left[0] + 80, "the poster is not from the second half of the clip, which is green"

    write_prediction_page(tmp_path / "p.html", clip_of(mp4))
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert text.count(media.source) == 1
    assert 'poster="data:image/jpeg;base64,' in text
    assert "file:" not in re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]


@pytest.mark.parametrize("reason", ["form", "size"])
def test_what_browsers_refuse_or_is_too_large_is_made_small(tmp_path, monkeypatch, reason):
    path = tmp_path / "clip.avi"
    write_old_avi(path)
    if reason == "size":
        path = tmp_path / "clip.mp4"
        write_video(path, pictures(20, 480, 640), 10, tone(2), quality=4)
        monkeypatch.setattr(embedding, "EMBED_LIMIT", path.stat().st_size - 1)
    media = load_media(path, tmp_path)
    assert "encoded anew" in media.note
    small = tmp_path / "small.mp4"
    small.write_bytes(content(media.source, "video/mp4"))
    info = probe(small)
    assert (info.video.codec, info.video.pixel_format, info.audio.codec) == ("h264", "yuv420p", "aac")
    assert (info.video.width, info.video.height) == (320, 240)
    assert info.duration == pytest.approx(2.0, abs=0.15)
    assert info.video.average_rate <= 12.6
    assert small.stat().st_size < path.stat().st_size / 4
    found = decode(small, [0.3, 1.7])
    assert loudest_hertz(found.waveform[1600:-3200]) == pytest.approx(440, abs=2)
    early, late = (frame[:, :140].astype(float).mean(axis=(0, 1)) for frame in found.frames)
    assert np.abs(early - (203, 63, 33)).max() < 12
    assert np.abs(late - (33, 183, 63)).max() < 12


def test_a_long_large_clip_is_linked_relative_to_the_page(mp4, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "EMBED_LIMIT", 100)
    monkeypatch.setattr(embedding, "PREVIEW_SECONDS", 0.5)
    page = tmp_path / "deep" / "er" / "p.html"
    write_prediction_page(page, clip_of(mp4))
    text = page.read_text(encoding="utf-8")
    sources = re.findall(r'<video [^>]*\bsrc="([^"]*)"', text)
    assert len(sources) == 1
    assert not sources[0].startswith(("/", "file:"))
    assert "#" not in sources[0]
    assert (page.parent / unquote(sources[0])).resolve() == mp4.resolve()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "media-src data: blob: 'self' file:;" in policy
    assert "too large to embed" in text
    assert len(text) < 60_000


def test_sound_alone_gets_a_player(tmp_path):
    write_wav(tmp_path / "sound.wav")
    media = load_media(tmp_path / "sound.wav", tmp_path)
    assert media.audio_only
    small = tmp_path / "small.mp4"
    small.write_bytes(content(media.source, "video/mp4"))
    assert loudest_hertz(decode(small, [0.0]).waveform[1600:-3200]) == pytest.approx(440, abs=2)

    with av.open(str(tmp_path / "sound.wav")) as source, av.open(str(tmp_path / "sound.m4a"), "w") as target:
        audio = target.add_stream("aac", rate=16000, layout="mono")
        for frame in source.decode(audio=0):
            target.mux(audio.encode(frame))
        target.mux(audio.encode())
    media = load_media(tmp_path / "sound.m4a", tmp_path)
    assert media.audio_only
    assert content(media.source, "audio/mp4") == (tmp_path / "sound.m4a").read_bytes()
    write_prediction_page(tmp_path / "p.html", clip_of(tmp_path / "sound.m4a"))
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<audio controls" in text
    assert "<video" not in text


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "folder"])
def test_media_that_cannot_be_read_leaves_the_timeline(tmp_path, damage):
    path = tmp_path / "private folder" / "clip.mp4"
    path.parent.mkdir()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_text("" if damage == "empty" else "this is no video\n" * 50)
    write_prediction_page(tmp_path / "p.html", clip_of(path))
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<video" not in text
    assert 'class="row predicted"' in text
    assert "The clip can&#x27;t be shown: clip.mp4: " in text
    assert "private folder" not in text


def test_every_real_clip_makes_a_page(media_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "PREVIEW_SECONDS", 12.0)
    files = sorted(p for p in media_dir.rglob("*") if p.is_file() and p.suffix.lower() != ".md")
    assert files, f"{media_dir} holds no clip"
    for number, path in enumerate(files):
        page = tmp_path / f"{number}.html"
        write_prediction_page(page, clip_of(path))
        text = page.read_text(encoding="utf-8")
        assert "<video" in text or "<audio" in text or "can&#x27;t be shown" in text, path
