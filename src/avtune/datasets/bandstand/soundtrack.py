"""The soundtrack of a clip: its sounds at their levels, a room around them, and a floor of noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from avtune.datasets.bandstand.scene import SAMPLE_RATE, SECONDS, Program, Sound
from avtune.datasets.bandstand.sounds import MODELS, Strain

Waveform = NDArray[np.float64]

_FADE_SECONDS = 0.015
_CEILING = 0.98


def strain(sound: Sound, rng: np.random.Generator) -> Strain:
    """One sound of a program from its beginning to its end, at its level.

    Args:
        sound: What to play.
        rng: Source of chance for everything the timbre leaves open.

    Returns:
        The samples at root mean square ``sound.level_db`` of full scale, and onsets from its beginning.
    """
    seconds = sound.end - sound.start
    made = MODELS[sound.label](sound.timbre, seconds, rng)
    waveform = made.waveform - made.waveform.mean()
    fade = int(_FADE_SECONDS * SAMPLE_RATE)
    ramp = np.sin(np.linspace(0, math.pi / 2, fade)) ** 2
    waveform[:fade] *= ramp
    waveform[-fade:] *= ramp[::-1]
    return Strain(waveform * 10 ** (sound.level_db / 20) / np.sqrt(np.mean(waveform**2)), made.onsets)


def _noise(rng: np.random.Generator, length: int, slope: float) -> Waveform:
    """Noise of unit root mean square with a power spectrum of 1/f**slope above 40 Hz."""
    spectrum = np.fft.rfft(rng.normal(0, 1, length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 40.0)
    noise = np.fft.irfft(spectrum * frequency ** (-slope / 2), length)
    return np.asarray(noise / np.sqrt(np.mean(noise**2)))


def mix(program: Program, rng: np.random.Generator) -> tuple[NDArray[np.float32], dict[int, list[float]]]:
    """The whole soundtrack.

    Args:
        program: The scene.
        rng: Source of chance, independent of the one that draws.

    Returns:
        Samples (160000,) in [-1, 1], and per number of a sound its onsets, seconds from the clip's start.
    """
    length = SECONDS * SAMPLE_RATE
    dry = np.zeros(length)
    onsets: dict[int, list[float]] = {}
    for sound in program.sounds:
        made = strain(sound, rng)
        first = round(sound.start * SAMPLE_RATE)
        room = min(len(made.waveform), length - first)
        dry[first : first + room] += made.waveform[:room]
        onsets[sound.number] = [round(sound.start + float(onset), 4) for onset in made.onsets]
    tail = int(program.decay * SAMPLE_RATE)
    response = rng.normal(0, 1, tail) * np.exp(-6.9 * np.arange(tail) / tail)
    response *= program.reverberation / np.sqrt(np.sum(response**2))
    wet = dry + signal.oaconvolve(dry, response)[:length]
    total = wet + 10 ** (program.noise_db / 20) * _noise(rng, length, program.noise_slope)
    # Soft limiting only touches rare peaks; scaling the clip by its peak would make level depend on class.
    return (_CEILING * np.tanh(total / _CEILING)).astype(np.float32), onsets
