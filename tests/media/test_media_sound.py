"""Sound arrives as mono on the clock of the frames, from any layout, rate, codec and offset."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_builders import click_lags, clicks, plain_pictures, tone, write_media

from avtune.media import MediaError, decode, decode_audio, probe
from avtune.media.sound import MonoTrack


def volume(waveform: np.ndarray) -> float:
    """Amplitude of a sine, from its middle."""
    quarter = len(waveform) // 4
    return float(np.sqrt(2 * np.mean(waveform[quarter:-quarter].astype(np.float64) ** 2)))


def pitch(waveform: np.ndarray, rate: int = 16000) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * rate / len(waveform))


# suffix, encoder, rate: FFmpeg takes the encoder's delay away where the container tells it.
CLICK_FILES = {
    "aac in mp4, 48 kHz": (".mp4", "aac", 48000),
    "aac in mp4, 44.1 kHz": (".mp4", "aac", 44100),
    "aac in mp4, 16 kHz": (".mp4", "aac", 16000),
    "aac in mp4, 8 kHz": (".mp4", "aac", 8000),
    "aac in mkv": (".mkv", "aac", 48000),
    "opus in webm": (".webm", "libopus", 48000),
    "opus in mp4": (".mp4", "libopus", 48000),
    "flac in mkv": (".mkv", "flac", 22050),
    "wav": (".wav", "pcm_s16le", 44100),
    "wav, 8 bit": (".wav", "pcm_u8", 11025),
    "wav, 24 bit, 96 kHz": (".wav", "pcm_s24le", 96000),
    "wav, floats": (".wav", "pcm_f32le", 16000),
    "ac3 in mov": (".mov", "ac3", 48000),
    "alac in m4a": (".m4a", "alac", 48000),
    "mp3": (".mp3", "libmp3lame", 44100),
}


@pytest.mark.parametrize("name", CLICK_FILES)
def test_a_click_at_k_seconds_is_at_sample_16000_k(name: str, tmp_path: Path) -> None:
    suffix, codec, rate = CLICK_FILES[name]
    path = write_media(
        tmp_path / f"clip{suffix}", sound=clicks(4, rate), audio_codec=codec, sample_rate=rate, layout="mono"
    )
    waveform, damage = decode_audio(path)
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert not damage.any, damage
    assert max(map(abs, click_lags(waveform, 4))) <= 2, click_lags(waveform, 4)
    assert len(waveform) == pytest.approx(4 * 16000, abs=1600)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 32000, 44100, 48000])
def test_any_output_rate(sample_rate: int, tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "tone.wav", sound=tone(2, 44100), audio_codec="pcm_s16le", sample_rate=44100
    )
    waveform, _ = decode_audio(path, sample_rate)
    assert len(waveform) == pytest.approx(2 * sample_rate, abs=2)
    assert pitch(waveform, sample_rate) == pytest.approx(440, abs=1)
    assert volume(waveform) == pytest.approx(0.5, abs=0.005)
    assert decode(path, [], sample_rate=sample_rate).sample_rate == sample_rate


@pytest.mark.parametrize("layout", ["mono", "stereo", "2.1", "quad", "5.0", "5.1", "7.1"])
@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le"])
def test_the_same_sound_in_all_channels_keeps_its_volume(layout: str, codec: str, tmp_path: Path) -> None:
    """The mix is normalised, and by the same rule for integer and float sources."""
    path = write_media(
        tmp_path / "all.wav", sound=tone(1, 16000), audio_codec=codec, sample_rate=16000, layout=layout
    )
    waveform, damage = decode_audio(path)
    # The low frequency channel is left out of the mix, as FFmpeg and players do.
    assert volume(waveform) == pytest.approx(0.5, abs=0.005)
    assert np.abs(waveform).max() <= 0.51
    assert not damage.any


def test_five_point_one_mixes_by_the_usual_weights(tmp_path: Path) -> None:
    """Centre 1, left and right 1/sqrt 2, surrounds 1/2, low frequencies 0, divided by their sum."""
    weights = np.array([np.sqrt(0.5), np.sqrt(0.5), 1.0, 0.0, 0.5, 0.5])
    for channel, weight in enumerate(weights):
        sound = np.zeros((6, 48000), np.float32)
        sound[channel] = tone(1, 48000)
        path = write_media(
            tmp_path / f"{channel}.wav", sound=sound, audio_codec="pcm_f32le", layout="5.1(side)"
        )
        assert volume(decode_audio(path)[0]) == pytest.approx(0.5 * weight / weights.sum(), abs=0.003)


def test_aac_five_point_one(tmp_path: Path) -> None:
    path = write_media(tmp_path / "surround.mp4", sound=tone(2, 48000), layout="5.1")
    info = probe(path).audio
    assert info is not None
    assert (info.codec, info.sample_rate, info.channels) == ("aac", 48000, 6)
    assert volume(decode_audio(path)[0]) == pytest.approx(0.5, abs=0.02)


def test_a_layout_without_known_weights_gives_the_mean(tmp_path: Path) -> None:
    sound = np.zeros((4, 16000), np.float32)
    sound[0], sound[3] = tone(1, 16000, volume=0.4), tone(1, 16000, volume=0.4)
    track = MonoTrack(16000, 0.0, None, 1.0)
    for start in range(0, 16000, 1000):
        packed = np.ascontiguousarray(sound[:, start : start + 1000].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout="ambisonic 1")
        frame.sample_rate = 16000
        track.offer(frame, Fraction(start, 16000))
    waveform = track.finish()
    assert waveform is not None
    assert np.allclose(waveform, sound.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("offset", [0.25, 1.0, 1.5])
def test_sound_that_starts_later_than_the_picture(offset: float, tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "late.mkv",
        pictures=plain_pictures(40),
        sound=clicks(3, 48000),
        audio_codec="flac",
        sound_start=offset,
    )
    waveform = decode(path, [0.0]).waveform
    assert waveform is not None
    assert not waveform[: round(16000 * offset) - 20].any()
    assert max(map(abs, click_lags(waveform[round(16000 * offset) :], 3))) <= 18  # Matroska rounds to 1 ms
    assert np.array_equal(waveform, decode_audio(path)[0])


def test_picture_that_starts_later_than_the_sound(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "late.mkv",
        pictures=plain_pictures(20),
        times_ms=[1000 + 100 * k for k in range(20)],
        sound=clicks(3, 48000),
        audio_codec="flac",
    )
    clip = decode(path, [0.0, 1.05, 1.55])
    assert clip.frames is not None
    assert [round((float(frame.mean()) - 20) / 5) for frame in clip.frames] == [0, 0, 5]
    assert clip.waveform is not None
    assert max(map(abs, click_lags(clip.waveform, 3))) <= 2
    # The clock does not depend on what is read of the file.
    alone = decode(path, [1.55], audio=False).frames
    assert alone is not None
    assert np.array_equal(alone[0], clip.frames[2])


def test_a_gap_is_silence_and_what_follows_stays_in_place(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "gap.mp4",
        pictures=plain_pictures(40),
        sound=tone(4, 48000) * 0.2 + clicks(4, 48000),
        keep_audio=lambda second: not 1.2 <= second < 1.8,
    )
    clip = decode(path, [0.0])
    assert clip.waveform is not None
    assert not clip.waveform[round(1.3 * 16000) : round(1.7 * 16000)].any()
    assert max(map(abs, click_lags(clip.waveform, 4))) <= 2
    assert clip.damage.audio_gap_seconds == pytest.approx(0.6, abs=0.05)
    assert clip.damage.any


def test_one_lost_packet_shifts_nothing(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "lost.mp4",
        sound=clicks(4, 48000),
        keep_audio=lambda second: not 1.4 <= second < 1.4 + 1024 / 48000,
    )
    waveform, damage = decode_audio(path)
    assert damage.audio_gap_seconds == pytest.approx(1024 / 48000, abs=1e-4)
    assert max(map(abs, click_lags(waveform, 4))) <= 2


def test_mono_eight_kilohertz_and_silence(tmp_path: Path) -> None:
    path = write_media(tmp_path / "call.mp4", sound=tone(2, 8000), sample_rate=8000, layout="mono")
    waveform, damage = decode_audio(path)
    assert pitch(waveform) == pytest.approx(440, abs=1)
    assert not damage.any
    silent = write_media(tmp_path / "silent.mp4", sound=np.zeros(32000, np.float32), sample_rate=16000)
    waveform, damage = decode_audio(silent)
    assert len(waveform) >= 32000
    assert not waveform.any()
    assert not damage.any


def test_no_sound_is_no_error_unless_only_sound_is_wanted(tmp_path: Path) -> None:
    path = write_media(tmp_path / "mute.mp4", pictures=plain_pictures(5))
    assert decode(path, [0.1]).waveform is None
    assert not decode(path, [0.1]).damage.any
    with pytest.raises(MediaError, match=r"mute\.mp4: has no sound that can be decoded; use a file with"):
        decode_audio(path)
    assert decode(path, [], audio=True, video=False).waveform is None


def test_values_that_are_not_numbers_become_silence(tmp_path: Path) -> None:
    sound = tone(1, 16000)
    sound[100:110], sound[200] = np.nan, np.inf
    path = write_media(
        tmp_path / "nan.wav", sound=sound, audio_codec="pcm_f32le", sample_rate=16000, layout="mono"
    )
    waveform, _ = decode_audio(path)
    assert np.isfinite(waveform).all()
    assert np.allclose(waveform[300:], sound[300:16000])


@pytest.fixture(scope="module")
def four_seconds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(
        tmp_path_factory.mktemp("window") / "clip.mp4",
        pictures=plain_pictures(40),
        sound=tone(4, 48000) * np.linspace(0.1, 1, 4 * 48000, dtype=np.float32),
    )


@settings(max_examples=25, deadline=None)
@given(start=st.floats(0.0, 4.5), length=st.floats(0.001, 3.0))
def test_a_window_is_a_piece_of_the_whole(four_seconds: Path, start: float, length: float) -> None:
    whole, _ = decode_audio(four_seconds)
    window = decode(four_seconds, [], start=start, until=start + length).waveform
    assert window is not None
    first = round(start * 16000)
    expected = whole[first : first + round(length * 16000)]
    # Both ends are rounded to samples, which may differ by one from rounding the length.
    assert abs(len(window) - len(expected)) <= 1
    shared = min(len(window), len(expected))
    assert np.array_equal(window[:shared], expected[:shared])


def test_a_window_before_the_sound_begins_is_silence(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "late.mkv",
        pictures=plain_pictures(40),
        sound=tone(1, 48000),
        audio_codec="flac",
        sound_start=2.0,
    )
    waveform = decode(path, [], start=0.5, until=1.5).waveform
    assert waveform is not None
    assert len(waveform) == 16000
    assert not waveform.any()


@pytest.mark.parametrize(("start", "until"), [(-0.1, None), (1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_a_window_must_not_be_empty(four_seconds: Path, start: float, until: float | None) -> None:
    with pytest.raises(ValueError, match="start must be >= 0 and before until"):
        decode(four_seconds, [], start=start, until=until)


def test_a_window_stops_reading(four_seconds: Path) -> None:
    clip = decode(four_seconds, [0.45], until=0.5)
    assert clip.damage.frames_decoded < 15
    assert clip.waveform is not None
    assert len(clip.waveform) == 8000
    assert clip.duration == pytest.approx(4.0, abs=0.05)
