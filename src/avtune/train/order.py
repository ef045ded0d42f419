"""Which clips make which batch on which process: a pure function of seed, epoch and sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Places: TypeAlias = npt.NDArray[np.int64]
Order: TypeAlias = Callable[[np.random.Generator], Places]
"""Draws an epoch's clips in their order, by index; as many as there are clips."""


def shuffled(clips: int) -> Order:
    """Each clip once.

    Args:
        clips: Number of clips.
    """
    return lambda generator: generator.permutation(clips)


def drawn(weights: Sequence[float]) -> Order:
    """Draws with replacement.

    Args:
        weights: Chance of each clip, not normalised.
    """
    chances = np.asarray(weights) / np.sum(weights)
    return lambda generator: generator.choice(len(chances), size=len(chances), p=chances)


def together(groups: Sequence[Hashable], at_once: int = 1) -> Order:
    """Each item once, those of a group side by side; groups, and the items of each, in random order.

    Args:
        groups: The group of each item.
        at_once: How many groups are mixed with each other, at least 1.
    """

    def order(generator: np.random.Generator) -> Places:
        places = generator.permutation(len(groups))
        ranks: dict[Hashable, int] = {}
        for place in places:
            ranks.setdefault(groups[place], len(ranks) // at_once)
        return np.array(sorted(places, key=lambda place: ranks[groups[place]]), dtype=np.int64)

    return order


def balanced_weights(truths: Sequence[Sequence[str]]) -> list[float]:
    """Chances of clips that show every label about equally often: the sum over a clip's labels of 1 / frequency.

    This is how models of AudioSet are trained (PSLA, AST). Clips without any label count as one more label.

    Args:
        truths: Each clip's labels, each once.

    Returns:
        A positive weight for each clip.
    """
    labelled = [tuple(labels) or (None,) for labels in truths]
    frequency = Counter(label for labels in labelled for label in labels)
    return [sum(1 / frequency[label] for label in labels) for labels in labelled]


def epoch_windows(
    clips: int,
    batch_size: int,
    *,
    accumulate: int,
    processes: int,
    process: int,
    seed: int,
    epoch: int,
    order: Order | None = None,
) -> list[list[list[int]]]:
    """The clips that one process sees in one epoch, by update and micro-batch.

    What ``order`` draws with ``seed`` and ``epoch`` is cut into as few windows, one for each update, of at most
    ``batch_size * processes * accumulate`` clips as it takes, of as equal size as can be (17 clips by 16 are 9 and 8,
    not 16 and 1); each of these into at most ``accumulate`` micro-batches, and each of those into one piece per
    process. So an update has the same clips whichever of the three factors makes up its size.

    Args:
        clips: Number of clips, at least 1.
        batch_size: Most clips per process and micro-batch.
        accumulate: Most micro-batches per update.
        processes: Number of processes.
        process: Index of this one.
        seed: Seed of the run.
        epoch: Index of the epoch.
        order: Draws the clips; ``None``: each once, shuffled.

    Returns:
        Clip indices; as many windows and micro-batches on every process. A piece can be empty if
        ``batch_size`` is 1 or there are fewer clips than processes.
    """
    generator = np.random.default_rng([seed, epoch])
    places = (order or shuffled(clips))(generator)
    size = batch_size * processes
    windows = []
    for window in _split(places, size * accumulate):
        pieces = [np.array_split(batch, processes)[process] for batch in _split(window, size)]
        windows.append([[int(k) for k in piece] for piece in pieces])
    return windows


def _split(places: Places, largest: int) -> list[Places]:
    return np.array_split(places, -(-len(places) // largest))


def update_seed(seed: int, step: int, process: int) -> int:
    """Seed of whatever a network draws (dropout) in one update on one process.

    Args:
        seed: Seed of the run.
        step: Index of the update.
        process: Index of the process.

    Returns:
        An unsigned integer of 64 bits.
    """
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0])


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
