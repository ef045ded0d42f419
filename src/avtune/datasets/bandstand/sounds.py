"""Physical models of the ten sounds.

Struck and plucked things repeat at three or more onsets a second, the others sustain, so that any one second
of a sound holds what tells its class. Every model returns its onsets too: drawings move at them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from avtune.datasets.bandstand.scene import SAMPLE_RATE, SECONDS, Timbre

Waveform = NDArray[np.float64]


@dataclass(frozen=True)
class Strain:
    """What one model makes.

    Attributes:
        waveform: Samples (length,) at any level.
        onsets: Times from its beginning at which something is struck, plucked or uttered, seconds.
    """

    waveform: Waveform
    onsets: Waveform


@dataclass(frozen=True)
class Rhythm:
    """How often a class is struck.

    Attributes:
        lowest: Onsets per second at rhythm 0.
        span: What rhythm 1 adds.
        unevenness: Largest relative departure of an interval from its mean.
    """

    lowest: float
    span: float
    unevenness: float

    def interval(self, rhythm: float) -> float:
        """Mean distance of two onsets, seconds."""
        return 1 / (self.lowest + self.span * rhythm)

    def intervals(self, rhythm: float, count: int, rng: np.random.Generator) -> Waveform:
        """Distances of successive onsets (count,), seconds."""
        return self.interval(rhythm) * (1 + self.unevenness * rng.uniform(-1, 1, count))


RHYTHMS: dict[str, Rhythm] = {
    "bell": Rhythm(3.0, 1.2, 0.05),
    "bird": Rhythm(4.5, 3.0, 0.2),
    "car": Rhythm(3.0, 3.0, 0.05),
    "drum": Rhythm(3.5, 2.0, 0.12),
    "guitar": Rhythm(3.2, 2.3, 0.12),
    "horn": Rhythm(2.2, 0.9, 0.05),
    "rain": Rhythm(4.0, 3.0, 0.12),
    "siren": Rhythm(3.2, 3.6, 0.0),
    "voice": Rhythm(3.0, 1.5, 0.2),
    "xylophone": Rhythm(5.0, 2.5, 0.12),
}


def _onsets(label: str, timbre: Timbre, seconds: float, rng: np.random.Generator) -> Waveform:
    """Onset times of a class, the first within its first interval."""
    interval = RHYTHMS[label].interval(timbre.rhythm)
    intervals = RHYTHMS[label].intervals(timbre.rhythm, int(1.3 * seconds / interval) + 2, rng)
    times = rng.uniform(0, 0.3 * interval) + np.concatenate([[0.0], np.cumsum(intervals)])
    return np.asarray(times[times < seconds - 0.02])


def strike_times(label: str, rhythm: float, played: list[float], rng: np.random.Generator) -> list[float]:
    """When a moving instrument is struck during the whole clip, heard or not.

    Heard onsets go on before and after in the same rhythm, so that motion does not betray when it sounds.

    Args:
        label: Class.
        rhythm: Position in the class's range of onset rates, [0, 1).
        played: Onsets that are heard, seconds in ascending order; empty: the instrument is silent throughout.
        rng: Source of chance.

    Returns:
        Times in [0, 10), seconds.
    """
    interval = RHYTHMS[label].interval(rhythm)
    count = int(1.3 * SECONDS / interval) + 2
    anchor = played or [float(rng.uniform(0, SECONDS))]
    before = anchor[0] - np.cumsum(RHYTHMS[label].intervals(rhythm, count, rng))
    after = anchor[-1] + np.cumsum(RHYTHMS[label].intervals(rhythm, count, rng))
    times = np.concatenate([before[::-1], anchor, after])
    return [round(float(time), 4) for time in times if 0 <= time < SECONDS]


def _modal(
    frequencies: Waveform, amplitudes: Waveform, decays: Waveform, seconds: float, rng: np.random.Generator
) -> Waveform:
    """A bank of modes, sum_i a_i exp(-d_i t) sin(2 pi f_i t + p_i), up to the Nyquist frequency."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    audible = frequencies < 0.47 * SAMPLE_RATE
    phases = rng.uniform(0, 2 * math.pi, len(frequencies))
    waves = np.exp(-np.outer(decays, time)) * np.sin(
        2 * math.pi * np.outer(frequencies, time) + phases[:, None]
    )
    return np.asarray((amplitudes * audible) @ waves)


def _play(notes: list[Waveform], onsets: Waveform, seconds: float, rng: np.random.Generator) -> Strain:
    """Repeat notes at the onsets in random order, with random strength."""
    length = int(seconds * SAMPLE_RATE)
    waveform = np.zeros(length)
    for onset in onsets:
        note = notes[int(rng.integers(len(notes)))]
        first = int(onset * SAMPLE_RATE)
        room = min(len(note), length - first)
        waveform[first : first + room] += note[:room] * rng.uniform(0.7, 1.0)
    return Strain(waveform, onsets)


def _resonate(waveform: Waveform, frequency: float, bandwidth: float) -> Waveform:
    """A two-pole resonance of unit gain at its centre."""
    radius = math.exp(-math.pi * bandwidth / SAMPLE_RATE)
    angle = 2 * math.pi * frequency / SAMPLE_RATE
    gain = (1 - radius) * math.sqrt(1 - 2 * radius * math.cos(2 * angle) + radius**2)
    return np.asarray(signal.lfilter([gain], [1, -2 * radius * math.cos(angle), radius**2], waveform))


def _phase(frequency: Waveform) -> Waveform:
    """Running phase of a changing frequency, cycles."""
    return np.cumsum(frequency) / SAMPLE_RATE


def _harmonic(amplitudes: Waveform, rng: np.random.Generator) -> Waveform:
    """One period of a tone with these partials in random phase, for ``_wavetable``."""
    cycle = 2 * math.pi * np.arange(4096) / 4096
    partials = np.arange(1, len(amplitudes) + 1)
    return amplitudes @ np.sin(np.outer(partials, cycle) + rng.uniform(0, 2 * math.pi, (len(partials), 1)))


def _wavetable(table: Waveform, phase: Waveform) -> Waveform:
    """The tone at a running phase in cycles."""
    return table[(phase * len(table)).astype(np.int64) % len(table)]


def _soft(curve: NDArray[Any], seconds: float) -> Waveform:
    """A curve with rounded corners: two running means of this length."""
    size = max(1, int(seconds * SAMPLE_RATE))
    once = ndimage.uniform_filter1d(np.asarray(curve, dtype=np.float64), size)
    return np.asarray(ndimage.uniform_filter1d(once, size))


def _smooth(rng: np.random.Generator, length: int, rate: float) -> Waveform:
    """A random curve in about [-1, 1] that turns ``rate`` times per second."""
    knots = max(2, int(length / SAMPLE_RATE * rate) + 2)
    return np.interp(np.linspace(0, knots - 1, length), np.arange(knots), rng.uniform(-1, 1, knots))


def _bell(timbre: Timbre, seconds: float, rng: np.random.Generator) -> Strain:
    prime = 330.0 * 2 ** (0.9 * timbre.pitch)
    ratios = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.67, 4.1])
    tilt = -1.2 + timbre.brightness
    note = _modal(
        prime * ratios * rng.uniform(0.995, 1.005, len(ratios)),
        ratios**tilt * rng.uniform(0.6, 1, len(ratios)),
        2.0 + 1.2 * ratios,
        1.5,
        rng,
    )
    return _play([note], _onsets("bell", timbre, seconds, rng), seconds, rng)


def _bird(timbre: Timbre, seconds: float, rng: np.random.Generator) -> Strain:
    centre = 2600.0 * 2 ** (0.9 * timbre.pitch)
    notes = []
    for _ in range(3):
        length = int(rng.uniform(0.06, 0.11) * SAMPLE_RATE)
        bend = rng.uniform(0.25, 0.5) * rng.choice([-1.0, 1.0])
        sweep = centre * 2 ** (bend * np.linspace(-1, 1, length) + rng.uniform(-0.15, 0.15))
        phase = 2 * math.pi * _phase(sweep)
        chirp = np.sin(phase) + 0.3 * timbre.brightness * np.sin(2 * phase) * (sweep < 3800)
        notes.append(chirp * signal.windows.tukey(length, 0.6))
    return _play(notes, _onsets("bird", timbre, seconds, rng), seconds, rng)


def _car(timbre: Timbre, seconds: float, rng: np.random.Generator) -> Strain:
    length = int(seconds * SAMPLE_RATE)
    firing = 26.0 * 2 ** (1.1 * timbre.pitch) * (1 + 0.12 * _smooth(rng, length, 0.8))
    phase = _phase(firing)
    strokes = np.flatnonzero(np.diff(np.floor(phase), prepend=0.0))
    pulses = np.zeros(length)
    pulses[strokes] = rng.uniform(0.6, 1.0, len(strokes)) * np.where(
        np.arange(len(strokes)) % 4 == 0, 1.4, 1.0
    )
    body = sum(
        weight * _resonate(pulses, frequency, bandwidth)
        for frequency, bandwidth, weight in (
            (85.0, 60.0, 1.0),
            (230.0, 110.0, 0.9),
            (600.0, 250.0, 0.3 + 0.5 * timbre.brightness),
        )
    )
    hiss = signal.lfilter([0.08], [1, -0.92], rng.normal(0, 1, length)) * (
        0.6 + 0.4 * np.cos(2 * np.pi * phase)
    )
    waveform = np.asarray(body) / (np.std(body) + 1e-9) + (0.15 + 0.2 * timbre.brightness) * hiss / np.std(
        hiss
    )
    return Strain(waveform, _onsets("car", timbre, seconds, rng))


def _drum(timbre: Timbre, seconds: float, rng: np.random.Generator) -> Strain:
    lowest = 75.0 * 2 ** (1.1 * timbre.pitch)
    ratios = np.array([1.0, 1.59, 2.14, 2.3, 2.65, 2.92])
    notes = []
    for _ in range(2):
        amplitudes = rng.uniform(0.2, 1, len(ratios)) / ratios
        note = _modal(lowest * ratios, amplitudes, 9 + 9 * ratios, 0.4, rng)
        time = np.arange(len(note)) / SAMPLE_RATE
        drop = np.exp(-22 * time) * np.sin(2 * np.pi * _phase(lowest * (1 + 1.5 * np.exp(-40 * time))))
        slap = rng.normal(0, 1, len(note)) * np.exp(-time * 45)
        notes.append(
            note / np.std(note)
            + 0.7 * drop / np.std(drop)
            + (0.3 + 0.6 * timbre.brightness) * slap / np.std(slap)
        )
    return _play(notes, _onsets("drum", timbre, seconds, rng), seconds, rng)


def _guitar(timbre: Timbre, seconds: float, rng: np.random.Generator) -> Strain:
    lowest = 105.0 * 2 ** (0.9 * timbre.pitch)
    scale = rng.choice([0, 3, 5, 7, 10, 12], size=4, replace=False)
    notes = [_plucked(lowest * 2 ** (semitones / 12), timbre.brightness, rng) for semitones in scale]
    return _play(notes, _onsets("guitar", timbre, seconds, rng), seconds, rng)


def _plucked(frequency: float, brightness: float, rng: np.random.Generator) -> Waveform:
    """Karplus and Strong's string: a burst of noise in a loop of one period with a gentle low-pass."""
    period = SAMPLE_RATE / frequency - 0.5
    delay = int(period)
    length = int(0.8 * SAMPLE_RATE)
    burst = np.zeros(length)
    burst[:delay] = signal.lfilter([1], [1, -(0.75 - 0.6 * brightness)], rng.uniform(-1, 1, delay))
    burst[:delay] -= burst[:delay].mean()
    loop = np.zeros(delay + 2)
    loop[0] = 1
    loop[delay] = loop[delay + 1] = -0.5 * 0.994
    note = np.asarray(signal.lfilter([1.0], loop, burst))
    return note * np.minimum(1, np.arange(length, 0, -1) / 800)


def _horn(timbre: Timbre, seconds: float, rng: np.random.Generator) -> Strain:
    length = int(seconds * SAMPLE_RATE)
    base = 290.0 * 2 ** (0.8 * timbre.pitch)
    time = np.arange(length) / SAMPLE_RATE
    highest = 2600.0 + 1800.0 * timbre.brightness
    waveform = np.zeros(length)
    for interval in (1.0, 1.2599):
        partials = np.arange(1, 1 + int(highest / (base * interval)), dtype=float)
        table = _harmonic(partials ** (-0.9 + 0.5 * timbre.brightness), rng)
        waveform += _wavetable(table, base * interval * time)
    onsets = _onsets("horn", timbre, seconds, rng)
    gate = np.zeros(length)
    edges = np.append(onsets, seconds + 0.05)
    for start, following in itertools.pairwise(edges):
        gate[int(start * SAMPLE_RATE) : int((following - 0.07) * SAMPLE_RATE)] = 1
    return Strain(waveform * _soft(gate, 0.015), onsets)


def _rain(timbre: Timbre, seconds: float, rng: np.random.Generator) -> Strain:
    length = int(seconds * SAMPLE_RATE)
    hiss = signal.lfilter([1, -0.6 - 0.35 * timbre.brightness], [1], rng.normal(0, 1, length))
    drops = np.zeros(length)
    count = rng.poisson(seconds * (60 + 120 * timbre.rhythm))
    drops[rng.integers(0, length, count)] = rng.uniform(0.2, 1.0, count)
    splash = sum(
        _resonate(drops, frequency * 2 ** (0.7 * timbre.pitch), 500.0)
        for frequency in (1100.0, 2300.0, 3900.0)
    )
    waveform = hiss / np.std(hiss) + 0.9 * np.asarray(splash) / (np.std(splash) + 1e-9)
    return Strain(waveform, _onsets("rain", timbre, seconds, rng))


def _siren(timbre: Timbre, seconds: float, rng: np.random.Generator) -> Strain:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    centre = 760.0 * 2 ** (0.7 * timbre.pitch)
    onsets = _onsets("siren", timbre, seconds, rng)
    # Up at one onset, down at the next; whether it begins upwards is chance.
    turn = (time - onsets[0]) / RHYTHMS["siren"].interval(timbre.rhythm) + rng.integers(2)
    phase = _phase(centre * 2 ** (0.55 * np.cos(math.pi * turn)))
    table = _harmonic((0.15 + 0.5 * timbre.brightness) ** np.arange(3.0), rng)
    return Strain(_wavetable(table, phase), onsets)


_VOWELS = ((730.0, 1090.0, 2440.0), (270.0, 2290.0, 3010.0), (300.0, 870.0, 2240.0), (530.0, 1840.0, 2480.0))


def _voice(timbre: Timbre, seconds: float, rng: np.random.Generator) -> Strain:
    length = int(seconds * SAMPLE_RATE)
    time = np.arange(length) / SAMPLE_RATE
    onsets = _onsets("voice", timbre, seconds, rng)
    syllable = np.maximum(np.searchsorted(onsets, time, side="right"), 1)
    melody = rng.uniform(-0.2, 0.25, len(onsets) + 1)[syllable - 1]
    vibrato = 0.025 * np.sin(2 * np.pi * 5.5 * time)
    pitch = 125.0 * 2 ** (timbre.pitch + melody + vibrato)
    phase = _phase(pitch)
    pulses = np.diff(np.floor(phase), prepend=0.0)
    source = signal.lfilter([1], [1, -(0.97 - 0.12 * timbre.brightness)], pulses)
    source = source + 0.01 * rng.normal(0, 1, length)
    tract = 1.0 + 0.18 * timbre.pitch
    choice = rng.integers(0, len(_VOWELS), len(onsets) + 1)[syllable - 1]
    waveform = np.zeros(length)
    for vowel, formants in enumerate(_VOWELS):
        tone = sum(
            weight * _resonate(source, formant * tract, 80.0 + 0.03 * formant)
            for formant, weight in zip(formants, (1.0, 0.7, 0.4), strict=True)
        )
        waveform += _soft(choice == vowel, 0.03) * np.asarray(tone) / (np.std(tone) + 1e-9)
    since = time - np.append(onsets, seconds)[syllable - 1]
    envelope = np.clip(since / 0.03, 0.15, 1) * np.exp(-1.2 * np.maximum(since, 0))
    return Strain(waveform * _soft(envelope, 0.02), onsets)


def _xylophone(timbre: Timbre, seconds: float, rng: np.random.Generator) -> Strain:
    lowest = 620.0 * 2 ** (0.8 * timbre.pitch)
    ratios = np.array([1.0, 2.756, 5.404, 8.933])
    amplitudes = np.array([1.0, 0.5, 0.25, 0.12]) ** (1.4 - 0.9 * timbre.brightness)
    notes = []
    for semitones in rng.choice([0, 2, 4, 7, 9, 12], size=4, replace=False):
        strike = amplitudes * rng.uniform(0.6, 1, len(ratios))
        notes.append(_modal(lowest * 2 ** (semitones / 12) * ratios, strike, 9 + 8 * ratios, 0.5, rng))
    return _play(notes, _onsets("xylophone", timbre, seconds, rng), seconds, rng)


MODELS: dict[str, Callable[[Timbre, float, np.random.Generator], Strain]] = {
    "bell": _bell,
    "bird": _bird,
    "car": _car,
    "drum": _drum,
    "guitar": _guitar,
    "horn": _horn,
    "rain": _rain,
    "siren": _siren,
    "voice": _voice,
    "xylophone": _xylophone,
}
