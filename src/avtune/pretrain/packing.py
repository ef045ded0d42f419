"""Sequences of differing length in one tensor: all tokens of a batch go through each layer in one call.

Linear layers, norms and MLPs act on every token alike, so only attention has to know where a sequence ends. Half
precision on a CUDA device has a kernel for sequences of differing length, which is called once for the whole batch;
elsewhere sequences of equal length that stand side by side attend together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None  # type: ignore[assignment]

Norm = Literal["audio", "video", "plain"]


class Layout:
    """How sequences lie in a packed tensor.

    Args:
        lengths: Tokens of each sequence, in order, each at least 1.
        norms: Which norm how many consecutive tokens take; the numbers add up to those of ``lengths``.

    Attributes:
        runs: (length, sequences) for each stretch of equally long sequences.
        uniform: Whether all are equally long.
        longest: Tokens of the longest.
        offsets: Where each sequence begins, and where the last one ends, (sequences + 1,) int32.
    """

    def __init__(self, lengths: tuple[int, ...], norms: tuple[tuple[Norm, int], ...]) -> None:
        self.lengths, self.norms = lengths, norms
        # Whatever a layer reads is an attribute, so that a compiled layer need not be compiled for each batch anew.
        self.runs = tuple((length, len(list(run))) for length, run in groupby(lengths))
        self.uniform = len(self.runs) <= 1
        self.longest = max(lengths, default=0)
        self.offsets = torch.tensor((0, *lengths)).cumsum(0, dtype=torch.int32)

    def place(self, device: torch.device) -> None:
        """Put ``offsets`` on a device, where they stay."""
        if self.offsets.device != device:
            self.offsets = send(self.offsets, device)


@dataclass(frozen=True)
class Packed:
    """Tokens of several sequences.

    Attributes:
        tokens: (all tokens, dim).
        layout: How they lie.
    """

    tokens: Tensor
    layout: Layout

    def __post_init__(self) -> None:
        self.layout.place(self.tokens.device)

    def under(self, norm: Norm) -> Packed:
        """The same sequences, all of whose tokens take ``norm``."""
        return Packed(self.tokens, Layout(self.layout.lengths, ((norm, len(self.tokens)),)))


def send(indices: Tensor, device: torch.device) -> Tensor:
    """A copy on a device, for which neither side waits: from ordinary memory the host waits for all earlier kernels."""
    return (indices.pin_memory() if device.type == "cuda" else indices).to(device, non_blocking=True)


def pack_together(parts: list[Packed]) -> Packed:
    """All sequences of ``parts``, one after the other."""
    layout = Layout(
        tuple(length for part in parts for length in part.layout.lengths),
        tuple(norm for part in parts for norm in part.layout.norms),
    )
    return Packed(torch.cat([part.tokens for part in parts]), layout)


def repeated(packed: Packed, times: int) -> Packed:
    """The same sequences, each ``times`` times in a row."""
    counts = torch.tensor(packed.layout.lengths)
    starts = (counts.cumsum(0) - counts).repeat_interleave(times)
    counts = counts.repeat_interleave(times)
    tokens = packed.tokens.index_select(0, send(rows_of(starts, counts), packed.tokens.device))
    norms = tuple((norm, count * times) for norm, count in packed.layout.norms)
    return Packed(tokens, Layout(tuple(counts.tolist()), norms))


def rows_of(starts: Tensor, counts: Tensor) -> Tensor:
    """Numbers of the rows of some stretches, one stretch after the other.

    Args:
        starts: First row of each, (stretches,) int64.
        counts: Rows of each, (stretches,) int64.
    """
    ends = counts.cumsum(0)
    return torch.arange(int(counts.sum())) + (starts - (ends - counts)).repeat_interleave(counts)


def attend_packed(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """Attention within each sequence.

    Sequences of several lengths take one call of a kernel made for them where there is one (:func:`has_varlen`), and
    one call for each run of equally long ones elsewhere.

    Args:
        query: (all tokens, heads, head dim).
        key: Of the same shape and precision.
        value: Of the same shape and precision.
        layout: How the sequences lie; its offsets on the tokens' device.

    Returns:
        (all tokens, heads, head dim).
    """
    if not layout.uniform and has_varlen(query):
        offsets, longest = layout.offsets, layout.longest
        mixed = varlen_attn(query, key, value, offsets, offsets, longest, longest)
        assert isinstance(mixed, Tensor)
        return mixed
    parts = list(_by_run(query, key, value, layout))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def has_varlen(query: Tensor) -> bool:
    """Whether torch has a kernel for sequences of differing length that takes this query.

    That asks for torch 2.10, a CUDA device of capability 8.0 (Ampere), half precision, and 8, 16, ... or 256 channels a
    head.
    """
    return (
        varlen_attn is not None
        and query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
        and _is_ampere(query.device)
    )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_ampere(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _by_run(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Iterator[Tensor]:
    tokens = [length * sequences for length, sequences in layout.runs]
    parts = (torch.split(x, tokens) for x in (query, key, value))
    for (length, sequences), *run in zip(layout.runs, *parts, strict=True):
        q, k, v = (x.reshape(sequences, length, *x.shape[1:]).transpose(1, 2) for x in run)
        yield F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)


def sequence_means(packed: Packed) -> Tensor:
    """The mean of each sequence's tokens, (sequences, dim)."""
    return torch.segment_reduce(packed.tokens, "mean", offsets=packed.layout.offsets, unsafe=True)
