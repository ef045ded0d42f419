"""Which clips make which batch on which process: a pure function of seed, epoch and sizes."""

from __future__ import annotations

import numpy as np


def epoch_batches(
    clips: int, batch_size: int, *, processes: int, process: int, seed: int, epoch: int
) -> list[list[int]]:
    """The batches that one process sees in one epoch.

    The order of clips is that of ``seed`` and ``epoch`` alone. Each global batch of
    ``batch_size * processes`` clips is cut into one piece per process, so that two processes see together
    what one process with twice the batch size sees. In a last batch with fewer clips than processes some
    processes get none.

    Args:
        clips: Number of clips.
        batch_size: Clips per process.
        processes: Number of processes.
        process: Index of this one.
        seed: Seed of the run.
        epoch: Index of the epoch.

    Returns:
        Clip indices per batch, the same number of batches on every process.
    """
    order = np.random.default_rng([seed, epoch]).permutation(clips)
    size = batch_size * processes
    batches = []
    for start in range(0, clips, size):
        whole = order[start : start + size]
        batches.append([int(k) for k in np.array_split(whole, processes)[process]])
    return batches


def derangement(clips: int, seed: int) -> list[int]:
    """For each clip another one, never itself: whose sound it gets in the shuffled-audio floor.

    Args:
        clips: Number of clips, at least 2.
        seed: Seed of the choice.

    Returns:
        A permutation without fixed points.

    Raises:
        ValueError: If there are fewer than two clips.
    """
    if clips < 2:
        raise ValueError("shuffling sound between clips needs at least two clips")
    cycle = np.random.default_rng([seed, clips]).permutation(clips)
    partner = np.empty(clips, dtype=np.int64)
    partner[cycle] = np.roll(cycle, 1)
    return [int(k) for k in partner]
