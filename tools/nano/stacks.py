"""Pictures of stacked lines, bursts and speckle bands: the spectrogram-like family of the nano backbone's pretraining.

These are drawn, not recorded or synthesised: no waveform exists. But the vertical layout follows how harmonics and
noise bands look on a mel axis, with time running down the rows, so "pretrained on images only" must always be
said together with "some of them resemble spectrograms".

A picture's identity: ratios and strengths of its lines, how they die out, how they bend, how the picture repeats,
and its speckle bands. Redrawn for every view: the base line's place, start, phase, level, floor and clutter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from shapes import CANONICAL, Views, chance, uniform
from torch import Tensor

LINES = 16
TOP = 8000.0


def mel(frequency: Tensor) -> Tensor:
    return 1127 * torch.log1p(frequency.clamp(min=0) / 700)


LOWEST, HIGHEST = mel(torch.tensor(20.0)), mel(torch.tensor(TOP))


def column(frequency: Tensor, side: int) -> Tensor:
    return (mel(frequency) - LOWEST) / (HIGHEST - LOWEST) * (side - 1)


@dataclass
class Programs:
    """Identities; every field has one row each. Times in units of the picture's height, frequencies in hertz."""

    base: Tensor
    ratios: Tensor
    power: Tensor
    decay: Tensor
    sustained: Tensor
    attack: Tensor
    period: Tensor
    bend_rate: Tensor
    bend_depth: Tensor
    bend_shape: Tensor
    tremor_rate: Tensor
    tremor_depth: Tensor
    speckle: Tensor
    bands: Tensor
    band_width: Tensor
    grain: Tensor
    grain_size: Tensor

    def pick(self, rows: Tensor) -> Programs:
        """The identities in the given rows, which may repeat."""
        return Programs(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def log_uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.exp(uniform(generator, math.log(low), math.log(high), *shape))


def programs(count: int, generator: torch.Generator) -> Programs:
    """Draw `count` identities."""
    g, n = generator, torch.arange(1, LINES + 1).float()
    rows = torch.arange(count)
    stiffness = log_uniform(g, 1e-4, 2e-2, count, 1)
    random_ratios = torch.cumsum(uniform(g, 0.2, 1.6, count, LINES), 1)
    kinds = torch.stack(
        [
            n.expand(count, -1),
            (2 * n - 1).expand(count, -1),
            n * (1 + stiffness * n * n).sqrt(),
            (((2 * n + 1) / 3) ** 2).expand(count, -1),
            random_ratios / random_ratios[:, :1],
        ],
        1,
    )
    kind = torch.multinomial(torch.tensor([0.4, 0.1, 0.1, 0.15, 0.25]), count, True, generator=g)
    ratios = kinds[rows, kind]
    base = log_uniform(g, 60, 1500, count, 1)
    peaks = log_uniform(g, 200, 5000, count, 2, 1)
    hertz = column(base * ratios, 64)[:, None]
    bumps = torch.exp(-0.5 * ((hertz - column(peaks, 64)) / uniform(g, 2, 8, count, 2, 1)) ** 2).amax(1)
    shaped = chance(g, 0.4, count, 1)
    slope = uniform(g, 0, 2.5, count, 1)
    level = torch.where(shaped, 0.05 + bumps, n**-slope) * torch.exp(
        0.8 * torch.randn(count, LINES, generator=g)
    )
    tonal = chance(g, 0.8, count, 1)
    damping = uniform(g, 0, 1.5, count, 1) * chance(g, 0.7, count, 1)
    decay = log_uniform(g, 0.03, 2.0, count, 1) * ratios.clamp(min=1) ** -damping
    repeats = chance(g, 0.4, count)
    bends, shakes = chance(g, 0.4, count), chance(g, 0.3, count)
    speckled = torch.where(tonal[:, 0], chance(g, 0.4, count), torch.ones(count, dtype=torch.bool))
    return Programs(
        base=base[:, 0],
        ratios=ratios,
        power=level.square() * tonal,
        decay=decay,
        sustained=chance(g, 0.45, count),
        attack=log_uniform(g, 0.004, 0.2, count),
        period=torch.where(repeats, log_uniform(g, 0.07, 0.6, count), 50.0),
        bend_rate=log_uniform(g, 0.4, 8, count),
        bend_depth=log_uniform(g, 0.02, 1.0, count) * bends,
        bend_shape=torch.randint(0, 4, (count,), generator=g),
        tremor_rate=log_uniform(g, 2, 20, count),
        tremor_depth=uniform(g, 0.3, 1, count) * shakes,
        speckle=log_uniform(g, 0.01, 3, count) * speckled,
        bands=uniform(g, 0, 64, count, 2),
        band_width=log_uniform(g, 3, 40, count, 2),
        grain=uniform(g, 0.3, 2.0, count),
        grain_size=torch.randint(0, 4, (count,), generator=g),
    )


def bent(program: Programs, time: Tensor, phase: Tensor) -> Tensor:
    """Octaves by which the lines are displaced, (n, side): sine, triangle, saw, or a steady glide."""
    cycle = torch.remainder(time * program.bend_rate[:, None] + phase, 1)
    shapes = torch.stack(
        [torch.sin(2 * math.pi * cycle), 4 * (cycle - 0.5).abs() - 1, 2 * cycle - 1, 2 * time - 1]
    )
    return (
        shapes.gather(0, program.bend_shape[None, :, None].expand(1, *time.shape))[0]
        * program.bend_depth[:, None]
    )


def speckles(program: Programs, generator: torch.Generator, side: int) -> Tensor:
    """Heavy-tailed grains (single, soft, or drawn out across or along the columns) in two soft bands."""
    axis = torch.arange(side).float()
    bands = torch.exp(-0.5 * ((axis - program.bands[..., None]) / program.band_width[..., None]) ** 2).sum(1)
    grains = torch.randn(len(bands), side, side, generator=generator)
    for kind, (down, along) in enumerate([(3, 3), (1, 9), (9, 1)], start=1):
        rows = (program.grain_size == kind).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        pooled = F.avg_pool2d(grains[rows, None], (down, along), 1, (down // 2, along // 2))
        grains[rows] = pooled[:, 0] * 3
    return torch.exp(program.grain[:, None, None] * grains) * (program.speckle[:, None] * bands)[:, None]


def energy(program: Programs, shift: Tensor, start: Tensor, generator: torch.Generator, side: int) -> Tensor:
    """Energy pictures (n, side, side), rows in time: lines splatted on the mel axis plus speckle bands."""
    count = len(shift)
    time = (torch.arange(side) / side).expand(count, -1)
    since = time - start[:, None]
    # Sustained programs fade in at their start unless that lies far outside; struck ones repeat with their period.
    cycle = torch.remainder(since, program.period[:, None])
    begun = torch.where((program.period < 10)[:, None], torch.ones_like(since), (since > 0).float())
    rise = 1 - torch.exp(-cycle.clamp(min=0) / program.attack[:, None])
    phase = torch.rand(count, 1, generator=generator)
    tremor = torch.sin(2 * math.pi * (time * program.tremor_rate[:, None] + phase))
    envelope = begun * rise * (1 - program.tremor_depth[:, None] * (0.5 + 0.5 * tremor)).square()
    fade = torch.exp(-2 * cycle.clamp(min=0)[..., None] / program.decay[:, None])
    fade = torch.where(program.sustained[:, None, None], torch.ones_like(fade), fade)
    octaves = shift[:, None] + bent(program, time, phase)
    frequency = (program.base[:, None] * torch.exp2(octaves))[..., None] * program.ratios[:, None]
    place = column(frequency, side)
    power = program.power[:, None] * fade * envelope[..., None] * (frequency < TOP)
    low = place.clamp(0, side - 2).floor()
    part = (place - low).clamp(0, 1)
    picture = torch.zeros(count, side, side)
    index = low.long()
    picture.scatter_add_(2, index, power * (1 - part))
    picture.scatter_add_(2, index + 1, power * part)
    axis = torch.arange(side).float()
    # Low lines look broad: there the mel columns are narrower than the resolution of a short window.
    width = 0.6 + 0.9 * torch.exp(-axis / 10)
    blur = torch.exp(-0.5 * ((axis - axis[:, None]) / width[:, None]) ** 2)
    picture = picture @ blur
    rows = (program.speckle > 0).nonzero()[:, 0]
    loud = envelope[rows] * torch.where(program.sustained[:, None], 1.0, fade[..., 0])[rows]
    picture[rows] += speckles(program.pick(rows), generator, side) * loud[..., None]
    return picture / picture.amax((1, 2), keepdim=True).clamp(min=1e-6)


def in_decibel_like(picture: Tensor, floor: Tensor) -> Tensor:
    """Logarithm above a floor, standardised per picture."""
    value = torch.log(picture + floor)
    return (value - value.mean((1, 2), keepdim=True)) / value.std((1, 2), keepdim=True).clamp(min=0.2)


class StackPictures:
    """Spectrogram-like pictures; every call draws new identities."""

    def __init__(self, side: int = 64) -> None:
        self.side = side

    def views(self, identities: int, repeats: int, generator: torch.Generator) -> Views:
        """Draw identities and `repeats` views of each; view v of identity i is row v * identities + i."""
        side, total = self.side, identities * repeats
        drawn = programs(identities, generator)
        still, early = torch.zeros(identities), torch.full((identities,), 0.1)
        normal = energy(drawn, still, early, generator, side)
        canonical = F.adaptive_avg_pool2d(in_decibel_like(normal, torch.tensor(1e-3)), CANONICAL)
        every = drawn.pick(torch.arange(identities).repeat(repeats))
        shift = uniform(generator, -0.6, 0.6, total)
        start = torch.where(
            chance(generator, 0.3, total),
            uniform(generator, -0.6, 0.1, total),
            uniform(generator, 0, 0.6, total),
        )
        picture = energy(every, shift, start, generator, side)
        overlaid = chance(generator, 0.4, total).nonzero()[:, 0]
        if len(overlaid):
            others = programs(len(overlaid), generator)
            extra = energy(
                others,
                torch.zeros(len(overlaid)),
                uniform(generator, -0.5, 0.7, len(overlaid)),
                generator,
                side,
            )
            picture[overlaid] += extra * log_uniform(generator, 1e-3, 0.1, len(overlaid), 1, 1)
        floor = log_uniform(generator, 1e-5, 1e-2, total, 1, 1)
        hiss = -torch.log(torch.rand(total, side, side, generator=generator).clamp(min=1e-6))
        tilt = torch.exp(torch.randn(total, 1, 1, generator=generator) * 1.5 * torch.linspace(-1, 1, side))
        value = in_decibel_like(picture + floor * tilt * hiss, floor * 0.05)
        ideal = in_decibel_like(picture + floor * tilt, floor * 0.05)
        gain, level = (
            uniform(generator, 0.3, 0.6, total, 1, 1),
            torch.randn(total, 1, 1, generator=generator) * 0.25,
        )
        turned = chance(generator, 0.15, total)[:, None, None]
        noisy, clean = (
            torch.where(turned, p.transpose(1, 2), p)[:, None].expand(-1, 3, -1, -1) * gain[:, None]
            + level[:, None]
            for p in (value, ideal)
        )
        return Views(noisy, clean, torch.zeros(total, side, side), canonical)
