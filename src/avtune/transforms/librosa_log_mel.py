"""HTS-AT's picture of sound: mel bands on Slaney's scale in decibels, as librosa and torchlibrosa compute them."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from avtune.transforms.log_mel import samples_of

LOWEST_HZ, HIGHEST_HZ = 50.0, 14000.0
POWER_FLOOR = 1e-10
# Slaney's scale is linear up to 1000 Hz, 15 mel; above, 27 mel are a factor of 6.4.
HERTZ_PER_MEL = 200.0 / 3.0
BREAK_HERTZ = 1000.0
BREAK_MEL = BREAK_HERTZ / HERTZ_PER_MEL
LOG_STEP = float(torch.tensor(6.4, dtype=torch.float64).log()) / 27.0


def hertz_to_mel(hertz: Tensor) -> Tensor:
    """Frequencies on Slaney's mel scale.

    Args:
        hertz: Frequencies, at least 0 Hz, any shape.

    Returns:
        ``3 f / 200`` up to 1000 Hz, ``15 + 27 log(f / 1000) / log(6.4)`` above.
    """
    above = BREAK_MEL + torch.log(hertz.clamp(min=BREAK_HERTZ) / BREAK_HERTZ) / LOG_STEP
    return torch.where(hertz < BREAK_HERTZ, hertz / HERTZ_PER_MEL, above)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """Undo :func:`hertz_to_mel`.

    Args:
        mel: Values on Slaney's scale, any shape.
    """
    above = BREAK_HERTZ * torch.exp(LOG_STEP * (mel.clamp(min=BREAK_MEL) - BREAK_MEL))
    return torch.where(mel < BREAK_MEL, mel * HERTZ_PER_MEL, above)


@lru_cache(maxsize=32)
def slaney_bank(
    mels: int,
    fft_size: int,
    sample_rate: int,
    lowest_hz: float = LOWEST_HZ,
    highest_hz: float = HIGHEST_HZ,
) -> Tensor:
    """Weights that sum the bins of a power spectrum into mel bands of equal area, ``librosa.filters.mel``.

    Band m is a triangle on the axis of hertz with its corners at the centres of its neighbours, which are
    evenly spaced on Slaney's scale; it is divided by half its width, so that white noise is equally strong
    in every band.

    Args:
        mels: Number of bands.
        fft_size: Length of the Fourier transform, samples.
        sample_rate: Samples per second.
        lowest_hz: Lower corner of the first band.
        highest_hz: Upper corner of the last band.

    Returns:
        Weights of shape ``(fft_size // 2 + 1, mels)``, float64; shared between calls, do not modify.
    """
    bins = torch.arange(fft_size // 2 + 1, dtype=torch.float64) * (sample_rate / fft_size)
    ends = hertz_to_mel(torch.tensor([lowest_hz, highest_hz], dtype=torch.float64))
    corners = mel_to_hertz(torch.linspace(float(ends[0]), float(ends[1]), mels + 2, dtype=torch.float64))
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rise = (bins[:, None] - left) / (centre - left)
    fall = (right - bins[:, None]) / (right - centre)
    return torch.minimum(rise, fall).clamp_min(0.0) * (2.0 / (right - left))


def librosa_log_mel(
    waveform: Tensor, *, sample_rate: int, mels: int, window_ms: float, shift_ms: float
) -> Tensor:
    """Energies in mel bands from 50 to 14000 Hz, in decibels.

    As ``torchlibrosa``'s ``Spectrogram`` and ``LogmelFilterBank``: frames centred on multiples of the shift,
    the sound mirrored at its ends, periodic Hann window, power spectrum at the window's own length,
    :func:`slaney_bank`, ``10 log10(max(E, 1e-10))``, no lower limit relative to the loudest.

    Args:
        waveform: Mono sound of shape ``(samples,)``, floating point, full scale 1, longer than half a frame.
        sample_rate: Samples per second, at least 28000.
        mels: Number of bands.
        window_ms: Length of one frame, milliseconds.
        shift_ms: Distance of two frames, milliseconds. Both are rounded down to samples.

    Returns:
        Decibels of shape ``(frames, mels)``, float32, ``frames = 1 + samples // shift`` for an even window;
        digital silence gives -100.
    """
    window, shift = samples_of(window_ms, sample_rate), samples_of(shift_ms, sample_rate)
    half = window // 2
    sound = functional.pad(waveform.double()[None], (half, half), mode="reflect")[0]
    shape = torch.hann_window(window, dtype=sound.dtype, device=sound.device)
    spectrum = torch.stft(sound, window, shift, window=shape, center=False, return_complex=True)
    power = torch.view_as_real(spectrum).square().sum(-1)
    energies = power.T @ slaney_bank(mels, window, sample_rate).to(sound.device)
    return (10.0 * energies.clamp_min(POWER_FLOOR).log10()).float()
