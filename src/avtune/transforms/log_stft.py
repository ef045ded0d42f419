"""MA-AVT's picture of sound on VGGSound and CREMA-D: the logarithm of a linear short-time Fourier transform."""

from __future__ import annotations

import torch
from torch import Tensor

from avtune.transforms.log_mel import samples_of

MAGNITUDE_FLOOR = 1e-7
# Keeps a constant picture, such as digital silence, at zero instead of dividing zero by zero.
DEVIATION_FLOOR = 1e-9


def log_stft(waveform: Tensor, *, sample_rate: int, mels: int, window_ms: float, shift_ms: float) -> Tensor:
    """Log magnitudes on the linear frequency axis, standardised over the whole picture.

    The waveform is clipped to [-1, 1], continued by zeros so that frames are centred on multiples of the
    shift (``librosa.stft``), windowed by a periodic Hann window and Fourier transformed at the window's own
    length. Of ``log(|X| + 1e-7)`` the picture's own mean is subtracted, and the rest is divided by the
    picture's own (population) standard deviation.

    Args:
        waveform: Mono sound of shape ``(samples,)``, floating point, full scale 1.
        sample_rate: Samples per second.
        mels: Number of frequencies: ``window // 2 + 1``. They are linear, not mel bands.
        window_ms: Length of one frame and of the transform, milliseconds.
        shift_ms: Distance of two frames, milliseconds. Both are rounded down to samples.

    Returns:
        float32 of shape ``(frames, mels)``, ``frames = 1 + (samples + 2 * (window // 2) - window) // shift``.

    Raises:
        ValueError: If ``mels`` does not belong to the window.
    """
    window, shift = samples_of(window_ms, sample_rate), samples_of(shift_ms, sample_rate)
    if mels != window // 2 + 1:
        raise ValueError(
            f"a transform of {window} samples has {window // 2 + 1} frequencies, not {mels}; set input.audio.mels"
        )
    sound = waveform.double().clamp(-1.0, 1.0)
    shape = torch.hann_window(window, dtype=sound.dtype, device=sound.device)
    spectrum = torch.stft(
        sound, window, shift, window=shape, center=True, pad_mode="constant", return_complex=True
    )
    picture = (spectrum.abs() + MAGNITUDE_FLOOR).log()
    standardised = (picture - picture.mean()) / (picture.std(unbiased=False) + DEVIATION_FLOOR)
    return standardised.T.contiguous().float()
