"""Changes of training clips' spectrograms that leave their truth as it is: masks, noise, shifts in time.

What happens to a clip depends on the seed, the epoch and its name alone; all of its segments are changed alike.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import torch

from avtune.transforms.augment import draw
from avtune.transforms.collate import Batch
from avtune.transforms.presets import AudioPreset


def mask_sound(batch: Batch, mels: int, steps: int, *, audio: AudioPreset, seed: int, epoch: int) -> Batch:
    """Blank some mel bands in a row and some steps in a row, as SpecAugment does (Park et al., 2019).

    Blank is what the front end pads a short sound with, as in the code of AST, CAV-MAE and AVSiam.

    Args:
        batch: Clips.
        mels: A mask's width in bands is drawn uniformly from 0 to below this.
        steps: The same in steps.
        audio: The front end.
        seed: Seed of the run.
        epoch: Index of the epoch, from 0.
    """
    if not batch.names or not (mels or steps):
        return batch
    sound = batch.spectrogram.clone()
    for pictures, name in zip(sound, batch.names, strict=True):
        for axis, most, purpose in ((1 - _time(audio), mels, 7), (_time(audio), steps, 9)):
            size = pictures.shape[1 + axis]
            width = int(draw(name, seed, epoch, purpose) * min(most, size))
            start = int(draw(name, seed, epoch, purpose + 1) * (size - width + 1))
            pictures.narrow(1 + axis, start, width).fill_(audio.blank)
    return replace(batch, spectrogram=sound)


def add_noise(batch: Batch, most: float, *, seed: int, epoch: int) -> Batch:
    """Add uniform noise to normalised spectrograms, as AST, CAV-MAE and AVSiam do (there ``most`` is 0.1).

    Args:
        batch: Clips.
        most: Each value gets a number from U(0, 1) times a share of this that is drawn from U(0, 1) for the clip.
        seed: Seed of the run.
        epoch: Index of the epoch, from 0.
    """
    if not batch.names or not most:
        return batch
    shape = batch.spectrogram.shape[2:]
    noise = [
        most
        * draw(name, seed, epoch, 11)
        * np.random.default_rng([seed, epoch, zlib.crc32(name.encode()), 12]).random(shape, np.float32)
        for name in batch.names
    ]
    added = torch.from_numpy(np.stack(noise).astype(np.float32)).to(batch.spectrogram.device)
    return replace(batch, spectrogram=batch.spectrogram + added.unsqueeze(1))


def roll_sound(batch: Batch, steps: int, *, audio: AudioPreset, seed: int, epoch: int) -> Batch:
    """Shift spectrograms in time, and put what leaves them at one end back at the other.

    Args:
        batch: Clips.
        steps: The shift is drawn uniformly from ``-steps`` to below ``steps``.
        audio: The front end.
        seed: Seed of the run.
        epoch: Index of the epoch, from 0.
    """
    if not batch.names or not steps:
        return batch
    shifts = [int(draw(name, seed, epoch, 13) * 2 * steps) - steps for name in batch.names]
    rolled = [
        pictures.roll(shift, 1 + _time(audio))
        for pictures, shift in zip(batch.spectrogram, shifts, strict=True)
    ]
    return replace(batch, spectrogram=torch.stack(rolled))


def _time(audio: AudioPreset) -> int:
    """Axis of a picture along which time runs."""
    return 0 if audio.rows == "time" else 1
