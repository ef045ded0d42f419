"""Changes of training clips that leave their truth as it is."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import torch

from avtune.errors import AvtuneError
from avtune.transforms.collate import Batch


def crop_segments(
    batch: Batch, segments: int, *, seed: int, epoch: int, target_per_segment: bool = True
) -> Batch:
    """Keep some segments in a row of each clip.

    Where they begin depends on the seed, the epoch and the clip's name alone.

    Args:
        batch: Clips of T segments.
        segments: Segments to keep, from 1 to T.
        seed: Seed of the run.
        epoch: Index of the epoch, from 0.
        target_per_segment: The target, if any, has one entry per segment, (B, T, ...), and is cropped too.

    Returns:
        The batch with ``segments`` segments per clip.

    Raises:
        AvtuneError: ``segments`` is not within 1 and T.
    """
    if not batch.names:
        return batch
    whole = batch.valid.shape[1]
    if not 1 <= segments <= whole:
        raise AvtuneError(
            f"train.crop_segments is {segments}, and a clip has {whole} segments; set it from 1 to {whole} or leave it "
            "out"
        )
    starts = torch.tensor([int(draw(name, seed, epoch, 1) * (whole - segments + 1)) for name in batch.names])
    kept = (starts[:, None] + torch.arange(segments)).to(batch.valid.device)
    clip = torch.arange(len(batch.names), device=kept.device)[:, None]
    return replace(
        batch,
        frames=batch.frames[clip, kept],
        spectrogram=batch.spectrogram[clip, kept],
        valid=batch.valid[clip, kept],
        target=batch.target[clip, kept] if target_per_segment and batch.target is not None else batch.target,
    )


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
    chosen = [share > draw(name, seed, epoch, 0) for name in batch.names]
    if not any(chosen):
        return batch
    mirrored = torch.tensor(chosen, device=batch.frames.device).view(-1, 1, 1, 1, 1)
    return replace(batch, frames=torch.where(mirrored, batch.frames.flip(-1), batch.frames))


def draw(name: str, seed: int, epoch: int, purpose: int) -> float:
    """A number in [0, 1) that belongs to one clip in one epoch; every use has its own ``purpose``."""
    return float(np.random.default_rng([seed, epoch, zlib.crc32(name.encode()), purpose]).random())
