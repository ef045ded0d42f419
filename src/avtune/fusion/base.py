"""What every method is: a stack of layers, each of which owns one step of the walk over two frozen towers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn


class Block(Protocol):
    """A frozen backbone block as a layer sees it: its two residual branches, without the add."""

    dim: int
    heads: int

    def attend(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """The attention branch of tokens (batch, length, dim); ``extra`` tokens are keys and values only."""
        ...

    def feed(self, x: Tensor) -> Tensor:
        """The MLP branch of tokens (batch, length, dim)."""
        ...


@dataclass
class Notes:
    """What the layers of one forward pass leave for losses to read.

    Attributes:
        segments: Time steps per clip, T: tokens arrive as (batch * T, length, dim).
        records: Tensors by name, in the order of the layers that noted them.
    """

    segments: int = 1
    records: dict[str, list[Tensor]] = field(default_factory=dict)

    def record(self, name: str, value: Tensor) -> None:
        """Append ``value`` under ``name``."""
        self.records.setdefault(name, []).append(value)


class FusionLayer(nn.Module):
    """One step: how the two streams pass one block of each tower."""

    def forward(
        self, audio: Tensor, video: Tensor, audio_block: Block, video_block: Block, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        """Advance both streams by one block.

        Args:
            audio: Sound tokens (batch * T, audio length, audio dim).
            video: Frame tokens (batch * T, video length, video dim).
            audio_block: The frozen block of the audio tower.
            video_block: The frozen block of the video tower.
            notes: Where values for losses are left.

        Returns:
            Both streams after the block.
        """
        raise NotImplementedError


class Fusion(nn.Module):
    """A method: its layers, one for each paired step of the plan, and what happens before and after them.

    Args:
        layers: One layer for each pair of blocks.
        train_norms: Whether the towers' LayerNorms are trained along (the only frozen weights a method may free).
    """

    def __init__(self, layers: Iterable[FusionLayer], *, train_norms: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.train_norms = train_norms

    def open(self, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """Prepare the embedded streams before the first block; a method may append tokens here."""
        return audio, video

    def close(self, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """Undo :meth:`open` after the last block, before the towers' final norms."""
        return audio, video


@dataclass(frozen=True)
class BlockSizes:
    """The sizes that a layer is built for.

    Attributes:
        audio_dim: Channels of the audio block.
        video_dim: Channels of the video block.
        audio_heads: Attention heads of the audio block.
        video_heads: Attention heads of the video block.
    """

    audio_dim: int
    video_dim: int
    audio_heads: int = 1
    video_heads: int = 1


BlockPairs = Sequence[BlockSizes]
