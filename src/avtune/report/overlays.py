"""Pictures of what sounds: the sounding pixels of a frame lit and outlined, all others dimmed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from avtune.report import palette
from avtune.tasks import MaskPrediction

Picture = npt.NDArray[np.uint8]
Regions = npt.NDArray[np.uint8]

BRIGHTNESS_OUTSIDE = 0.45
COLOUR_OUTSIDE = 0.35
TINT = 0.22
OUTLINE_SHARE = 160
"""A frame whose short side has this many pixels gets an outline of one."""
CELL_SIDE, CAPTION_HEIGHT, GAP = 180, 22, 6
CELLS_IN_A_ROW = 5


def predicted_regions(prediction: MaskPrediction, segment: int, size: tuple[int, int]) -> Regions:
    """What each pixel of a frame is predicted to be, its mask brought to the frame's size with smooth edges.

    Args:
        prediction: The answer.
        segment: Which of its segments.
        size: Width and height of the frame.

    Returns:
        (height, width): 0 silent, otherwise the class, or 1 where there are none.
    """
    if prediction.classes is not None:
        return class_regions(prediction.classes[segment], size)
    return (_stretched(prediction.probabilities[segment], size) > 0.5).astype(np.uint8)


def class_regions(mask: Regions, size: tuple[int, int]) -> Regions:
    """A mask of class indices brought to a frame's size: each pixel gets the class that is strongest around it.

    Args:
        mask: (side, side) class indices.
        size: Width and height of the frame.
    """
    present = np.unique(mask)
    strengths = np.stack([_stretched((mask == k).astype(np.float32), size) for k in present])
    regions: Regions = present[strengths.argmax(axis=0)]
    return regions


def lit(frame: Picture, regions: Regions, *, tinted: bool) -> Picture:
    """A frame whose sounding pixels keep their colours while the others fade.

    Args:
        frame: RGB (height, width, 3).
        regions: (height, width), 0 where nothing sounds.
        tinted: Give each class its colour; otherwise there is one outline for all.

    Returns:
        RGB of the same size.
    """
    picture = frame.astype(np.float32)
    grey = picture @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    faded = BRIGHTNESS_OUTSIDE * (COLOUR_OUTSIDE * picture + (1 - COLOUR_OUTSIDE) * grey[..., None])
    colours = np.array([region_colour(k) for k in range(int(regions.max()) + 1)], dtype=np.float32)[regions]
    inside = (1 - TINT) * picture + TINT * colours if tinted else picture
    shown = np.where((regions > 0)[..., None], inside, faded)
    edge = _edges(regions, max(1, round(min(regions.shape) / OUTLINE_SHARE)))
    shown[edge] = colours[edge]
    return shown.round().clip(0, 255).astype(np.uint8)


def region_colour(index: int) -> tuple[int, int, int]:
    """RGB of a class index, and of 1 where there are no classes; 0 is silent and shown by none."""
    # Yellow first: it stands out from dimmed pictures of any colour.
    colour = palette.DARK[index % len(palette.DARK)].removeprefix("#")
    red, green, blue = bytes.fromhex(colour)
    return red, green, blue


def strip(pictures: Sequence[Picture], captions: Sequence[str]) -> Image.Image:
    """Pictures side by side, in rows, each with a line of text below it.

    Args:
        pictures: RGB (height, width, 3), all of one size, at least one.
        captions: One for each.
    """
    height, width = pictures[0].shape[:2]
    scale = CELL_SIDE / min(height, width)
    cell = round(width * scale), round(height * scale)
    columns = min(CELLS_IN_A_ROW, len(pictures))
    rows = -(-len(pictures) // columns)
    step = cell[0] + GAP, cell[1] + CAPTION_HEIGHT + GAP
    sheet = Image.new("RGB", (columns * step[0] + GAP, rows * step[1] + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for k, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = GAP + k % columns * step[0], GAP + k // columns * step[1]
        sheet.paste(Image.fromarray(picture).resize(cell, Image.Resampling.LANCZOS), (left, top))
        draw.text((left + 2, top + cell[1] + 2), caption, fill=palette.INK_DARK, font=font)
    return sheet


def _stretched(values: npt.NDArray[np.floating], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    picture = Image.fromarray(np.asarray(values, dtype=np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.float32)


def _edges(regions: Regions, width: int) -> npt.NDArray[np.bool_]:
    """Pixels of a region with another region within ``width`` pixels beside, above or below them."""
    edge = np.zeros(regions.shape, dtype=bool)
    for distance in range(1, width + 1):
        for axis in (0, 1):
            near = np.take(regions, range(distance, regions.shape[axis]), axis)
            far = np.take(regions, range(regions.shape[axis] - distance), axis)
            differs = near != far
            first = tuple(slice(None, -distance) if k == axis else slice(None) for k in (0, 1))
            second = tuple(slice(distance, None) if k == axis else slice(None) for k in (0, 1))
            edge[first] |= differs
            edge[second] |= differs
    return edge & (regions > 0)
