import math

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtune.transforms.log_mel import log_mel, mel_bank, samples_of

TOLERANCE = 5e-3
FLOOR = math.log(2.0**-23)


def kaldi(waveform, sample_rate=16000, mels=128, window_ms=25.0, shift_ms=10.0):
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hanning"
    options.frame_opts.samp_freq = sample_rate
    options.frame_opts.frame_length_ms = window_ms
    options.frame_opts.frame_shift_ms = shift_ms
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = mels
    options.use_energy = False
    options.htk_compat = True
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(sample_rate, waveform.tolist())
    computer.input_finished()
    frames = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
    return torch.from_numpy(np.stack(frames))


def noise(samples, seed=0, level=0.1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, generator=generator) * level


def golden_arrays(golden_dir):
    """Every file of the family as (file name, {key: array})."""
    for path in sorted((golden_dir / "fbank").glob("*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            yield path.name, {key: stored[key] for key in stored.files}


def test_golden_sweep_equals_the_reference(golden_dir):
    compared = 0
    for name, arrays in golden_arrays(golden_dir):
        waveform = torch.from_numpy(arrays["wav"])
        ours = log_mel(waveform - waveform.mean(), mels=arrays["fbank_raw"].shape[1])
        for key in ("fbank_raw", "knf_fbank_raw"):
            if key in arrays:
                difference = (ours - torch.from_numpy(arrays[key])).abs().max().item()
                assert difference < TOLERANCE, f"{name}: {key} differs by {difference}"
                compared += 1
    assert compared >= 1


def test_golden_mixture_equals_the_reference(golden_dir):
    for name, arrays in golden_arrays(golden_dir):
        if "mix_fbank_raw" not in arrays:
            continue
        share = float(arrays["mix_lambda"])
        first, second = (torch.from_numpy(arrays[key]) for key in ("wav", "wav2"))
        mixed = share * (first - first.mean()) + (1 - share) * (second - second.mean())
        ours = log_mel(mixed - mixed.mean())
        assert (ours - torch.from_numpy(arrays["mix_fbank_raw"])).abs().max() < TOLERANCE, name


def test_golden_mel_bank_equals_the_reference(golden_dir):
    for name, arrays in golden_arrays(golden_dir):
        if "mel_banks" in arrays:
            bank = torch.from_numpy(arrays["mel_banks"]).T
            ours = mel_bank(bank.shape[1], 2 * (bank.shape[0] - 1), 16000)
            assert (ours - bank).abs().max() < 1e-4, name


@settings(max_examples=40, deadline=None)
@given(
    mels=st.sampled_from([23, 40, 64, 80, 128]),
    shift_ms=st.sampled_from([4.4, 5.2, 10.0, 12.5, 15.44]),
    samples=st.integers(400, 20000),
    seed=st.integers(0, 2**31 - 1),
    level=st.sampled_from([1e-3, 0.1, 0.9]),
)
def test_equals_kaldi_native_fbank(mels, shift_ms, samples, seed, level):
    waveform = noise(samples, seed, level)
    ours = log_mel(waveform, mels=mels, shift_ms=shift_ms)
    reference = kaldi(waveform, mels=mels, shift_ms=shift_ms)
    assert ours.shape == reference.shape
    assert (ours - reference).abs().max() < TOLERANCE


@pytest.mark.parametrize(("sample_rate", "window_ms"), [(8000, 25.0), (22050, 25.0), (44100, 30.0)])
def test_other_rates_and_windows_equal_kaldi_native_fbank(sample_rate, window_ms):
    waveform = noise(sample_rate)
    ours = log_mel(waveform, sample_rate=sample_rate, mels=40, window_ms=window_ms)
    reference = kaldi(waveform, sample_rate=sample_rate, mels=40, window_ms=window_ms)
    assert (ours - reference).abs().max() < TOLERANCE


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(400, 12000),
    mels=st.integers(4, 224),
    shift=st.integers(16, 800),
    kind=st.sampled_from(["noise", "silence", "constant", "clipped"]),
)
def test_shape_is_kaldis_and_values_are_finite(samples, mels, shift, kind):
    waveform = {
        "noise": noise(samples),
        "silence": torch.zeros(samples),
        "constant": torch.full((samples,), 0.7),
        "clipped": noise(samples).sign(),
    }[kind]
    shift_ms = (shift + 0.5) / 16
    energies = log_mel(waveform, mels=mels, shift_ms=shift_ms)
    assert energies.shape == (1 + (samples - 400) // shift, mels)
    assert energies.dtype is torch.float32
    assert energies.isfinite().all()
    assert energies.min() >= FLOOR - 1e-4


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), steps=st.integers(1, 300), shift=st.sampled_from([70, 83, 160, 247]))
def test_later_sound_is_the_same_picture_shifted(seed, steps, shift):
    """Cutting k shifts off the front removes exactly the first k frames, wherever chunks begin."""
    waveform = noise(400 + shift * (steps + 20), seed)
    shift_ms = (shift + 0.5) / 16
    whole = log_mel(waveform, shift_ms=shift_ms)
    later = log_mel(waveform[steps * shift :], shift_ms=shift_ms)
    assert later.shape[0] == 21
    torch.testing.assert_close(whole[steps:], later, atol=1e-4, rtol=0)


def test_silence_and_constant_offset_give_the_floor():
    for waveform in (torch.zeros(1000), torch.full((1000,), 0.25)):
        torch.testing.assert_close(log_mel(waveform), torch.full((4, 128), FLOOR), atol=1e-4, rtol=0)


def test_louder_sound_adds_twice_the_logarithm():
    quiet = noise(16000, level=0.01)
    gain = log_mel(quiet * 10, mels=40) - log_mel(quiet, mels=40)
    torch.testing.assert_close(gain, torch.full_like(gain, 2 * math.log(10)), atol=1e-2, rtol=0)


def test_a_tone_is_loudest_in_its_own_band():
    time = torch.arange(16000) / 16000
    centres = torch.linspace(*(1127 * math.log1p(f / 700) for f in (20, 8000)), 66)[1:-1]
    for hertz in (440.0, 1000.0, 3000.0):
        loudest = log_mel(0.5 * torch.sin(2 * math.pi * hertz * time), mels=64).mean(0).argmax()
        expected = (centres - 1127 * math.log1p(hertz / 700)).abs().argmin()
        assert abs(loudest - expected) <= 1


def test_half_and_double_precision_are_accepted():
    waveform = noise(4000)
    assert log_mel(waveform.double()).dtype is torch.float32
    assert (log_mel(waveform.double()) - log_mel(waveform)).abs().max() < 1e-5
    assert log_mel(waveform.half()).isfinite().all()


@pytest.mark.parametrize(
    ("waveform", "options", "message"),
    [
        (torch.zeros(399), {}, "399 samples, fewer than one window of 400"),
        (torch.zeros(0), {}, "0 samples"),
        (torch.zeros(2, 16000), {}, "floating point"),
        (torch.zeros(16000, dtype=torch.int16), {}, "int16"),
        (torch.zeros(16000), {"shift_ms": 0.01}, "shift_ms=0.01"),
        (torch.zeros(16000), {"window_ms": 0.0}, "window_ms=0.0"),
    ],
)
def test_impossible_input_is_refused(waveform, options, message):
    with pytest.raises(ValueError, match=message):
        log_mel(waveform, **options)


def test_lengths_are_rounded_down_as_kaldi_does():
    assert [samples_of(ms, 16000) for ms in (25.0, 10.0, 5.2, 4.4, 15.44)] == [400, 160, 83, 70, 247]
