"""Which patches a pretraining pass sees: a ratio for every clip, and the patches that it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from avtune.errors import AvtuneError

Assignment = Literal["even", "chunks", "continuous"]
Pattern = Literal["unstructured", "time_frequency"]
STRIPE_SHARE = 0.7
"""Share of the masking ratio that whole columns and, again, whole rows take in ``time_frequency`` masking."""


@dataclass(frozen=True)
class Kept:
    """The patches that are seen of each clip's picture, in the order in which they are packed.

    Clips that keep equally many stand side by side, those that keep fewest first; a clip's own patches are in ascending
    order. Everything lies on the CPU, so that shapes are known without waiting for a device.

    Attributes:
        length: Patches of a whole picture.
        order: Index of each packed clip in the batch (clips,).
        counts: Patches kept of each packed clip, at least 1.
        clip: Index in the batch of the clip that a kept patch belongs to, (sum of counts,) int64.
        position: Its place in the whole picture, (sum of counts,) int64 in [0, length).
    """

    length: int
    order: tuple[int, ...]
    counts: tuple[int, ...]
    clip: Tensor
    position: Tensor

    @classmethod
    def from_visible(cls, visible: Tensor) -> Kept:
        """From a table of what is seen.

        Args:
            visible: (clips, length) bool; every clip sees at least one patch.

        Raises:
            AvtuneError: A clip sees nothing.
        """
        visible = visible.cpu()
        counts, order = visible.sum(dim=1).sort(stable=True)
        if len(counts) and not counts[0]:
            raise AvtuneError("a clip without any visible patch cannot be encoded; lower the masking ratio")
        packed, position = visible[order].nonzero(as_tuple=True)
        return cls(visible.shape[1], tuple(order.tolist()), tuple(counts.tolist()), order[packed], position)

    @classmethod
    def everything(cls, clips: int, length: int) -> Kept:
        """All ``length`` patches of each of ``clips`` pictures."""
        return cls.from_visible(torch.ones(clips, length, dtype=torch.bool))

    @cached_property
    def visible(self) -> Tensor:
        """(clips, length) bool."""
        table = torch.zeros(len(self.order), self.length, dtype=torch.bool)
        table[self.clip, self.position] = True
        return table

    @cached_property
    def place(self) -> Tensor:
        """Where each clip of the batch stands among the packed ones, (clips,) int64."""
        return torch.tensor(self.order, dtype=torch.int64).argsort()

    def __len__(self) -> int:
        """Number of kept patches."""
        return len(self.clip)


def kept_count(length: int, ratio: float) -> int:
    """Patches that are left of ``length``: int(length (1 - ratio)) as the authors count, and never none."""
    return max(int(length * (1 - ratio)), 1)


def draw_ratios(
    clips: int, ratios: Sequence[float], assignment: Assignment, generator: torch.Generator
) -> tuple[float, ...]:
    """A masking ratio for every clip of a batch: the multi-ratio masking of AVSiam's section 3.2.

    Args:
        clips: Clips of the batch.
        ratios: What there is to choose from, each in [0, 1).
        assignment: ``even``: each ratio for equally many clips, and what does not divide is drawn without repetition.
            ``chunks``: as the released code, which cuts a permutation of the batch into pieces of
            ceil(clips / ratios) clips, so that a small batch never meets the last ratios.
            ``continuous``: uniformly between the lowest and the highest.
        generator: Where chance comes from, on the CPU.

    Returns:
        One ratio a clip, in the order of the batch.
    """
    if assignment == "continuous":
        low, high = min(ratios), max(ratios)
        drawn = torch.rand(clips, generator=generator, dtype=torch.float64)
        return tuple((low + (high - low) * drawn).tolist())
    turn = torch.randperm(clips, generator=generator).tolist()
    if assignment == "chunks":
        size = -(-clips // len(ratios))
        groups = [place // size for place in range(clips)]
    else:
        whole = list(range(len(ratios))) * (clips // len(ratios))
        rest = torch.randperm(len(ratios), generator=generator).tolist()[: clips % len(ratios)]
        groups = whole + rest
    drawn_ratios = [0.0] * clips
    for clip, group in zip(turn, groups, strict=True):
        drawn_ratios[clip] = ratios[group]
    return tuple(drawn_ratios)


def draw_kept(
    ratios: Sequence[float],
    grid: tuple[int, int],
    generator: torch.Generator,
    pattern: Pattern = "unstructured",
    *,
    own: Sequence[int] | None = None,
) -> Kept:
    """Choose the patches that are seen.

    Args:
        ratios: Masking ratio of each clip.
        grid: Rows and columns of patches; of a spectrogram frequency and time.
        generator: Where chance comes from, on the CPU.
        pattern: ``unstructured``: any patches. ``time_frequency``: first those in
            int(0.7 ratio columns) whole columns and int(0.7 ratio rows) whole rows are hidden, then any others. Where
            these stripes hold more patches than may be hidden, chance decides which of theirs are seen.
        own: Which of the clips to choose for, in this order; ``None``: all. What a clip keeps is the same either way.

    Returns:
        For each clip :func:`kept_count` of its patches.
    """
    rows, columns = grid
    length = rows * columns
    clips, chosen = len(ratios), slice(None) if own is None else list(own)
    ratios = ratios if own is None else [ratios[clip] for clip in own]
    # In the order of the batch, and of the same size whatever the ratios: a clip's noise depends on its place alone.
    noise = torch.rand(clips, length, generator=generator)[chosen]
    if pattern == "time_frequency":
        marked = torch.zeros(len(ratios), rows, columns, dtype=torch.bool)
        for axis, size in ((2, columns), (1, rows)):
            turn = torch.rand(clips, size, generator=generator)[chosen]
            rank = turn.argsort(dim=1, stable=True).argsort(dim=1)
            budget = torch.tensor([int(size * ratio * STRIPE_SHARE) for ratio in ratios])
            marked |= (rank < budget[:, None]).unsqueeze(3 - axis)
        noise = noise + marked.flatten(1)
    counts = torch.tensor([kept_count(length, ratio) for ratio in ratios])
    first = torch.arange(length) < counts[:, None]
    return Kept.from_visible(torch.zeros_like(first).scatter_(1, noise.argsort(dim=1, stable=True), first))
