"""Frames: from full-size RGB to the square of bytes that is stored, and from there to a tower's input.

The papers squash the whole frame into the square, whatever its aspect. Scaling happens in one antialiased
bicubic step from the full-size RGB picture: letting the decoder scale while it converts colours is off by
7 to 8 grey levels on fine texture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def resize_frame(frame: NDArray[np.uint8], size: int) -> Tensor:
    """Squash a picture into a square, bicubic with antialiasing.

    Args:
        frame: RGB of shape ``(height, width, 3)``, 0 to 255.
        size: Side of the square, pixels.

    Returns:
        uint8 of shape ``(3, size, size)``.

    Raises:
        ValueError: If ``frame`` is not uint8 of shape ``(height, width, 3)`` with at least one pixel.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise ValueError(f"frame must be uint8 (height, width, 3), not {frame.dtype} {frame.shape}")
    picture = torch.from_numpy(frame if frame.flags.writeable else frame.copy()).permute(2, 0, 1)
    if picture.shape[1:] == (size, size):
        return picture.contiguous().clone()
    resized = functional.interpolate(
        picture[None], size=(size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return resized[0].contiguous()


def mean_frame(mean: Sequence[float], size: int) -> Tensor:
    """Return the byte picture (3, size, size) nearest to zero after normalising, for missing video."""
    colour = torch.tensor([round(255 * channel) for channel in mean], dtype=torch.uint8)
    return colour[:, None, None].expand(3, size, size).contiguous()


def normalise_frames(
    frames: Tensor, mean: Sequence[float], std: Sequence[float], has_video: Tensor | None = None
) -> Tensor:
    """Bytes to what a tower expects: ``(frames / 255 - mean) / std``, on the device where the frames lie.

    Args:
        frames: uint8 of shape ``(..., 3, height, width)``.
        mean: Mean per channel of RGB in [0, 1].
        std: Standard deviation per channel of RGB in [0, 1].
        has_video: Bool whose shape is a prefix of ``frames``', (batch,) as a rule; where False the result is
            exactly zero. Without it missing video is zero up to the rounding of its mean colour to bytes.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: If ``frames`` is not uint8 with three channels.
    """
    if frames.dtype is not torch.uint8 or frames.ndim < 3 or frames.shape[-3] != 3:
        raise ValueError(f"frames must be uint8 (..., 3, height, width), not {frames.dtype} {frames.shape}")
    centre = torch.tensor(mean, dtype=torch.float32, device=frames.device)[:, None, None]
    spread = torch.tensor(std, dtype=torch.float32, device=frames.device)[:, None, None]
    normalised = frames.float().div_(255.0).sub_(centre).div_(spread)
    if has_video is None:
        return normalised
    return normalised * has_video.view(*has_video.shape, *[1] * (frames.ndim - has_video.ndim))
