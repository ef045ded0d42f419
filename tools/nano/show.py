"""Draw a sheet of the pictures that the nano backbone is pretrained on: `python tools/nano/show.py OUT.png`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image
from shapes import ObjectPictures
from stacks import StackPictures
from torch import Tensor

COLUMNS = 8


def sheet(noisy: Tensor) -> Tensor:
    """Two views of each of `COLUMNS` x 2 identities, views below each other, (4 * 64, COLUMNS * 64, 3) in [0, 1]."""
    views = noisy.reshape(2, 2, COLUMNS, 3, 64, 64).transpose(0, 1)
    return views.permute(0, 1, 4, 2, 5, 3).reshape(4 * 64, COLUMNS * 64, 3).clamp(-1, 1) / 2 + 0.5


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    count = 2 * COLUMNS
    objects = ObjectPictures(0, size=512, difficulty=0.3).views(count, 2, generator)
    stacks = StackPictures().views(count, 2, generator)
    pictures = torch.cat([sheet(objects.noisy), sheet(stacks.noisy)])
    image = Image.fromarray((255 * pictures).round().byte().numpy())
    image.quantize(96, dither=Image.Dither.NONE).save(Path(sys.argv[1]), optimize=True)


if __name__ == "__main__":
    main()
