"""A clip that was unpacked into pictures and a sound file."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import wavfile

from avtune.datasets import FrameFolder

SECONDS = 4


def unpacked(root: Path, count: int = 12, digits: int = 4, seconds: int | None = None) -> FrameFolder:
    """A clip in a folder that need not exist: ``count`` grey pictures, each 15 brighter, and a tone of four seconds."""
    frames = root / "frames"
    frames.mkdir(parents=True)
    for number in range(count):
        picture = np.full((40, 48, 3), 15 * number, dtype=np.uint8)
        Image.fromarray(picture).save(frames / f"{number + 1:0{digits}d}.jpg", quality=95)
    times = np.arange(SECONDS * 16000) / 16000
    wavfile.write(root / "sound.wav", 16000, (8000 * np.sin(900 * times)).astype(np.int16))
    return FrameFolder(frames, root / "sound.wav", seconds=seconds)
