"""Scoring a network on clips, and the floors that a score is read beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any, Literal, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from avtune.errors import AvtuneError
from avtune.tasks import Scores, Task
from avtune.tasks.base import Answer, Tally
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


class BlindNetwork(nn.Module):
    """A rule that looks at no clip, in a network's place.

    Args:
        answer: See :meth:`avtune.tasks.Task.blind_answers`.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, batch: Batch) -> tuple[Tensor, None]:
        """The rule's outputs."""
        return self.answer(batch), None


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
        """The clip with its partner's sound; where that cannot be read, with that of the partner's partner."""
        sample = self.clips[index]
        if isinstance(sample, Damaged):
            return sample
        # Partners form one cycle, so this meets every other clip before it comes back.
        partner = self.partner[index]
        while partner != index:
            other = self.clips[partner]
            if isinstance(other, Sample):
                sound, heard = other.prepared.spectrogram, other.prepared.has_audio
                return replace(sample, prepared=replace(sample.prepared, spectrogram=sound, has_audio=heard))
            partner = self.partner[partner]
        return Damaged(sample.name, "", "no other clip's sound can be read")


def loader(clips: Clips, batches: list[list[int]], workers: int, pinned: bool = False) -> DataLoader[Batch]:
    """Batches of given clips, prepared by ``workers`` processes (0: by this one); ``pinned``: in page-locked memory."""
    return DataLoader(
        cast(Any, clips),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pinned,
        # Its own generator: drawing seeds for workers from the global one would make a resumed run differ.
        generator=torch.Generator().manual_seed(0),
        multiprocessing_context="spawn" if workers else None,
    )


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
    """Score a network; under several processes all of them have to call this, and share the work.

    Args:
        network: Maps a batch to ``(outputs, encoded)``.
        task: Counts and scores.
        clips: What to score on.
        batch_size: Clips per batch; the score does not depend on it.
        workers: Loader processes.
        without: Silence one stream first.
        device: Where the network is; ``None``: where its first weight is.
        advanced: Called with the number of clips done since the last call.

    Returns:
        The same on every process, each clip counted once.

    Raises:
        AvtuneError: The network's output is no number.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    if task.scored_in_couples:
        batches = couples(len(clips))[rank::world]
    else:
        mine = list(range(rank, len(clips), world))
        batches = [mine[k : k + batch_size] for k in range(0, len(mine), batch_size)]
    place = device or next((weight.device for weight in network.parameters()), torch.device("cpu"))
    share = _Share()
    training = network.training
    network.eval()
    try:
        for batch in loader(clips, batches, workers):
            _count(network, task, _without(batch.to(place), without), share)
            if advanced is not None:
                advanced(len(batch.names) + len(batch.damaged))
    finally:
        network.train(training)
    shares = [share]
    if world > 1:
        shares = [share] * world
        dist.all_gather_object(shares, share)
    tallies = [part.tally for part in shares if part.tally is not None]
    return Evaluation(
        scores=task.score(reduce(add, tallies)) if tallies else None,
        clips=sum(part.clips for part in shares),
        damaged={name: problem for part in shares for name, problem in part.damaged.items()},
    )


def couples(clips: int) -> list[list[int]]:
    """Clips two and two, half of all apart, so that neighbours, which often are of one file, do not meet.

    Args:
        clips: Number of clips; of an odd number the middle one stays alone.
    """
    half = (clips + 1) // 2
    return [[k, k + half] if k + half < clips else [k] for k in range(half)]


@dataclass
class _Share:
    """What one process counted."""

    tally: Tally | None = None
    clips: int = 0
    damaged: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def _count(network: nn.Module, task: Task, batch: Batch, share: _Share) -> None:
    share.damaged.update({bad.name: bad.problem for bad in batch.damaged})
    if batch.names:
        outputs, _ = network(batch)
        if outputs.isnan().any():
            raise AvtuneError(
                f"the model's answer to {', '.join(batch.names)} is no number; its weights are damaged or its training "
                "diverged: train again, with a lower optimizer.lr"
            )
        tally = task.tally(outputs, batch)
        share.tally = tally if share.tally is None else share.tally + tally
        share.clips += len(batch.names)


def _without(batch: Batch, stream: Literal["audio", "video"] | None) -> Batch:
    if stream == "audio":
        return replace(batch, has_audio=torch.zeros_like(batch.has_audio))
    if stream == "video":
        return replace(batch, has_video=torch.zeros_like(batch.has_video))
    return batch
