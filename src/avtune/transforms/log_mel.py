"""Kaldi-compatible log-mel energies: the one way in which avtune turns sound into a picture.

The five papers feed their transformers what Kaldi's ``fbank`` computes (through torchaudio), so pretrained
means and standard deviations only fit if every detail is Kaldi's: frames cut without padding, mean of each
frame removed, pre-emphasis inside the frame, a symmetric Hann window, power spectrum, triangles that are
linear on the mel axis, natural logarithm with the float32 epsilon as floor.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

PRE_EMPHASIS = 0.97
LOWEST_HZ = 20.0
ENERGY_FLOOR = float(torch.finfo(torch.float32).eps)
# So few that the intermediate arrays stay in the processor's cache, which halves the time.
FRAMES_AT_ONCE = 128


def samples_of(milliseconds: float, sample_rate: int) -> int:
    """Return how many whole samples fit into ``milliseconds``, rounded down as Kaldi does."""
    return int(sample_rate * milliseconds * 0.001)


@lru_cache(maxsize=32)
def hann_window(length: int) -> Tensor:
    """Return the symmetric Hann window of ``length`` samples, float64, 0 at both ends; do not modify."""
    return torch.hann_window(length, periodic=False, dtype=torch.float64)


@lru_cache(maxsize=32)
def mel_bank(mels: int, fft_size: int, sample_rate: int) -> Tensor:
    """Weights that sum the bins of a power spectrum into mel bands.

    Band m is a triangle on the axis ``mel(f) = 1127 ln(1 + f / 700)`` from 20 Hz to half the sampling rate,
    with its corners at the centres of its neighbours. With many bands the lowest ones may lie between
    two bins and stay empty, as in Kaldi.

    Args:
        mels: Number of bands.
        fft_size: Length of the Fourier transform, samples (even).
        sample_rate: Samples per second.

    Returns:
        Weights of shape ``(fft_size // 2 + 1, mels)``, float32; shared between calls, do not modify.
    """

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    bins = torch.arange(fft_size // 2 + 1, dtype=torch.float64) * (sample_rate / fft_size)
    ends = mel(torch.tensor([LOWEST_HZ, sample_rate / 2], dtype=torch.float64))
    corners = torch.linspace(float(ends[0]), float(ends[1]), mels + 2, dtype=torch.float64)
    distance = corners[1] - corners[0]
    rise = (mel(bins)[:, None] - corners[:-2]) / distance
    fall = (corners[2:] - mel(bins)[:, None]) / distance
    bank = torch.minimum(rise, fall).clamp_min(0.0)
    # Kaldi leaves the bin at half the sampling rate out of every band.
    bank[-1] = 0.0
    return bank.float()


def log_mel(
    waveform: Tensor,
    *,
    sample_rate: int = 16000,
    mels: int = 128,
    window_ms: float = 25.0,
    shift_ms: float = 10.0,
) -> Tensor:
    """Log energies in mel bands, equal to Kaldi's ``fbank``.

    Kaldi's options are: Hann window (``hanning``), pre-emphasis 0.97, mean of each frame removed, no dither,
    power spectrum, bands from 20 Hz to half the sampling rate, no energy column, ``snip_edges``.

    Args:
        waveform: Mono sound of shape ``(samples,)``, floating point, as a rule in [-1, 1].
        sample_rate: Samples per second.
        mels: Number of mel bands.
        window_ms: Length of one frame, milliseconds; the Fourier transform has the next power of two.
        shift_ms: Distance of the starts of two frames, milliseconds. Both are rounded down to samples.

    Returns:
        Natural logarithms of shape ``(frames, mels)``, float32, with
        ``frames = 1 + (samples - window) // shift``; digital silence gives ``log(2 ** -23) = -15.94``.

    Raises:
        ValueError: If ``waveform`` is not one-dimensional floating point or is shorter than one window, or
            if the shift is shorter than one sample or the window than two.
    """
    window = samples_of(window_ms, sample_rate)
    shift = samples_of(shift_ms, sample_rate)
    if window < 2 or shift < 1:
        raise ValueError(f"window_ms={window_ms} and shift_ms={shift_ms} must reach 2 samples and 1 sample")
    if waveform.ndim != 1 or not waveform.is_floating_point():
        raise ValueError(f"waveform must be floating point (samples,), not {waveform.dtype} {waveform.shape}")
    if waveform.shape[0] < window:
        raise ValueError(f"waveform has {waveform.shape[0]} samples, fewer than one window of {window}")
    fft_size = 1 << (window - 1).bit_length()
    shape = hann_window(window).to(waveform.device)
    bank = mel_bank(mels, fft_size, sample_rate).to(waveform.device)

    # float64 up to the spectrum: in near-empty bins float32 would be wrong by 2e-3 after the logarithm.
    energies = []
    for frames in torch.split(waveform.double().unfold(0, window, shift), FRAMES_AT_ONCE):
        centred = frames - frames.mean(dim=1, keepdim=True)
        previous = torch.cat([centred[:, :1], centred[:, :-1]], dim=1)
        emphasised = torch.sub(centred, previous, alpha=PRE_EMPHASIS)
        spectrum = torch.view_as_real(torch.fft.rfft(emphasised * shape, n=fft_size)).float()
        real, imaginary = spectrum.unbind(-1)
        energies.append(real.square().addcmul_(imaginary, imaginary) @ bank)
    return torch.cat(energies).clamp_min_(ENERGY_FLOOR).log_()
