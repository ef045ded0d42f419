"""Reading clips that were unpacked into pictures and a sound file (:class:`~avtune.datasets.FrameFolder`)."""

from __future__ import annotations

import warnings
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.signal import resample_poly

from avtune.datasets.records import FrameFolder
from avtune.media import Damage, MediaError, decode_audio

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
UNPACK_AGAIN = "unpack the clip again"


def due_pictures(folder: FrameFolder) -> list[Path]:
    """The pictures of an unpacked clip in order.

    Args:
        folder: The clip.

    Raises:
        MediaError: There have to be as many as the clip has seconds, and there are not.
    """
    pictures = folder.pictures()
    if folder.seconds is not None and len(pictures) != folder.seconds:
        few = len(pictures) < folder.seconds
        names = f" ({', '.join(path.name for path in pictures)})" if pictures and few else ""
        problem = f"holds {len(pictures)} pictures for its {folder.seconds} seconds{names}"
        raise MediaError(folder.frames, problem, UNPACK_AGAIN)
    return pictures


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture.

    Args:
        path: JPEG, PNG, WebP or BMP.

    Returns:
        RGB uint8 (height, width, 3).

    Raises:
        MediaError: It is no regular file, damaged, or so large that it must be a decompression bomb.
    """
    if not path.is_file():
        raise MediaError(path, "is not a file", UNPACK_AGAIN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=PICTURE_FORMATS) as picture:
                return np.array(picture.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise MediaError(path, "is no picture that can be decoded", UNPACK_AGAIN) from None


def read_sound(folder: FrameFolder, sample_rate: int = 16000) -> tuple[npt.NDArray[np.float32], Damage]:
    """Read the sound of an unpacked clip.

    Args:
        folder: The clip; a ``.npy`` waveform is resampled from ``folder.array_rate``.
        sample_rate: Samples per second of the result.

    Returns:
        Mono float32 (samples,), full scale 1, and what was wrong with the file.

    Raises:
        MediaError: The file is absent or holds no sound. Pickled arrays are refused.
    """
    if folder.audio.suffix.lower() != ".npy":
        return decode_audio(folder.audio, sample_rate)
    waveform = _read_array(folder.audio)
    if folder.array_rate != sample_rate:
        common = gcd(folder.array_rate, sample_rate)
        waveform = resample_poly(waveform, sample_rate // common, folder.array_rate // common)
    return np.ascontiguousarray(waveform, dtype=np.float32), Damage()


def _read_array(path: Path) -> npt.NDArray[Any]:
    if not path.is_file():
        raise MediaError(path, "is not a file", UNPACK_AGAIN)
    try:
        # Mapped, so that a header which claims more than the file holds is refused before memory is taken;
        # arrays of objects cannot be mapped, so nothing is ever unpickled.
        array = np.lib.format.open_memmap(path, mode="r").squeeze()
    except (OSError, ValueError, EOFError, SyntaxError):
        raise MediaError(path, "is no numpy array of numbers", UNPACK_AGAIN) from None
    if array.ndim != 1 or array.dtype.kind not in "if" or not array.size:
        shape = f"{array.dtype} {array.shape}"
        raise MediaError(path, f"is no waveform but {shape}", "save one row of samples")
    full_scale = float(np.iinfo(array.dtype).max) + 1 if array.dtype.kind == "i" else 1.0
    waveform = np.asarray(array, dtype=np.float32) / np.float32(full_scale)
    if not np.isfinite(waveform).all():
        raise MediaError(path, "holds samples that are not finite", UNPACK_AGAIN)
    return waveform
