"""Changes of training clips that leave their truth as it is."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import torch

from avtune.transforms.collate import Batch


def flip_frames(batch: Batch, share: float, *, seed: int, epoch: int) -> Batch:
    """Mirror the frames of some clips left to right; a clip's frames are all mirrored or none.

    Which clips depends on the seed, the epoch and the clips' names alone, not on how they are spread over
    batches and processes.

    Args:
        batch: Clips.
        share: Probability of being mirrored, in [0, 1].
        seed: Seed of the run.
        epoch: Index of the epoch, from 0.

    Returns:
        The batch with changed frames; the same one where nothing changes.

    Raises:
        ValueError: ``share`` is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"train.flip is {share}; it must be between 0 and 1")
    chosen = [
        share > np.random.default_rng([seed, epoch, zlib.crc32(name.encode())]).random()
        for name in batch.names
    ]
    if not any(chosen):
        return batch
    mirrored = torch.tensor(chosen, device=batch.frames.device).view(-1, 1, 1, 1, 1)
    return replace(batch, frames=torch.where(mirrored, batch.frames.flip(-1), batch.frames))
