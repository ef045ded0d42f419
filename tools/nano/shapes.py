"""Procedural objects and backgrounds: the picture families of the nano backbone's pretraining.

An object is a small random program (1 to 6 parts, each a star-shaped outline with an aspect and perhaps a hole,
folded for mirror or radial symmetry). The program is the object's identity; colours, place, size, tilt, light,
background and clutter are redrawn for every view of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ANGLES = 64
TEMPLATE = 48
BACKGROUND = 96
CANONICAL = 16
PARTS = 6


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def chance(generator: torch.Generator, probability: float, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator) < probability


def outlines(count: int, generator: torch.Generator) -> Tensor:
    """Radius over the angle, (count, ANGLES), of random blobs, polygons, stars, superellipses and lobes."""
    theta = torch.arange(ANGLES) * (2 * math.pi / ANGLES)
    orders = torch.arange(2, 8).float()
    amplitude = torch.randn(count, 6, generator=generator) * 0.45 / orders
    phase = uniform(generator, 0, 2 * math.pi, count, 6, 1)
    blob = 1 + (amplitude[..., None] * torch.cos(orders[:, None] * theta + phase)).sum(1)
    corners = torch.randint(3, 9, (count, 1), generator=generator).float()
    sector = torch.remainder(theta, 2 * math.pi / corners)
    polygon = torch.cos(math.pi / corners) / torch.cos(sector - math.pi / corners)
    inner = uniform(generator, 0.3, 0.75, count, 1)
    wave = (sector * corners / math.pi - 1).abs()
    star = inner + (1 - inner) * wave
    power = torch.exp(uniform(generator, math.log(0.7), math.log(8), count, 1))
    superellipse = (theta.cos().abs() ** power + theta.sin().abs() ** power) ** (-1 / power)
    lobes = 1 + uniform(generator, 0.15, 0.6, count, 1) * torch.cos(corners * theta)
    kinds = torch.stack([blob, polygon, star, superellipse, lobes], 1)
    chosen = torch.multinomial(torch.tensor([0.3, 0.2, 0.1, 0.3, 0.1]), count, True, generator=generator)
    radius = kinds[torch.arange(count), chosen].clamp(min=0.08)
    return radius / radius.amax(1, keepdim=True)


def templates(count: int, generator: torch.Generator) -> Tensor:
    """Objects as (count, 2, TEMPLATE, TEMPLATE): coverage, and tone (which of its two colours a pixel has)."""
    axis = torch.linspace(-1, 1, TEMPLATE)
    y, x = (g.expand(count, -1, -1) for g in torch.meshgrid(axis, axis, indexing="ij"))
    symmetry = torch.rand(count, 1, 1, generator=generator)
    folds = torch.randint(3, 9, (count, 1, 1), generator=generator).float()
    angle = torch.remainder(torch.atan2(y, x), 2 * math.pi / folds) - math.pi / folds
    distance = (x * x + y * y).sqrt()
    radial = symmetry > 0.85
    x_folded = torch.where(radial, distance * angle.cos(), torch.where(symmetry < 0.55, x.abs(), x))
    y_folded = torch.where(radial, distance * angle.sin(), y)
    parts = torch.randint(1, PARTS + 1, (count,), generator=generator)
    alpha, tone = torch.zeros(count, TEMPLATE, TEMPLATE), torch.zeros(count, TEMPLATE, TEMPLATE)
    for index in range(PARTS):
        first = index == 0
        spread = 0.15 if first else 0.75
        center = uniform(generator, -spread, spread, 2, count, 1, 1)
        size = (
            uniform(generator, 0.45, 0.9, count, 1, 1) if first else uniform(generator, 0.1, 0.5, count, 1, 1)
        )
        aspect = torch.exp(torch.randn(count, 1, 1, generator=generator) * 0.7).clamp(0.12, 8)
        width, height = size * aspect.sqrt().clamp(max=1.2), size / aspect.sqrt().clamp(min=0.83)
        turn = torch.randn(count, 1, 1, generator=generator) * 0.5
        dx, dy = (x if first else x_folded) - center[0], (y if first else y_folded) - center[1]
        u = (dx * turn.cos() + dy * turn.sin()) / width
        v = (dy * turn.cos() - dx * turn.sin()) / height
        steps = torch.remainder(torch.atan2(v, u) * (ANGLES / (2 * math.pi)), ANGLES)
        low = steps.floor().long() % ANGLES
        radius = outlines(count, generator)
        near = radius.gather(1, low.flatten(1)).view_as(u)
        far = radius.gather(1, ((low + 1) % ANGLES).flatten(1)).view_as(u)
        border = near + (far - near) * (steps - steps.floor())
        reach = (u * u + v * v).sqrt()
        sharp = 30 * torch.minimum(width, height).clamp(min=0.1)
        part = torch.sigmoid((border - reach) * sharp)
        hole = uniform(generator, 0.4, 0.85, count, 1, 1)
        hollow = chance(generator, 0.25, count, 1, 1)
        part = torch.where(hollow, part * torch.sigmoid((reach - hole * border) * sharp), part)
        cuts = (
            chance(generator, 0.15, count, 1, 1) if not first else torch.zeros(count, 1, 1, dtype=torch.bool)
        )
        part = part * (index < parts)[:, None, None]
        alpha = torch.where(cuts, alpha * (1 - part), torch.maximum(alpha, part))
        paint = chance(generator, 0.5, count, 1, 1).float()
        tone = tone + torch.where(cuts, 0, part) * (paint - tone)
    # Some objects are drawn with an outline in their second colour.
    inside = -F.max_pool2d(-alpha[:, None], 5, 1, 2)[:, 0]
    lined = chance(generator, 0.4, count, 1, 1)
    tone = torch.where(lined, 1 - (1 - tone * 0.5) * inside, tone)
    return torch.stack([alpha, tone], 1)


def backgrounds(count: int, generator: torch.Generator) -> Tensor:
    """Grey textures in [0, 1], (count, BACKGROUND, BACKGROUND): noises, gratings, checks, dots, tiles, slopes."""
    side = BACKGROUND
    frequency = torch.fft.fftfreq(side)
    radius = (frequency[:, None] ** 2 + frequency[None] ** 2).sqrt().clamp(min=1 / side)
    power = uniform(generator, 0.3, 2.2, count, 1, 1)
    spectrum = torch.fft.fft2(torch.randn(count, side, side, generator=generator)) * radius**-power
    noise = torch.fft.ifft2(spectrum).real
    noise = torch.sigmoid(1.5 * noise / noise.std((1, 2), keepdim=True))
    axis = torch.arange(side).float()
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    turn = uniform(generator, 0, math.pi, count, 1, 1)
    cycles = torch.exp(uniform(generator, math.log(1), math.log(16), count, 1, 1)) * 2 * math.pi / side
    along, across = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    hard = torch.exp(uniform(generator, 0, 2.5, count, 1, 1))
    grating = torch.sigmoid(hard * torch.sin(along * cycles))
    checks = torch.sigmoid(hard * 2 * torch.sin(along * cycles) * torch.sin(across * cycles))
    dots = torch.sigmoid(hard * 2 * (torch.sin(along * cycles) * torch.sin(across * cycles) - 0.5))
    slope = torch.sigmoid((along - side / 2 * (turn.cos() + turn.sin())) * 4 / side)
    coarse = torch.rand(count, 1, 12, 12, generator=generator)
    tiles = F.interpolate(coarse, scale_factor=side // 12, mode="nearest")[:, 0]
    kinds = torch.stack([noise, grating, checks, dots, slope, tiles, noise], 1)
    rows = torch.arange(count)
    first = kinds[rows, torch.randint(0, 7, (count,), generator=generator)]
    second = kinds[rows, torch.randint(0, 7, (count,), generator=generator)]
    mix = uniform(generator, 0, 0.5, count, 1, 1) * chance(generator, 0.5, count, 1, 1)
    return first + (second - first) * mix


@dataclass
class Views:
    """Views of a batch of identities, all float32.

    Attributes:
        noisy: What the network sees, (n, 3, 64, 64), about [-1, 1].
        clean: The same without noise and blur.
        mask: Coverage of what carries the identity, (n, 64, 64) in [0, 1].
        canonical: The identity in its normal pose, (n, CANONICAL, CANONICAL), shared by views of one identity.
    """

    noisy: Tensor
    clean: Tensor
    mask: Tensor
    canonical: Tensor


def place(layer: Tensor, size: Tensor, generator: torch.Generator, side: int) -> Tensor:
    """Render templates (n, 2, TEMPLATE, TEMPLATE) into (n, 2, side, side) at half-width `size` of the image."""
    count = len(layer)
    if count == 0:
        return torch.zeros(0, 2, side, side)
    turn = torch.randn(count, generator=generator) * 0.2
    stretch = torch.exp(torch.randn(count, generator=generator) * 0.1)
    room = (1.1 - size).clamp(min=0.1)
    center = uniform(generator, -1, 1, count, 2) * room[:, None]
    cosine, sine = turn.cos() / size, turn.sin() / size
    matrix = torch.empty(count, 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 1] = cosine * stretch, sine * stretch
    matrix[:, 1, 0], matrix[:, 1, 1] = -sine / stretch, cosine / stretch
    matrix[:, :, 2] = -(matrix[:, :, :2] @ center[..., None])[..., 0]
    # Small objects are drawn from a coarser template: sampling the fine one would alias.
    coarse = F.interpolate(F.avg_pool2d(layer, 2), scale_factor=2, mode="bilinear", align_corners=False)
    layer = torch.where((size < 0.45)[:, None, None, None], coarse, layer)
    grid = F.affine_grid(matrix, [count, 2, side, side], align_corners=False)
    return F.grid_sample(layer, grid, align_corners=False)


def paint(image: Tensor, layer: Tensor, generator: torch.Generator, contrast: float) -> Tensor:
    """Put a layer (coverage, tone) over images in two random colours that differ from what lies behind."""
    count = len(image)
    behind = image.mean((2, 3))
    colours = []
    for _ in range(2):
        shift = torch.randn(count, 3, generator=generator)
        shift = shift / shift.norm(dim=1, keepdim=True) * uniform(generator, contrast, 1.0, count, 1)
        # Towards the far side of the range, so that clamping does not take the contrast away again.
        shift = torch.where((behind + shift - 0.5).abs() > 0.5, -shift, shift)
        colours.append((behind + shift).clamp(0, 1))
    first, second = (c[:, :, None, None] for c in colours)
    coverage, tone = layer[:, :1], layer[:, 1:]
    return image + coverage * (first + (second - first) * tone - image)


class ObjectPictures:
    """Pictures of procedural objects in clutter; identities come from a bank that is redrawn now and then."""

    def __init__(self, seed: int, size: int = 8192, side: int = 64, difficulty: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        chunks = [templates(512, generator) for _ in range(size // 512)]
        self.bank = torch.cat(chunks).mul(255).byte()
        self.textures = (
            torch.cat([backgrounds(128, generator) for _ in range(max(1, size // 1024))]).mul(255).byte()
        )
        self.side = side
        self.difficulty = difficulty

    def take(self, indices: Tensor) -> Tensor:
        """Templates (n, 2, TEMPLATE, TEMPLATE) in [0, 1] by index."""
        return self.bank[indices].float() / 255

    def background(self, count: int, generator: torch.Generator) -> Tensor:
        """Cut-outs of the textures between two random colours, (count, 3, side, side) in [0, 1]."""
        side, room = self.side, BACKGROUND - self.side
        chosen = torch.randint(0, len(self.textures), (count,), generator=generator)
        corner = torch.randint(0, room + 1, (count, 2), generator=generator)
        rows = corner[:, :1] + torch.arange(side)
        columns = corner[:, 1:] + torch.arange(side)
        columns = torch.where(chance(generator, 0.5, count, 1), columns.flip(1), columns)
        texture = self.textures[chosen[:, None, None], rows[:, :, None], columns[:, None, :]].float() / 255
        first = torch.rand(count, 3, 1, 1, generator=generator)
        strength = uniform(generator, 0, 0.8, count, 1, 1, 1)
        second = first + (torch.rand(count, 3, 1, 1, generator=generator) - first) * strength
        return first + (second - first) * texture[:, None]

    def views(self, identities: int, repeats: int, generator: torch.Generator) -> Views:
        """Draw identities and `repeats` views of each; view v of identity i is row v * identities + i."""
        side, total = self.side, identities * repeats
        main = torch.randint(0, len(self.bank), (identities,), generator=generator)
        other = torch.randint(0, len(self.bank), (identities,), generator=generator)
        pair = chance(generator, 0.25 * self.difficulty, identities)
        canonical = F.adaptive_avg_pool2d(self.take(main)[:, 0], CANONICAL)
        canonical = canonical + pair[:, None, None] * F.adaptive_avg_pool2d(self.take(other)[:, 0], CANONICAL)
        image = self.background(total, generator)
        smallest = 0.28 + 0.17 * (1 - self.difficulty)
        size = torch.exp(uniform(generator, math.log(smallest), math.log(1.0), total))
        for probability in (0.5, 0.3):
            rows = chance(generator, probability * self.difficulty, total).nonzero()[:, 0]
            clutter = torch.randint(0, len(self.bank), (len(rows),), generator=generator)
            drawn = place(self.take(clutter), size[rows] * 0.6, generator, side)
            image[rows] = paint(image[rows], drawn, generator, 0.1)
        contrast = 0.3 + 0.3 * (1 - self.difficulty)
        mask = torch.zeros(total, side, side)
        rows = pair.repeat(repeats).nonzero()[:, 0]
        drawn = place(self.take(other.repeat(repeats)[rows]), size[rows], generator, side)
        image[rows] = paint(image[rows], drawn, generator, contrast)
        mask[rows] = drawn[:, 0]
        drawn = place(self.take(main.repeat(repeats)), size, generator, side)
        image = paint(image, drawn, generator, contrast)
        mask = torch.maximum(mask, drawn[:, 0])
        clean = self.light(image, generator)
        return Views(degrade(clean, generator, 0.12 * self.difficulty), clean, mask, canonical)

    def light(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """A brightness slope over the picture, its contrast and level; from [0, 1] to about [-1, 1]."""
        axis = torch.linspace(-1, 1, self.side)
        slope = torch.randn(len(image), 2, generator=generator) * 0.15
        field = 1 + slope[:, :1, None] * axis[:, None] + slope[:, 1:, None] * axis
        gain = uniform(generator, 0.7, 1.2, len(image), 1, 1, 1)
        return (
            (image * field[:, None] - 0.5) * (2 * gain) + uniform(generator, -0.15, 0.15, len(image), 1, 1, 1)
        ).clamp(-1, 1)


def degrade(clean: Tensor, generator: torch.Generator, loudest: float) -> Tensor:
    """Blur a fifth of the pictures a little, and add noise of a standard deviation up to `loudest` to all."""
    noisy = clean.clone()
    rows = chance(generator, 0.2, len(clean)).nonzero()[:, 0]
    noisy[rows] = F.avg_pool2d(clean[rows], 3, 1, 1, count_include_pad=False)
    level = uniform(generator, 0, loudest, len(clean), 1, 1, 1)
    return noisy + level * torch.randn(clean.shape, generator=generator)
