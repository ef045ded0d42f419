"""Sequences of differing length in one tensor: all tokens of a batch go through each layer in one call.

Linear layers, norms and MLPs act on every token alike, so only attention has to know where a sequence ends. On a CUDA
device it runs over a jagged nested tensor, one call of a variable-length kernel for the whole batch; elsewhere
sequences of equal length that stand side by side attend together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Form = Literal["grouped", "jagged"]
Norm = Literal["audio", "video", "plain"]


@dataclass(frozen=True)
class Layout:
    """How sequences lie in a packed tensor.

    Attributes:
        lengths: Tokens of each sequence, in order, each at least 1.
        norms: Which norm how many consecutive tokens take; the numbers add up to those of ``lengths``.
    """

    lengths: tuple[int, ...]
    norms: tuple[tuple[Norm, int], ...]

    @cached_property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """(length, sequences) for each stretch of equally long sequences."""
        return tuple((length, len(list(run))) for length, run in groupby(self.lengths))

    @cached_property
    def offsets(self) -> Tensor:
        """Where each sequence begins, and where the last one ends, (sequences + 1,) int64 on the CPU."""
        return torch.tensor((0, *self.lengths), dtype=torch.int64).cumsum(0)


@dataclass(frozen=True)
class Packed:
    """Tokens of several sequences.

    Attributes:
        tokens: (all tokens, dim).
        layout: How they lie.
    """

    tokens: Tensor
    layout: Layout

    def under(self, norm: Norm) -> Packed:
        """The same sequences, all of whose tokens take ``norm``."""
        return Packed(self.tokens, Layout(self.layout.lengths, ((norm, len(self.tokens)),)))


def pack_together(parts: list[Packed]) -> Packed:
    """All sequences of ``parts``, one after the other."""
    layout = Layout(
        tuple(length for part in parts for length in part.layout.lengths),
        tuple(norm for part in parts for norm in part.layout.norms),
    )
    return Packed(torch.cat([part.tokens for part in parts]), layout)


def attend_packed(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, form: Form | None = None
) -> Tensor:
    """Attention within each sequence.

    Args:
        query: (all tokens, heads, head dim).
        key: Of the same shape.
        value: Of the same shape.
        layout: How the sequences lie.
        form: ``jagged``: one call for all sequences. ``grouped``: one call for each run of equally long ones, without
            a copy. ``None``: jagged on a CUDA device, grouped elsewhere.

    Returns:
        (all tokens, heads, head dim).
    """
    if form is None:
        form = "jagged" if query.is_cuda else "grouped"
    if form == "jagged" and len(layout.runs) > 1:
        return _jagged(query, key, value, layout)
    return torch.cat(list(_grouped(query, key, value, layout)))


def _grouped(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Iterator[Tensor]:
    tokens = [length * sequences for length, sequences in layout.runs]
    parts = (torch.split(x, tokens) for x in (query, key, value))
    for (length, sequences), *run in zip(layout.runs, *parts, strict=True):
        q, k, v = (x.reshape(sequences, length, *x.shape[1:]).transpose(1, 2) for x in run)
        yield F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)


def _jagged(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    offsets = layout.offsets.to(query.device, non_blocking=True)
    # Lengths given here need not be fetched from the device before each kernel.
    shortest, longest = min(layout.lengths), max(layout.lengths)
    q, k, v = (
        torch.nested.nested_tensor_from_jagged(x, offsets, min_seqlen=shortest, max_seqlen=longest).transpose(
            1, 2
        )
        for x in (query, key, value)
    )
    mixed: Tensor = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).values()
    return mixed


def sequence_means(packed: Packed) -> Tensor:
    """The mean of each sequence's tokens, (sequences, dim)."""
    lengths = torch.tensor(packed.layout.lengths, dtype=torch.int64).to(packed.tokens.device)
    return torch.segment_reduce(packed.tokens, "mean", lengths=lengths, unsafe=True)
