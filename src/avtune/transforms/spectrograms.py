"""From a sound track to one normalised picture per segment, as an :class:`AudioPreset` says."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from avtune.transforms.front_ends import FRONT_ENDS
from avtune.transforms.presets import AudioPreset, Beyond
from avtune.transforms.windows import SPREAD_MARGIN_SECONDS, Section, centred_starts, spread_starts


def sound_windows(section: Section, samples: int, audio: AudioPreset) -> list[tuple[int, int]]:
    """Which samples each segment hears.

    Args:
        section: The stretch of the file.
        samples: Length of the file's sound, from the file's beginning on.
        audio: The front end.

    Returns:
        T pairs (first, end), counted from the file's beginning. They may reach beyond the sound, which is
        then continued as ``audio.beyond`` says. In ``clip`` placement that continues with silence, and where
        ``spread`` placement finds no more than one window of sound, they end with the sound.
    """
    window, rate = audio.window_samples, audio.sample_rate
    if audio.placement == "grid":
        starts = centred_starts(section.middles, window, rate)
        return [(start, start + window) for start in starts]
    first = round(section.start * rate)
    own = samples - first
    if audio.placement == "clip":
        heard = window if audio.beyond == "loop" else max(min(window, own), 0)
        return [(first, first + heard)] * section.segments
    margin = round(SPREAD_MARGIN_SECONDS * rate)
    if 0 < own <= window + margin:
        return [(first, samples)] * section.segments
    length = round(section.spread_length(own / rate) * rate)
    spread = spread_starts(length, section.segments, window, margin)
    if spread is None:
        return [(first, first + length)] * section.segments
    return [(first + start, first + start + window) for start in spread]


def cut(waveform: Tensor, first: int, end: int, mean: float = 0.0, *, beyond: Beyond = "silence") -> Tensor:
    """Take a stretch of a waveform less its mean, continued where there is no sound.

    Args:
        waveform: Mono sound of shape ``(samples,)``.
        first: First sample, may be negative.
        end: Sample behind the last one, may lie beyond the sound.
        mean: Value that is subtracted, from the sound only.
        beyond: Whether zeros continue the sound, or the sound itself, again and again.

    Returns:
        float64 of shape ``(end - first,)``: in float32 the difference would round quiet sound.
    """
    samples = waveform.shape[0]
    if beyond == "loop" and samples:
        return waveform[torch.arange(first, end) % samples].double() - mean
    inside = waveform[min(max(first, 0), samples) : min(max(end, 0), samples)].double() - mean
    before = min(max(-first, 0), end - first)
    return functional.pad(inside, (before, end - first - before - inside.shape[0]))


def picture(window: Tensor, audio: AudioPreset) -> Tensor:
    """Turn the sound that one segment hears into its picture.

    Args:
        window: Waveform of shape ``(samples,)``; shorter than one frame it is continued with zeros.
        audio: The front end.

    Returns:
        Normalised energies of shape ``audio.shape``, float32.
    """
    if audio.tile_seconds is not None and window.shape[0]:
        window = window.repeat(-(-audio.tiled_samples // window.shape[0]))[: audio.tiled_samples]
    missing = max(audio.frame_samples - window.shape[0], 0)
    energies = FRONT_ENDS[audio.front_end].compute(
        functional.pad(window, (0, missing)),
        sample_rate=audio.sample_rate,
        mels=audio.mels,
        window_ms=audio.window_ms,
        shift_ms=audio.shift_ms,
    )
    if audio.pad == "before_normalising":
        energies = _normalise(_to_length(energies, audio.steps), audio)
    else:
        energies = _to_length(_normalise(energies, audio), audio.steps)
    return energies if audio.rows == "time" else energies.T.contiguous()


def pictures(
    waveform: Tensor, windows: list[tuple[int, int]], audio: AudioPreset, mean: float = 0.0
) -> Tensor:
    """Pictures of several windows of one waveform; equal windows are computed once.

    Args:
        waveform: Mono sound of shape ``(samples,)``.
        windows: Pairs (first, end) of samples.
        audio: The front end.
        mean: Value that is subtracted from the sound.

    Returns:
        float32 of shape ``(windows, *audio.shape)``.
    """
    distinct = {
        window: picture(cut(waveform, *window, mean, beyond=audio.beyond), audio)
        for window in dict.fromkeys(windows)
    }
    return torch.stack([distinct[window] for window in windows])


def _normalise(energies: Tensor, audio: AudioPreset) -> Tensor:
    return (energies - audio.mean) / (2.0 * audio.std)


def _to_length(energies: Tensor, steps: int) -> Tensor:
    return functional.pad(energies[:steps], (0, 0, 0, max(steps - energies.shape[0], 0)))
