"""Scoring a network on clips, and the floors that a score is read beside."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset

from avtune.tasks import Scores, Task
from avtune.tasks.base import Counts
from avtune.train.order import derangement
from avtune.transforms import Batch, Damaged, Sample, collate


class Clips(Protocol):
    """A sized dataset of samples; a file that cannot be read is an item too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample | Damaged: ...


@dataclass
class Evaluation:
    """What scoring found.

    Attributes:
        scores: The scores; ``None`` if no clip could be read.
        clips: Clips that were scored.
        damaged: Files that could not be read, with what was wrong.
    """

    scores: Scores | None
    clips: int
    damaged: dict[str, str] = field(default_factory=dict)


class ShuffledSound(Dataset[Sample | Damaged]):
    """Clips whose sound comes from another clip: the floor of a model that listens but needs no match.

    Args:
        clips: The clips.
        seed: Seed of who gets whose sound.
    """

    def __init__(self, clips: Clips, seed: int = 0) -> None:
        self.clips = clips
        self.partner = derangement(len(clips), seed)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample | Damaged:
        """The clip with its partner's sound."""
        sample, other = self.clips[index], self.clips[self.partner[index]]
        if isinstance(sample, Damaged) or isinstance(other, Damaged):
            return sample if isinstance(sample, Damaged) else other
        swapped = replace(
            sample.prepared, spectrogram=other.prepared.spectrogram, has_audio=other.prepared.has_audio
        )
        return replace(sample, prepared=swapped)


def loader(clips: Clips, batches: list[list[int]], workers: int) -> DataLoader[Batch]:
    """Batches of given clips, prepared by ``workers`` processes (0: by this one)."""
    return DataLoader(
        cast(Any, clips),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        # Its own generator: drawing seeds for workers from the global one would make a resumed run differ.
        generator=torch.Generator().manual_seed(0),
        multiprocessing_context="spawn" if workers else None,
    )


def count_clips(
    network: nn.Module,
    task: Task,
    clips: Clips,
    *,
    batch_size: int = 8,
    workers: int = 0,
    without: Literal["audio", "video"] | None = None,
    device: torch.device | None = None,
    advanced: Callable[[int], None] | None = None,
) -> tuple[Counts | None, int, dict[str, str]]:
    """Count over this process's share of the clips, each clip on exactly one process.

    Returns:
        Summed counts (``None`` if no clip could be read), number of clips, damaged files; all of every process.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    mine = list(range(rank, len(cast(Sized, clips)), world))
    batches = [mine[k : k + batch_size] for k in range(0, len(mine), batch_size)]
    counts: Counts | None = None
    seen, damaged = 0, {}
    training = network.training
    network.eval()
    for batch in loader(clips, batches, workers):
        damaged.update({bad.name: bad.problem for bad in batch.damaged})
        if batch.names:
            batch = batch.to(device or torch.device("cpu"))
            if without is not None:
                batch = _without(batch, without)
            with torch.no_grad():
                outputs, _ = network(batch)
            added = task.count(outputs, batch)
            counts = added if counts is None else counts + added
            seen += len(batch.names)
        if advanced is not None:
            advanced(len(batch.names) + len(batch.damaged))
    network.train(training)
    if world > 1:
        parts: list[tuple[Counts | None, int, dict[str, str]]] = [(None, 0, {})] * world
        dist.all_gather_object(parts, (counts, seen, damaged))
        present = [part[0] for part in parts if part[0] is not None]
        counts = cast(Counts, np.sum(present, axis=0)) if present else None
        seen = sum(part[1] for part in parts)
        damaged = {name: problem for part in parts for name, problem in part[2].items()}
    return counts, seen, damaged


def evaluate(
    network: nn.Module,
    task: Task,
    clips: Clips,
    *,
    batch_size: int = 8,
    workers: int = 0,
    without: Literal["audio", "video"] | None = None,
    device: torch.device | None = None,
    advanced: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score a network.

    Args:
        network: Maps a batch to ``(outputs, encoded)``.
        task: Counts and scores.
        clips: What to score on.
        batch_size: Clips per batch; the score does not depend on it.
        workers: Loader processes.
        without: Silence one stream first.
        device: Where the network is.
        advanced: Called with the number of clips done since the last call.

    Returns:
        The same on every process, each clip counted once.
    """
    counts, seen, damaged = count_clips(
        network, task, clips, batch_size=batch_size, workers=workers, without=without, device=device,
        advanced=advanced,
    )  # fmt: skip
    return Evaluation(None if counts is None else task.score(counts), seen, damaged)


def _without(batch: Batch, stream: Literal["audio", "video"]) -> Batch:
    if stream == "audio":
        return replace(batch, has_audio=torch.zeros_like(batch.has_audio))
    return replace(batch, has_video=torch.zeros_like(batch.has_video))
