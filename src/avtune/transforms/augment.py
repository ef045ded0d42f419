"""Changes of training clips: those that leave their truth as it is, and mixing, which mixes it too."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

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
        spectrogram=batch.spectrogram if batch.spectrogram.shape[1] == 1 else batch.spectrogram[clip, kept],
        valid=batch.valid[clip, kept],
        target=batch.target[clip, kept] if target_per_segment and batch.target is not None else batch.target,
    )


def flip_frames(
    batch: Batch, share: float, *, seed: int, epoch: int, target_is_picture: bool = False
) -> Batch:
    """Mirror the frames of some clips left to right; a clip's frames are all mirrored or none.

    Which clips depends on the seed, the epoch and the clips' names alone, not on how they are spread over
    batches and processes.

    Args:
        batch: Clips.
        share: Probability of being mirrored, in [0, 1].
        seed: Seed of the run.
        epoch: Index of the epoch, from 0.
        target_is_picture: The target, if any, is (B, ..., width) and is mirrored with the frames.

    Returns:
        The batch with changed frames; the same one where nothing changes.
    """
    chosen = [share > draw(name, seed, epoch, 0) for name in batch.names]
    if not any(chosen):
        return batch
    mirrored = torch.tensor(chosen, device=batch.frames.device)

    def mirror(pictures: Tensor) -> Tensor:
        return torch.where(mirrored.view(-1, *[1] * (pictures.ndim - 1)), pictures.flip(-1), pictures)

    target = batch.target
    return replace(
        batch,
        frames=mirror(batch.frames),
        target=mirror(target) if target_is_picture and target is not None else target,
    )


def drop_stream(batch: Batch, share: float, *, seed: int, epoch: int) -> Batch:
    """Leave out the sound or the frames of all clips of some batches (AVSiam's mixed modalities, with 0.5).

    Whether, and which, depends on the seed, the epoch and the names of the batch's clips: processes, which see other
    clips, draw each for themselves, as the authors' do. A clip that has one stream keeps it.

    Args:
        batch: Clips.
        share: Probability that a batch loses a stream, in [0, 1]; either one in half of the cases.
        seed: Seed of the run.
        epoch: Index of the epoch, from 0.
    """
    if share == 0 or not batch.names:
        return batch
    drawn = draw("\n".join(sorted(batch.names)), seed, epoch, 14)
    if drawn < share / 2:
        return replace(batch, has_video=batch.has_video & ~batch.has_audio)
    if drawn < share:
        return replace(batch, has_audio=batch.has_audio & ~batch.has_video)
    return batch


MIXING = 10.0
"""Both parameters of the Beta distribution of proportions, as in CAV-MAE."""


def mix_clips(
    batch: Batch, share: float, *, soften: Callable[[Tensor], Tensor], seed: int, epoch: int
) -> Batch:
    """Mix some clips with another clip of their batch, as CAV-MAE and AST do for AudioSet (mixup).

    Frames, spectrograms and truths are mixed in one proportion, drawn from Beta(10, 10), so that both streams of a
    mixed clip still belong together. CAV-MAE mixes waveforms; here spectrograms are mixed as the model sees them,
    logarithmic and normalised. Clips without sound or without frames are left alone.

    Which clips, and in what proportion, depends on the seed, the epoch and the clips' names; the partner is a clip of
    the same batch, so it also depends on which clips a process sees together.

    Args:
        batch: Clips with a target.
        share: Probability of being mixed, in [0, 1].
        soften: Turns a target into one of which proportions can be added up, floats (B, ...).
        seed: Seed of the run.
        epoch: Index of the epoch, from 0.

    Returns:
        The batch with changed frames, spectrograms and a softened target; segments that do not exist in both clips no
        longer count. The same one where nothing changes.
    """
    if share == 0 or batch.target is None:
        return batch
    partners = _partners(batch, share, seed, epoch)
    if not partners:
        return batch
    device = batch.frames.device
    source = torch.arange(len(batch), device=device)
    own = torch.ones(len(batch), device=device)
    for k, (other, proportion) in partners.items():
        source[k], own[k] = other, proportion
    return replace(
        batch,
        # Pictures stay bytes: half a step of a pixel is less than what any camera's noise is.
        frames=_mixed(batch.frames.float(), source, own).round().to(torch.uint8),
        spectrogram=_mixed(batch.spectrogram, source, own),
        valid=batch.valid & batch.valid[source],
        target=_mixed(soften(batch.target), source, own),
    )


def _partners(batch: Batch, share: float, seed: int, epoch: int) -> dict[int, tuple[int, float]]:
    """Which clip is mixed with which, and its own proportion."""
    whole = (batch.has_audio & batch.has_video).tolist()
    found: dict[int, tuple[int, float]] = {}
    for k, name in enumerate(batch.names):
        others = [j for j, other in enumerate(batch.names) if whole[j] and other != name]
        if whole[k] and others and share > draw(name, seed, epoch, 4):
            partner = min(others, key=lambda j: (draw_pair(name, batch.names[j], seed, epoch, 5), j))
            own = np.random.default_rng([seed, epoch, zlib.crc32(name.encode()), 6]).beta(MIXING, MIXING)
            found[k] = partner, float(own)
    return found


def _mixed(values: Tensor, source: Tensor, own: Tensor) -> Tensor:
    own = own.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
    return own * values + (1 - own) * values[source]


def draw(name: str, seed: int, epoch: int, purpose: int) -> float:
    """A number in [0, 1) that belongs to one clip in one epoch; every use has its own ``purpose``."""
    return float(np.random.default_rng([seed, epoch, zlib.crc32(name.encode()), purpose]).random())


def draw_pair(name: str, partner: str, seed: int, epoch: int, purpose: int) -> float:
    """A number in [0, 1) that belongs to an ordered pair of clips in one epoch."""
    return draw(f"{zlib.crc32(name.encode())} {partner}", seed, epoch, purpose)
