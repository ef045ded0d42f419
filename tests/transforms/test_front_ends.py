"""The log-STFT of MA-AVT and the log-mel of HTS-AT against recorded arrays, formulas and direct sums."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtune.transforms import AUDIO_PRESETS
from avtune.transforms.front_ends import FRONT_ENDS
from avtune.transforms.librosa_log_mel import (
    hertz_to_mel,
    librosa_log_mel,
    mel_to_hertz,
    slaney_bank,
)
from avtune.transforms.log_stft import log_stft
from avtune.transforms.spectrograms import picture

TOLERANCE = 2e-3
# What the authors' code does with the sound of each data set: rate, length heard, samples of frame and shift.
DATASETS = {"vgg": (16000, 80000, 446, 358), "crema": (22050, 66150, 447, 296)}
PRESETS = {"vgg": "ma_avt_vggsound", "crema": "ma_avt_crema_d"}


def noise(samples, seed=0, level=0.1):
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * level


def ms(samples, rate):
    return (samples + 0.25) / rate * 1000


def log_stft_files(folder):
    """Every recorded file that holds log-STFTs, as (name, arrays)."""
    for path in sorted(folder.rglob("audio_stft*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            yield path.name, {key: stored[key] for key in stored.files}


def recorded_log_stfts(arrays):
    """(name, waveform, rate, frame, shift, expected) of a file; ``<set>_<frame>_<shift>`` overrides the set's."""
    for key in arrays:
        if not key.endswith("/out"):
            continue
        setting = re.fullmatch(r"([a-z]+)(?:_(\d+)_(\d+))?/out", key)
        assert setting, f"{key} is no setting that this test understands"
        rate, length, frame, shift = DATASETS[setting[1]]
        frame, shift = int(setting[2] or frame), int(setting[3] or shift)
        own = key.removesuffix("/out")
        sources = [f"{name}/{kind}" for name in (own, setting[1]) for kind in ("in", "in_raw")]
        waveform = next(arrays[source] for source in sources if source in arrays)
        waveform = np.tile(waveform, -(-length // len(waveform)))[:length]
        yield setting[0], torch.from_numpy(waveform), rate, frame, shift, torch.from_numpy(arrays[key])


def test_recorded_log_stfts_are_reproduced(golden_dir):
    compared = 0
    for name, arrays in log_stft_files(golden_dir):
        for key, waveform, rate, frame, shift, expected in recorded_log_stfts(arrays):
            ours = log_stft(
                waveform,
                sample_rate=rate,
                mels=frame // 2 + 1,
                window_ms=ms(frame, rate),
                shift_ms=ms(shift, rate),
            )
            assert ours.T.shape == expected.shape
            difference = (ours.T - expected).abs().max()
            assert difference < TOLERANCE, f"{name}: {key} differs by {difference}"
            compared += 1
    assert compared >= 3


def test_presets_give_the_recorded_pictures(golden_dir):
    compared = 0
    for _, arrays in log_stft_files(golden_dir):
        for dataset, preset in PRESETS.items():
            for key, waveform, _, _, _, expected in recorded_log_stfts(arrays):
                if key == f"{dataset}/out":
                    ours = picture(waveform, AUDIO_PRESETS[preset])
                    assert ours.shape == expected.shape == (224, 224)
                    assert (ours - expected).abs().max() < TOLERANCE
                    compared += 1
    assert compared >= 2


@settings(max_examples=20, deadline=None)
@given(samples=st.integers(1, 3000), frame=st.integers(16, 120), shift=st.integers(5, 200))
def test_log_stft_is_the_sum_that_defines_it(samples, frame, shift):
    waveform = noise(samples, samples, level=0.8)
    ours = log_stft(
        waveform, sample_rate=1000, mels=frame // 2 + 1, window_ms=frame + 0.1, shift_ms=shift + 0.1
    )
    padded = np.pad(waveform.double().numpy().clip(-1, 1), frame // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    starts = range(0, len(padded) - frame + 1, shift)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(frame), np.arange(frame // 2 + 1)) / frame)
    spectrum = np.stack([(padded[start : start + frame] * window) @ turns for start in starts])
    logs = np.log(np.abs(spectrum) + 1e-7)
    assert ours.shape == logs.shape
    assert FRONT_ENDS["log_stft"].frames(samples, frame, shift) == len(logs)
    if logs.std() > 1e-3:
        np.testing.assert_allclose(ours.numpy(), (logs - logs.mean()) / logs.std(), atol=2e-3)


def test_log_stft_of_silence_is_zero_and_clipping_happens_first():
    options = {"sample_rate": 16000, "mels": 224, "window_ms": 27.876, "shift_ms": 22.376}
    assert log_stft(torch.zeros(80000), **options).abs().max() < 1e-4
    loud = noise(80000, level=2.0)
    assert torch.equal(log_stft(loud, **options), log_stft(loud.clamp(-1, 1), **options))
    with pytest.raises(ValueError, match="446 samples has 224 frequencies, not 128"):
        log_stft(loud, **{**options, "mels": 128})


def test_slaney_s_scale_has_the_values_of_librosa_s_manual():
    places = hertz_to_mel(torch.tensor([60.0, 110.0, 220.0, 440.0], dtype=torch.float64))
    np.testing.assert_allclose(places.numpy(), [0.9, 1.65, 3.3, 6.6], atol=1e-9)
    mels = torch.linspace(0, float(hertz_to_mel(torch.tensor(11025.0, dtype=torch.float64))), 40)
    manual = [
        0.0, 85.317, 170.635, 255.952, 341.269, 426.586, 511.904, 597.221, 682.538, 767.855,
        853.173, 938.49, 1024.856, 1119.114, 1222.042, 1334.436, 1457.167, 1591.187, 1737.532, 1897.337,
        2071.84, 2262.393, 2470.47, 2697.686, 2945.799, 3216.731, 3512.582, 3835.643, 4188.417, 4573.636,
        4994.285, 5453.621, 5955.205, 6502.92, 7101.009, 7754.107, 8467.272, 9246.028, 10096.408, 11025.0,
    ]  # fmt: skip
    np.testing.assert_allclose(mel_to_hertz(mels.double()).numpy(), manual, atol=5e-3)


@given(st.floats(0, 20000))
def test_slaney_s_scale_and_back(hertz):
    place = torch.tensor(hertz, dtype=torch.float64)
    assert mel_to_hertz(hertz_to_mel(place)).item() == pytest.approx(hertz, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("mels", "fft_size", "rate", "lowest", "highest"),
    [(64, 1024, 32000, 50.0, 14000.0), (40, 512, 22050, 0.0, 11025.0), (128, 2048, 44100, 20.0, 16000.0)],
)
def test_every_band_is_a_triangle_of_area_one(mels, fft_size, rate, lowest, highest):
    bank = slaney_bank(mels, fft_size, rate, lowest, highest).numpy()
    assert bank.shape == (fft_size // 2 + 1, mels)

    def mel(hertz):
        return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    def hertz(mel):
        return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    step = (mel(highest) - mel(lowest)) / (mels + 1)
    for band in range(mels):
        left, centre, right = (hertz(mel(lowest) + step * (band + corner)) for corner in (0, 1, 2))
        corners, heights = [left, centre, right], [0.0, 2 / (right - left), 0.0]
        assert np.trapezoid(heights, corners) == pytest.approx(1)
        frequencies = np.arange(fft_size // 2 + 1) * rate / fft_size
        expected = np.interp(frequencies, corners, heights, left=0.0, right=0.0)
        np.testing.assert_allclose(bank[:, band], expected, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(samples=st.integers(513, 3000), seed=st.integers(0, 100))
def test_librosa_log_mel_is_the_sum_that_defines_it(samples, seed):
    waveform = noise(samples, seed)
    ours = librosa_log_mel(waveform, sample_rate=32000, mels=64, window_ms=32.0, shift_ms=10.0)
    padded = np.pad(waveform.double().numpy(), 512, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = np.stack([padded[start : start + 1024] for start in range(0, samples + 1, 320)])
    turns = np.exp(-2j * np.pi * np.outer(np.arange(1024), np.arange(513)) / 1024)
    power = np.abs((frames * window) @ turns) ** 2
    expected = 10 * np.log10(np.maximum(power @ slaney_bank(64, 1024, 32000).numpy(), 1e-10))
    assert ours.shape == expected.shape == (1 + samples // 320, 64)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-3)


def test_librosa_log_mel_of_silence_is_the_floor_and_ten_times_louder_is_twenty_decibels():
    options = {"sample_rate": 32000, "mels": 64, "window_ms": 32.0, "shift_ms": 10.0}
    assert torch.equal(librosa_log_mel(torch.zeros(32000), **options), torch.full((101, 64), -100.0))
    quiet = noise(32000, level=0.01)
    gain = librosa_log_mel(quiet * 10, **options) - librosa_log_mel(quiet, **options)
    torch.testing.assert_close(gain, torch.full_like(gain, 20.0), atol=1e-3, rtol=0)


def test_a_tone_is_loudest_in_its_own_band():
    time = torch.arange(32000) / 32000
    ends = hertz_to_mel(torch.tensor([50.0, 14000.0], dtype=torch.float64))
    centres = torch.linspace(float(ends[0]), float(ends[1]), 66)[1:-1]
    for hertz in (440.0, 2000.0, 9000.0):
        sound = 0.5 * torch.sin(2 * math.pi * hertz * time)
        energies = librosa_log_mel(sound, sample_rate=32000, mels=64, window_ms=32.0, shift_ms=10.0)
        expected = (centres - hertz_to_mel(torch.tensor(hertz))).abs().argmin()
        assert abs(energies.mean(0).argmax() - expected) <= 1


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(FRONT_ENDS)),
    samples=st.integers(600, 6000),
    frame=st.integers(64, 512),
    shift=st.integers(40, 700),
)
def test_every_front_end_makes_as_many_frames_as_it_says(name, samples, frame, shift):
    front_end = FRONT_ENDS[name]
    mels = frame // 2 + 1 if name == "log_stft" else 16
    result = front_end.compute(
        noise(samples),
        sample_rate=32000,
        mels=mels,
        window_ms=ms(frame, 32000),
        shift_ms=ms(shift, 32000),
    )
    assert result.shape == (front_end.frames(samples, frame, shift), mels)
    assert result.dtype is torch.float32
    assert result.isfinite().all()
