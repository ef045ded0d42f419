"""Picture of predicted masks beside the true ones, from a run of the segmentation task.

    python tools/docs_mask_picture.py runs/segmentation_nano       # docs/pictures/masks.png

The clip is chosen without a look at its prediction: the first test clip in which something is heard in some seconds,
from 3 to 7 of them, and not in the others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avtune.datasets import Record, existing, read
from avtune.datasets.masks import load_masks
from avtune.media import decode
from avtune.model import AudioVisualModel, load
from avtune.report.overlays import class_regions, lit, predicted_regions
from docs_pictures import LONGEST, PICTURES, SHORTEST, write_small

CELL, GAP, MARGIN = 128, 4, 84
ROWS = ("clip", "true", "predicted")


def chosen(model: AudioVisualModel) -> tuple[Record, np.ndarray]:
    """The clip to show, and its true masks (segments, size, size)."""
    segments, size = model.preprocessing.segments, model.task.settings.size
    for record in existing(read(model.config.data)).splits["test"]:
        masks = load_masks(record, segments, size).numpy()
        if SHORTEST <= (masks == 1).any(axis=(1, 2)).sum() <= LONGEST:
            return record, masks
    raise SystemExit(f"no test clip sounds in {SHORTEST} to {LONGEST} of its seconds")


def draw(model: AudioVisualModel, record: Record, masks: np.ndarray) -> Image.Image:
    """A column for each second: its frame, and what sounds of it lit, in truth and as predicted."""
    prediction = model.predict(record.files[0])
    clip = decode(record.files[0], [float(time) for time in prediction.times])
    assert clip.frames is not None
    count = len(clip.frames)
    sheet = Image.new("RGB", (MARGIN + count * (CELL + GAP), len(ROWS) * (CELL + GAP)), "white")
    font, pen = ImageFont.load_default(15), ImageDraw.Draw(sheet)
    for row, name in enumerate(ROWS):
        pen.text((4, row * (CELL + GAP) + CELL // 2 - 8), name, fill="black", font=font)
    for second, picture in enumerate(clip.frames):
        frame = np.asarray(Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.LANCZOS))
        true = class_regions((masks[second] == 1).astype(np.uint8), (CELL, CELL))
        found = predicted_regions(prediction, second, (CELL, CELL))
        shown = (frame, lit(frame, true, tinted=False), lit(frame, found, tinted=False))
        for row, cell in enumerate(shown):
            sheet.paste(Image.fromarray(cell), (MARGIN + second * (CELL + GAP), row * (CELL + GAP)))
    return sheet


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw predicted masks beside the true ones.")
    parser.add_argument("run", type=Path)
    model = load(parser.parse_args().run)
    record, masks = chosen(model)
    write_small(draw(model, record, masks), PICTURES / "masks.png")
    print(f"{record.name}: {PICTURES / 'masks.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
