"""What every method is: a stack of layers, each of which owns one step of the walk over two frozen towers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.tuning import free_norms


class Block(Protocol):
    """A frozen backbone block as a layer sees it: its two residual branches, without the add.

    Attributes:
        dim: Channels of its tokens.
        heads: Attention heads.
    """

    dim: int
    heads: int

    def attend(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """The attention branch of tokens (batch, length, dim); ``extra`` tokens are keys and values only."""
        ...

    def feed(self, x: Tensor) -> Tensor:
        """The MLP branch of tokens (batch, length, dim)."""
        ...

    def attend_along(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The same frozen attention over any sequence (batch, length, dim), such as time; no windows, no table."""
        ...

    def group(self, x: Tensor) -> Tensor:
        """Tokens (batch, length, dim) by window, (batch * windows, window length, dim); ``x`` where there are none."""
        ...

    def ungroup(self, x: Tensor) -> Tensor:
        """Undo ``group``."""
        ...

    def hearing(self, hear: Callable[[Tensor], Tensor]) -> Block:
        """This block with ``hear`` in front of what its stream trains in it: see ``avtune.tuning.BoundBlock``."""
        ...


@dataclass
class Notes:
    """What the layers of one forward pass leave for losses to read.

    Attributes:
        segments: Time steps per clip, T: tokens arrive as (batch * T, length, dim).
        records: Tensors by name, in the order of the layers that noted them.
        alone: What two heads left that each saw one stream: the sound's, the frames'; empty where there is one head.
    """

    segments: int = 1
    records: dict[str, list[Tensor]] = field(default_factory=dict)
    alone: tuple[Notes, ...] = ()

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
        train_norms: Whether the towers' LayerNorms are trained along.
        exchanges: Whether a stream can hear the other anywhere in the walk.
    """

    def __init__(
        self, layers: Iterable[FusionLayer], *, train_norms: bool = False, exchanges: bool = True
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.train_norms = train_norms
        self.exchanges = exchanges

    def attach(self, audio_tower: Tower, video_tower: Tower) -> None:
        """Meet the towers, once, before the first walk; both may be one.

        The only place where a method frees frozen weights, by ``requires_grad``. A method that overrides this
        calls it too.

        Args:
            audio_tower: Tower of the sound.
            video_tower: Tower of the frames.
        """
        if self.train_norms:
            for tower in (audio_tower, video_tower):
                free_norms(tower)

    def embed(self, audio: Tensor, video: Tensor, notes: Notes) -> tuple[Tensor, Tensor]:
        """Act on tokens that have their positions, before the norm that some towers (CLIP) begin with."""
        return audio, video

    def open(self, audio: Tensor, video: Tensor, notes: Notes) -> tuple[Tensor, Tensor]:
        """Prepare the streams before the first block; a method may append tokens here."""
        return audio, video

    def close(self, audio: Tensor, video: Tensor, notes: Notes) -> tuple[Tensor, Tensor]:
        """Undo :meth:`open` behind the towers' final norms: take out what was appended."""
        return audio, video

    def losses(self, notes: Notes, foreground: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
        """What this method adds to the task's loss in training.

        Args:
            notes: What its layers left in this forward pass.
            foreground: Which segments take part and show an event, (batch * T,) bool.
            valid: Which segments exist in their files, (batch * T,) bool; ``None``: all.

        Returns:
            Means over the batch by name, scalars with gradient, their weights applied.
        """
        return {}


@dataclass(frozen=True)
class BlockSizes:
    """The sizes that a layer is built for.

    Attributes:
        audio_dim: Channels of the audio block.
        video_dim: Channels of the video block.
        audio_heads: Attention heads of the audio block.
        video_heads: Attention heads of the video block.
        audio_length: Sound tokens of one segment at this block, prefix tokens included.
        video_length: Frame tokens of one segment at this block.
        segments: Time steps per clip, T.
    """

    audio_dim: int
    video_dim: int
    audio_heads: int = 1
    video_heads: int = 1
    audio_length: int = 0
    video_length: int = 0
    segments: int = 1


BlockPairs = Sequence[BlockSizes]
