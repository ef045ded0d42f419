"""The instruments as vector drawings, and the stage behind them.

Every instrument is drawn in a square from (-1, -1) at the top left to (1, 1) at the bottom right, in two
poses: at rest and struck (or blown, or singing). Shape alone tells the classes apart: body, detail and outline
colours come from the look, which is drawn from one distribution for all.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from avtune.datasets.bandstand.scene import Look

Colour = tuple[int, int, int, int]
Point = tuple[float, float]

_OVERSAMPLING = 3
_RIM = 0.02
_RIM_COLOUR = (245, 245, 245)


@dataclass(frozen=True)
class Palette:
    """Colours of one drawing, RGBA in 0..255."""

    body: Colour
    detail: Colour
    outline: Colour


class Pen:
    """Draws in unit coordinates on a transparent canvas.

    Args:
        side: Side of the canvas, pixels.
        palette: Colours.
    """

    def __init__(self, side: int, palette: Palette) -> None:
        self.image = Image.new("RGBA", (side, side), (*palette.outline[:3], 0))
        self._draw = ImageDraw.Draw(self.image)
        self._half = side / 2
        self._width = max(1, round(side * 0.03))
        self.palette = palette

    def _at(self, point: Point) -> Point:
        return self._half * (1 + 0.94 * point[0]), self._half * (1 + 0.94 * point[1])

    def polygon(self, points: list[Point], fill: Colour) -> None:
        """A closed outlined polygon."""
        corners = [self._at(point) for point in points]
        self._draw.polygon(corners, fill=fill)
        self._draw.line([*corners, corners[0], corners[1]], self.palette.outline, self._width, joint="curve")

    def ellipse(self, centre: Point, radius_x: float, radius_y: float, fill: Colour | None) -> None:
        """An outlined ellipse; without ``fill`` a ring."""
        left, top = self._at((centre[0] - radius_x, centre[1] - radius_y))
        right, bottom = self._at((centre[0] + radius_x, centre[1] + radius_y))
        self._draw.ellipse((left, top, right, bottom), fill, self.palette.outline, self._width)

    def disc(self, centre: Point, radius: float, fill: Colour) -> None:
        """A disc without outline."""
        left, top = self._at((centre[0] - radius, centre[1] - radius))
        right, bottom = self._at((centre[0] + radius, centre[1] + radius))
        self._draw.ellipse((left, top, right, bottom), fill)

    def line(self, points: list[Point], colour: Colour, thickness: float) -> None:
        """An open line with round ends; ``thickness`` in unit coordinates."""
        width = max(1, round(thickness * self._half))
        path = [self._at(point) for point in points]
        self._draw.line(path, colour, width, joint="curve")
        for x, y in (path[0], path[-1]):
            self._draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), colour)

    def bar(self, points: list[Point], colour: Colour, thickness: float) -> None:
        """A line with an outline around it."""
        self.line(points, self.palette.outline, thickness + 2 * self._width / self._half)
        self.line(points, colour, thickness)

    def arc(self, centre: Point, radius: float, start: float, end: float, thickness: float) -> None:
        """Part of a circle in the outline's colour, angles in degrees clockwise from the right."""
        left, top = self._at((centre[0] - radius, centre[1] - radius))
        right, bottom = self._at((centre[0] + radius, centre[1] + radius))
        width = max(1, round(thickness * self._half))
        self._draw.arc((left, top, right, bottom), start, end, self.palette.outline, width)


def _bell(pen: Pen, struck: bool) -> None:
    swing = 0.34 if struck else 0.0
    pen.bar([(0, 0.45), (swing, 0.88)], pen.palette.detail, 0.1)
    pen.ellipse((swing, 0.84), 0.15, 0.15, pen.palette.detail)
    pen.ellipse((0, -0.84), 0.15, 0.13, None)
    right = [(0.2, -0.72), (0.4, -0.5), (0.46, -0.1), (0.54, 0.22), (0.72, 0.46), (0.9, 0.6)]
    left = [(-x, y) for x, y in reversed(right)]
    pen.polygon([*right, *left], pen.palette.body)
    pen.line([(-0.7, 0.44), (0.7, 0.44)], pen.palette.detail, 0.1)


def _bird(pen: Pen, struck: bool) -> None:
    pen.bar([(-0.05, 0.5), (-0.1, 0.92)], pen.palette.detail, 0.06)
    pen.bar([(0.15, 0.5), (0.15, 0.92)], pen.palette.detail, 0.06)
    pen.polygon([(-0.45, 0.05), (-1.0, -0.32), (-0.95, 0.1), (-0.5, 0.38)], pen.palette.body)
    pen.ellipse((-0.02, 0.18), 0.6, 0.42, pen.palette.body)
    pen.ellipse((0.48, -0.3), 0.32, 0.32, pen.palette.body)
    if struck:
        pen.polygon([(0.76, -0.42), (1.0, -0.56), (0.79, -0.28)], pen.palette.detail)
        pen.polygon([(0.79, -0.28), (1.0, -0.06), (0.74, -0.16)], pen.palette.detail)
        pen.polygon([(0.2, 0.15), (-0.3, 0.2), (-0.5, -0.85)], pen.palette.detail)
    else:
        pen.polygon([(0.76, -0.42), (1.0, -0.24), (0.74, -0.16)], pen.palette.detail)
        pen.polygon([(0.2, 0.05), (-0.25, -0.02), (-0.55, 0.42), (0.0, 0.38)], pen.palette.detail)
    pen.disc((0.54, -0.38), 0.09, pen.palette.outline)


def _car(pen: Pen, struck: bool) -> None:
    lift = -0.1 if struck else 0.0
    if struck:
        for x, y, radius in ((-0.9, 0.62, 0.09), (-0.98, 0.42, 0.07), (-0.88, 0.28, 0.06)):
            pen.disc((x, y), radius, pen.palette.detail)
    pen.polygon(
        [(-0.5, -0.1 + lift), (-0.34, -0.58 + lift), (0.3, -0.58 + lift), (0.58, -0.1 + lift)],
        pen.palette.detail,
    )
    pen.line([(-0.02, -0.56 + lift), (-0.02, -0.1 + lift)], pen.palette.outline, 0.06)
    body = [(-0.96, 0.46), (-0.96, -0.06), (-0.5, -0.12), (0.6, -0.12), (0.94, 0.04), (1.0, 0.46)]
    pen.polygon([(x, y + lift) for x, y in body], pen.palette.body)
    for x in (-0.52, 0.54):
        pen.ellipse((x, 0.5), 0.27, 0.27, pen.palette.outline)
        pen.disc((x, 0.5), 0.12, pen.palette.detail)


def _drum(pen: Pen, struck: bool) -> None:
    pen.ellipse((0, 0.66), 0.72, 0.24, pen.palette.body)
    pen.polygon([(-0.72, -0.05), (0.72, -0.05), (0.72, 0.66), (-0.72, 0.66)], pen.palette.body)
    pen.ellipse((0, 0.68), 0.7, 0.22, pen.palette.body)
    zigzag = [(-0.72 + 0.24 * i, 0.1 if i % 2 == 0 else 0.76) for i in range(7)]
    pen.line(zigzag, pen.palette.outline, 0.07)
    pen.ellipse((0, -0.05), 0.72, 0.24, pen.palette.detail)
    tip = -0.06 if struck else -0.42
    for side in (-1, 1):
        pen.bar([(side * 0.95, -0.92), (side * 0.24, tip)], pen.palette.body, 0.07)
        pen.disc((side * 0.24, tip), 0.1, pen.palette.outline)


def _guitar(pen: Pen, struck: bool) -> None:
    pen.bar([(0, 0.1), (0, -0.8)], pen.palette.detail, 0.17)
    pen.polygon([(-0.18, -0.98), (0.18, -0.98), (0.13, -0.7), (-0.13, -0.7)], pen.palette.detail)
    pen.ellipse((0, 0.52), 0.64, 0.46, pen.palette.body)
    pen.ellipse((0, 0.0), 0.46, 0.34, pen.palette.body)
    pen.disc((0, 0.42), 0.42, pen.palette.body)
    pen.disc((0, 0.06), 0.3, pen.palette.body)
    pen.disc((0, 0.26), 0.19, pen.palette.outline)
    pen.line([(-0.2, 0.72), (0.2, 0.72)], pen.palette.outline, 0.08)
    bend = 0.1 if struck else 0.0
    for side in (-0.06, 0.06):
        pen.line([(side, -0.75), (side + bend, 0.1), (side, 0.7)], pen.palette.outline, 0.025)
    if struck:
        for radius in (0.78, 0.94):
            pen.arc((0, 0.4), radius, -25, 25, 0.06)
            pen.arc((0, 0.4), radius, 155, 205, 0.06)


def _horn(pen: Pen, struck: bool) -> None:
    pen.ellipse((-0.3, 0.16), 0.42, 0.34, None)
    pen.ellipse((-0.3, 0.16), 0.37, 0.29, None)
    for x in (-0.5, -0.3, -0.1):
        top = -0.34 if struck else -0.5
        pen.bar([(x, top), (x, 0.3)], pen.palette.detail, 0.1)
    flare = [(-0.96, -0.12), (0.2, -0.14), (0.5, -0.26), (0.7, -0.5), (0.84, -0.66)]
    pen.polygon([*flare, *[(x, -0.16 - y) for x, y in reversed(flare)]], pen.palette.body)
    pen.ellipse((0.84, -0.08), 0.14, 0.58, pen.palette.detail)
    pen.ellipse((-0.94, -0.08), 0.07, 0.15, pen.palette.detail)
    if struck:
        pen.arc((0.5, -0.08), 0.56, -38, 38, 0.06)


def _rain(pen: Pen, struck: bool) -> None:
    lobes = [
        (-0.52, -0.22, 0.36),
        (-0.14, -0.48, 0.42),
        (0.34, -0.36, 0.38),
        (0.62, -0.1, 0.3),
        (-0.1, -0.1, 0.36),
    ]
    for x, y, radius in lobes:
        pen.ellipse((x, y), radius, radius, pen.palette.body)
    for x, y, radius in lobes:
        pen.disc((x, y), radius - 0.05, pen.palette.body)
    fall = 0.2 if struck else 0.0
    for x, y in ((-0.6, 0.36), (-0.2, 0.5), (0.2, 0.36), (0.6, 0.5)):
        top = y + fall
        pen.polygon(
            [(x, top - 0.14), (x + 0.1, top + 0.1), (x, top + 0.26), (x - 0.1, top + 0.1)], pen.palette.detail
        )


def _siren(pen: Pen, struck: bool) -> None:
    inner, outer = (0.66, 1.0) if struck else (0.66, 0.84)
    for angle in (-150, -120, -90, -60, -30):
        x, y = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        pen.bar(
            [(inner * x, 0.2 + inner * y * 1.1), (outer * x, 0.2 + outer * y * 1.1)], pen.palette.detail, 0.11
        )
    dome = [(0.48 * math.cos(a), 0.26 - 0.62 * math.sin(a)) for a in np.linspace(0, math.pi, 17)]
    pen.polygon(dome, pen.palette.body)
    pen.ellipse((0, 0.02), 0.17, 0.2, pen.palette.detail if struck else pen.palette.outline)
    pen.polygon([(-0.66, 0.28), (0.66, 0.28), (0.66, 0.56), (-0.66, 0.56)], pen.palette.detail)
    pen.polygon([(-0.9, 0.56), (0.9, 0.56), (0.9, 0.84), (-0.9, 0.84)], pen.palette.body)


def _voice(pen: Pen, struck: bool) -> None:
    for side in (-1, 1):
        pen.ellipse((side * 0.78, 0.06), 0.15, 0.2, pen.palette.body)
    pen.ellipse((0, 0.04), 0.78, 0.9, pen.palette.body)
    hair = [(0.8 * math.cos(a), -0.08 - 0.86 * math.sin(a)) for a in np.linspace(0.1, math.pi - 0.1, 15)]
    pen.polygon([*hair, (-0.4, -0.42), (0.0, -0.28), (0.45, -0.45)], pen.palette.detail)
    for side in (-1, 1):
        pen.disc((side * 0.3, -0.06), 0.12, pen.palette.outline)
    if struck:
        pen.ellipse((0, 0.5), 0.26, 0.3, pen.palette.outline)
        pen.disc((0, 0.62), 0.12, pen.palette.detail)
    else:
        pen.ellipse((0, 0.48), 0.28, 0.09, pen.palette.outline)


def _xylophone(pen: Pen, struck: bool) -> None:
    pen.bar([(-0.92, -0.26), (0.92, -0.02)], pen.palette.outline, 0.07)
    pen.bar([(-0.92, 0.62), (0.92, 0.34)], pen.palette.outline, 0.07)
    for i in range(6):
        x = -0.8 + 0.32 * i
        half = 0.66 - 0.075 * i
        fill = pen.palette.body if i % 2 == 0 else pen.palette.detail
        pen.polygon(
            [
                (x - 0.12, 0.18 - half),
                (x + 0.12, 0.18 - half),
                (x + 0.12, 0.18 + half),
                (x - 0.12, 0.18 + half),
            ],
            fill,
        )
    head = (0.1, 0.1) if struck else (0.3, -0.55)
    pen.bar([(0.9, -0.92), head], pen.palette.detail, 0.06)
    pen.ellipse(head, 0.13, 0.13, pen.palette.body)


_DRAWINGS: dict[str, Callable[[Pen, bool], None]] = {
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


def _rgba(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue, 255


def palette(look: Look) -> Palette:
    """Colours of an instrument."""
    return Palette(
        body=_rgba(look.hue, look.saturation, look.value),
        detail=_rgba(look.accent, 0.5, 1.0 if look.value < 0.75 else 0.6),
        outline=(20, 20, 20, 255),
    )


def sprites(
    label: str, look: Look, struck: bool, side: int, rotations: Sequence[float]
) -> list[NDArray[np.uint8]]:
    """One pose of an instrument, turned in several ways, each on a transparent square like a sticker.

    A white rim keeps an instrument distinct from any stage without making its colours depend on the stage.

    Args:
        label: Class.
        look: Colours, mirroring and size.
        struck: Pose.
        side: Side of the whole picture, pixels.
        rotations: Degrees, counter-clockwise.

    Returns:
        For each rotation RGBA (height, width, 4) with straight alpha; the drawing's centre is in the middle.
    """
    drawing = max(8, round(look.size * side))
    pen = Pen(drawing * _OVERSAMPLING, palette(look))
    _DRAWINGS[label](pen, struck)
    image = pen.image
    if look.mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return [_sticker(image, rotation) for rotation in rotations]


def _sticker(drawn: Image.Image, rotation: float) -> NDArray[np.uint8]:
    """A drawing turned, reduced to its size in the picture, and given its rim."""
    image = drawn.rotate(rotation, Image.Resampling.BILINEAR, expand=True, fillcolor=(0, 0, 0, 0))
    width, height = (max(2, round(length / _OVERSAMPLING)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BOX)
    rim = image.getchannel("A").filter(ImageFilter.GaussianBlur(drawn.width / _OVERSAMPLING * _RIM))
    card = Image.new("RGBA", image.size, (*_RIM_COLOUR, 0))
    card.putalpha(rim.point(lambda alpha: min(255, alpha * 5)))
    return np.asarray(Image.alpha_composite(card, image))


def stage(rng: np.random.Generator, side: int, clutter: int) -> NDArray[np.uint8]:
    """An empty stage: two colours running into each other, blotches, and shapes that mean nothing.

    Args:
        rng: Source of chance.
        side: Side of the picture, pixels.
        clutter: Largest number of shapes.

    Returns:
        RGB (side, side, 3).
    """
    brightness = rng.uniform(0.2, 0.85)
    ends = [
        _rgba(rng.random(), rng.uniform(0.05, 0.4), np.clip(brightness + rng.normal(0, 0.1), 0.1, 0.95))
        for _ in "ab"
    ]
    angle = rng.uniform(0, 2 * math.pi)
    axis = np.linspace(-0.5, 0.5, side)
    ramp = np.clip(0.5 + math.cos(angle) * axis[None, :] + math.sin(angle) * axis[:, None], 0, 1)[..., None]
    colours = np.array(ends, dtype=np.float64)[:, :3]
    picture = colours[0] * (1 - ramp) + colours[1] * ramp
    cells = int(rng.integers(4, 13))
    blotches = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    texture = np.asarray(blotches.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64)
    picture += (texture[..., None] - 127.5) * rng.uniform(0.03, 0.2)
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    painter = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(clutter + 1))):
        _scrap(painter, rng, side)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(side / 200)))


def _scrap(painter: ImageDraw.ImageDraw, rng: np.random.Generator, side: int) -> None:
    """One meaningless shape, half transparent."""
    x, y = rng.uniform(0, side, 2)
    reach = side * rng.uniform(0.03, 0.1)
    red, green, blue, _ = _rgba(rng.random(), rng.uniform(0.1, 0.7), rng.uniform(0.2, 1.0))
    fill = (red, green, blue, int(rng.integers(70, 170)))
    kind = int(rng.integers(4))
    if kind == 0:
        painter.ellipse((x - reach, y - reach * 0.8, x + reach, y + reach * 0.8), fill)
    elif kind == 1:
        dx, dy = rng.uniform(-3, 3, 2) * reach
        painter.line((x, y, x + dx, y + dy), fill, max(1, round(side * rng.uniform(0.01, 0.03))))
    else:
        corners = 3 if kind == 2 else 4
        turn = rng.uniform(0, 2 * math.pi)
        angles = [turn + 2 * math.pi * i / corners for i in range(corners)]
        painter.polygon([(x + reach * math.cos(a), y + reach * math.sin(a)) for a in angles], fill)
