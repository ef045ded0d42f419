"""Masks: which pixels of each segment's frame sound, read from pictures into one tensor.

A mask may have any resolution but not another shape than the frame it was drawn over: it is brought to the model's by
the nearest pixel, which never makes a value that was not there.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from avtune.datasets.records import ClipSource, DatasetError, FrameFolder, MaskFiles, Record
from avtune.media import FilePart, MediaError, probe

UNLABELLED = 255
"""Value of a pixel of which nothing is told; never that of a class."""

DAY_SECONDS = 86_400
"""Last second that can have a mask."""

SMALLEST = 8
"""Least side of a mask, pixels: of a smaller one, rounding hides what shape it has."""

Size = tuple[int, int]
"""Width and height, pixels."""


def voc_palette(classes: int) -> tuple[tuple[int, int, int], ...]:
    """The colours of PASCAL VOC, by which AVSBench draws its classes.

    The bits of a class index are dealt out to red, green and blue in turn, each channel filled from its highest bit.

    Args:
        classes: Number of colours, from 0 (black) on.

    Returns:
        RGB in 0 to 255 for each class.
    """

    def channel(index: int, first: int) -> int:
        return sum((index >> (3 * step + first) & 1) << (7 - step) for step in range(8))

    return tuple((channel(k, 0), channel(k, 1), channel(k, 2)) for k in range(classes))


def mask_folder(folder: Path) -> MaskFiles | None:
    """The masks of a clip in a folder of its own: ``0.png`` for the first second, ``1.png`` for the next.

    Args:
        folder: It need not exist.

    Returns:
        The masks, a second without a file not labelled; ``None`` where there is no mask at all.

    Raises:
        DatasetError: A file is not named by its second, or by one beyond a day.
    """
    files: dict[int, Path] = {}
    for path in folder.glob("*.png"):
        if not (path.stem.isdecimal() and str(int(path.stem)) == path.stem and int(path.stem) <= DAY_SECONDS):
            raise DatasetError(
                f"{path} is not named by its second; masks are 0.png for the first second, 1.png for the next, up to "
                f"{DAY_SECONDS}.png"
            )
        files[int(path.stem)] = path
    return MaskFiles(tuple(files.get(second) for second in range(max(files) + 1))) if files else None


def load_masks(record: Record, segments: int, size: int) -> Tensor:
    """Read the masks of a clip's seconds.

    Where ``record.masks.classes`` is empty every pixel that is not black sounds; of a picture whose palette begins with
    black every index above 0 does, however dark its colour, since MS3's masks hold the index 1. Otherwise a pixel has
    the class of its colour, and one of a colour that is no class's is not labelled. A transparent pixel is silent.

    Args:
        record: The clip; ``start`` is a whole second.
        segments: Seconds from its start on, T; beyond the masks' end nothing is labelled.
        size: Side of the square that masks are brought to, pixels.

    Returns:
        (T, size, size) uint8: class indices (0: silent, 1: sounding), or ``UNLABELLED``.

    Raises:
        DatasetError: The clip has no masks, or one of them is missing, damaged, or not of its frame's shape.
    """
    masks = record.masks
    if masks is None:
        raise DatasetError(
            f"{record.name} has no masks; put them into masks/<name of the clip>/<second>.png below the root"
        )
    target = torch.full((segments, size, size), UNLABELLED, dtype=torch.uint8)
    first = round(record.start)
    for place, path in enumerate(masks.files[first : first + segments]):
        if path is not None:
            frame = None if masks.squeezed else _frame_size(record.source)
            target[place] = torch.from_numpy(_read_mask(path, masks, size, frame))
    return target


def _read_mask(path: Path, masks: MaskFiles, size: int, frame: Size | None) -> npt.NDArray[np.uint8]:
    if not path.is_file():
        raise DatasetError(f"{path} is not there; restore the mask, or leave the clip out")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as picture:
                picture.load()
                labels = _classes(picture, masks.classes) if masks.classes else _sounding(picture)
                if picture.mode in ("LA", "RGBA") or "transparency" in picture.info:
                    labels[np.asarray(picture.convert("RGBA"))[..., 3] == 0] = 0
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DatasetError(f"{path} is no PNG that can be decoded; restore the mask") from None
    height, width = labels.shape
    if frame is not None and not _same_shape((width, height), frame):
        raise DatasetError(
            f"{path} is {width}x{height}, its frame {frame[0]}x{frame[1]}; draw masks over whole frames, of any "
            f"resolution of {SMALLEST} pixels a side or more"
        )
    if (width, height) == (size, size):
        return labels
    return np.array(Image.fromarray(labels).resize((size, size), Image.Resampling.NEAREST))


def _same_shape(mask: Size, frame: Size) -> bool:
    """Whether a mask has the shape of a frame, to within a pixel, by which another resolution was rounded."""
    return abs(mask[0] * frame[1] - mask[1] * frame[0]) <= max(frame) and min(mask) >= SMALLEST


def _sounding(picture: Image.Image) -> npt.NDArray[np.uint8]:
    # Which colours a palette holds is up to the program that wrote it: where black is not the first, colours count.
    coloured = picture.mode == "P" and any((picture.getpalette() or [])[:3])
    lit = np.asarray(picture.convert("RGB") if coloured or picture.mode in ("RGBA", "LA") else picture) > 0
    return np.asarray(lit if lit.ndim == 2 else lit.any(axis=2), dtype=np.uint8)


def _classes(picture: Image.Image, classes: tuple[tuple[int, int, int], ...]) -> npt.NDArray[np.uint8]:
    place = np.array([1 << 16, 1 << 8, 1])
    colours = np.asarray(picture.convert("RGB"), dtype=np.int64) @ place
    known = np.array(classes) @ place
    order = np.argsort(known)
    found = order[np.searchsorted(known, colours, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[found] == colours, found, UNLABELLED).astype(np.uint8)


@lru_cache(maxsize=4096)
def _frame_size(source: ClipSource) -> Size | None:
    """Size of a clip's frames; ``None`` where they cannot be read, which is told when the clip itself is read."""
    try:
        if isinstance(source, Path | FilePart):
            video = probe(source).video
            return None if video is None else (video.width, video.height)
        if isinstance(source, FrameFolder):
            with Image.open(source.pictures()[0]) as picture:
                return picture.size
    except (MediaError, OSError, IndexError, SyntaxError, ValueError, Image.DecompressionBombError):
        pass
    return None
