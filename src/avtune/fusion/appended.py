"""Tokens that a method appends to a stream: where they stand, how they enter, what becomes of the positions."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Layout:
    """Where the kinds of token stand in a stream: prefix, patches, then what the method appended.

    Attributes:
        prefix: Class and register tokens of the tower.
        unplaced: How many of those the tower's position table leaves out.
        tail: Appended tokens by kind, in order.
    """

    prefix: int = 1
    unplaced: int = 0
    tail: dict[str, int] = field(default_factory=dict)

    @property
    def appended(self) -> int:
        """Number of appended tokens."""
        return sum(self.tail.values())

    def span(self, length: int, kind: str) -> slice:
        """Where a kind of token stands among ``length``: ``patches`` or a key of ``tail``.

        ``foreground`` is the tower's class token where none was appended.
        """
        start = length - self.appended
        if kind == "patches":
            return slice(self.prefix, start)
        if kind == "foreground" and not self.tail[kind]:
            return slice(0, 1)
        for name, count in self.tail.items():
            if name == kind:
                return slice(start, start + count)
            start += count
        raise KeyError(kind)

    def take(self, x: Tensor, kind: str) -> Tensor:
        """The tokens of a kind, (batch, n, dim)."""
        return x[:, self.span(x.shape[1], kind)]


def joined(*groups: Tensor | None) -> Tensor | None:
    """Groups of tokens (n, dim) as one; ``None`` where there are none."""
    present = [tokens for tokens in groups if tokens is not None]
    return torch.cat(present) if present else None


def append(x: Tensor, tokens: Tensor | None) -> Tensor:
    """``x`` (batch, length, dim) with the same tokens (n, dim) behind every sequence."""
    return x if tokens is None else torch.cat([x, tokens.expand(len(x), -1, -1)], dim=1)


def replace_tail(x: Tensor, tokens: Tensor | None) -> Tensor:
    """``x`` (batch, length, dim) with the last n tokens of every sequence replaced by ``tokens`` (n, dim)."""
    return x if tokens is None else append(x[:, : x.shape[1] - len(tokens)], tokens)


def stretch_positions(x: Tensor, appended: Tensor, table: Tensor, unplaced: int = 0) -> tuple[Tensor, Tensor]:
    """Move tokens to the positions of a table that is stretched, along its length, over the appended tokens too.

    What moves is the difference of two linear resamplings: exact where the tower's own positions are those of the
    table or its linear resampling, the same shift where they were resampled in two dimensions.

    Args:
        x: Tokens with their positions (batch, length, dim).
        appended: Tokens without positions (batch, n, dim).
        table: The tower's positions (1, pretrained length, dim).
        unplaced: Tokens at the start of ``x`` that the table leaves out.

    Returns:
        ``x`` moved, and the appended tokens with their positions.
    """
    length = x.shape[1] - unplaced

    def resampled(size: int) -> Tensor:
        if size == table.shape[1]:
            return table
        return F.interpolate(table.transpose(1, 2), size=size, mode="linear").transpose(1, 2)

    stretched = resampled(length + appended.shape[1])
    shift = stretched[:, :length] - resampled(length)
    moved = torch.cat([x[:, :unplaced], x[:, unplaced:] + shift], dim=1)
    return moved, appended + stretched[:, length:]
