"""Pictures that the nano backbone is judged on and never trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from avtune.backbones.nano import NANO_IMAGE_SIZE, NANO_MEAN, NANO_STD
from avtune.config import InputConfig
from avtune.datasets.bandstand import CLASSES
from avtune.transforms import Preprocessing, normalise_frames

GLYPHS = "ABEFGHKMNRSTXYZ2345?&"


@dataclass
class Labelled:
    """Pictures and what they show.

    Attributes:
        images: (n, 3, 64, 64), normalised.
        labels: Class (n,).
        groups: What must not be on both sides of a split (n,): the clip, or each picture for itself.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor


def glyphs(count: int, seed: int) -> Labelled:
    """Letters, digits and signs (21 classes) in random colours and poses among lines.

    None of them is of the generator's families.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(GLYPHS), count)
    images = np.stack([_glyph(GLYPHS[label], rng) for label in labels])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return Labelled((pixels - 0.5) / 0.5, torch.from_numpy(labels), torch.arange(count))


def _glyph(sign: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    side = 64
    back = rng.integers(0, 256, 3)
    cells = rng.integers(0, 256, (rng.integers(2, 9), rng.integers(2, 9), 3), dtype=np.uint8)
    texture = np.asarray(
        Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64
    )
    canvas = Image.fromarray((back + (texture - back) * rng.uniform(0, 0.5)).clip(0, 255).astype(np.uint8))
    painter = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(0, 4)):
        ends = rng.integers(0, side, 4).tolist()
        painter.line(ends, fill=tuple(rng.integers(0, 256, 3).tolist()), width=int(rng.integers(1, 4)))
    size = int(rng.integers(22, 46))
    stencil = Image.new("L", (side, side), 0)
    ImageDraw.Draw(stencil).text(
        (side / 2, side / 2), sign, fill=255, font=ImageFont.load_default(size), anchor="mm"
    )
    room = (side - size) / 2
    shift = rng.uniform(-room, room, 2)
    stencil = stencil.rotate(
        rng.normal(0, 10), Image.Resampling.BILINEAR, translate=tuple(shift.round().astype(int).tolist())
    )
    level = np.asarray(canvas).mean((0, 1))
    ink = rng.integers(0, 256, 3)
    while np.abs(ink - level).sum() < 150:
        ink = rng.integers(0, 256, 3)
    canvas.paste(tuple(ink.tolist()), mask=stencil)
    return (
        (np.asarray(canvas) + rng.normal(0, rng.uniform(0, 20), (side, side, 1)))
        .clip(0, 255)
        .astype(np.uint8)
    )


def bandstand(root: Path) -> dict[str, Labelled]:
    """Frames and spectrograms of single seconds of a rendered bandstand set, each with its one class.

    Only seconds in which exactly one class is seen (frames) or heard (spectrograms) are taken.

    Args:
        root: Folder that ``avtune data bandstand`` wrote.

    Returns:
        By kind, ``frames`` and ``spectrograms``.
    """
    preprocessing = Preprocessing.from_config(InputConfig(), NANO_IMAGE_SIZE, NANO_MEAN, NANO_STD)
    rows: dict[str, list[tuple[Tensor, int, int]]] = {"frames": [], "spectrograms": []}
    for clip, path in enumerate(sorted((root / "truth").glob("*.json"))):
        truth = json.loads(path.read_text())
        prepared = preprocessing.load(root / "AVE" / f"{truth['name']}.mp4")
        frames = normalise_frames(prepared.frames, NANO_MEAN, NANO_STD)
        pictures = prepared.spectrogram[:, None].expand(-1, 3, -1, -1)
        for second in range(10):
            for kind, key, image in (
                ("frames", "seen", frames[second]),
                ("spectrograms", "heard", pictures[second]),
            ):
                if len(truth[key][second]) == 1:
                    rows[kind].append((image, CLASSES.index(truth[key][second][0]), clip))
    return {
        kind: Labelled(
            torch.stack([image for image, _, _ in taken]),
            torch.tensor([label for _, label, _ in taken]),
            torch.tensor([clip for _, _, clip in taken]),
        )
        for kind, taken in rows.items()
    }
