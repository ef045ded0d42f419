"""What every tuning is: parts per stream and block, around the two branches of a frozen block.

A fusion's layer sees a block through :class:`BoundBlock` and calls ``attend`` and ``feed``. What it gets is the frozen
branch together with what its stream trains there, whatever that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from torch import Tensor, nn

from avtune.backbones import FrozenBlock, Tower
from avtune.backbones.tower import Positions
from avtune.errors import AvtuneError
from avtune.tuning.norms import free_norms

Stream: TypeAlias = Literal["audio", "video"]
Hear: TypeAlias = Callable[[Tensor], Tensor]
"""Maps what a trained part reads, (batch, length, dim), to what it shall read instead, of the same shape."""


class TuningError(AvtuneError):
    """A tuning that does not fit the towers; the message says why and what to choose instead."""


class BlockTuning(nn.Module):
    """What one stream trains at one block. This base trains nothing: the frozen branches as they are.

    Each method returns a branch, without the residual add. ``hear`` is what a fusion puts in front of the trained
    part (see :meth:`BoundBlock.hearing`); where nothing stands beside a branch, the branch itself reads it.
    """

    def attend(
        self, block: FrozenBlock, x: Tensor, positions: Positions, extra: Tensor | None, hear: Hear
    ) -> Tensor:
        """The attention branch of tokens (batch, length, dim); ``extra`` as in ``FrozenBlock.attend``."""
        return block.attend(hear(x), positions, extra=extra)

    def feed(self, block: FrozenBlock, x: Tensor, hear: Hear) -> Tensor:
        """The MLP branch of tokens (batch, length, dim)."""
        return block.feed(hear(x))

    def attend_along(self, block: FrozenBlock, x: Tensor, bias: Tensor | None) -> Tensor:
        """The attention branch along another axis: only what sits inside the attention's weights acts there."""
        return block.attend_along(x, bias)


class BoundBlock:
    """A frozen block with the positions and the tuning of the stream that passes it, as a fusion's layer sees it.

    One tower may serve both streams at once, so what differs between them cannot live in the block.

    Args:
        block: The frozen block.
        positions: What ``Tower.embed`` returned for this stream.
        tuning: What the stream trains here; ``None``: nothing.
        hear: See :meth:`hearing`.
    """

    def __init__(
        self,
        block: FrozenBlock,
        positions: Positions,
        tuning: BlockTuning | None = None,
        hear: Hear | None = None,
    ) -> None:
        self.block, self.positions = block, positions
        self.tuning = BlockTuning() if tuning is None else tuning
        self.hear = _as_it_is if hear is None else hear
        self.dim, self.heads = block.dim, block.heads

    def attend(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """The attention branch, without the residual add; ``extra`` tokens are keys and values only."""
        return self.tuning.attend(self.block, x, self.positions, extra, self.hear)

    def feed(self, x: Tensor) -> Tensor:
        """The MLP branch, without the residual add."""
        return self.tuning.feed(self.block, x, self.hear)

    def attend_along(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The attention branch along another axis, such as time."""
        return self.tuning.attend_along(self.block, x, bias)

    def group(self, x: Tensor) -> Tensor:
        """Tokens by window."""
        return self.block.group(x)

    def ungroup(self, x: Tensor) -> Tensor:
        """Windows back to tokens."""
        return self.block.ungroup(x)

    def hearing(self, hear: Hear) -> BoundBlock:
        """This block with ``hear`` in front of what is trained in it.

        Args:
            hear: Maps the tokens that the trained part would read to those that it reads, such as attention to
                the other stream.

        Returns:
            A view; this block stays as it is.
        """
        return BoundBlock(self.block, self.positions, self.tuning, hear)


class Tuning(nn.Module):
    """What is trained within the streams.

    Args:
        streams: Parts by block, under ``audio`` and ``video``, or under ``both`` for one set that both streams use.
        train_norms: Whether the towers' norms are trained along.

    Attributes:
        tokens: Tokens that :meth:`open` adds to each stream and :meth:`close` takes out.
    """

    tokens: int = 0

    def __init__(self, streams: Mapping[str, nn.ModuleList], *, train_norms: bool = False) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(streams)
        self.train_norms = train_norms

    def at(self, stream: Stream, index: int) -> BlockTuning:
        """What ``stream`` trains at its block ``index``."""
        parts = self.streams["both" if "both" in self.streams else stream]
        part: BlockTuning = parts[index]  # type: ignore[index]
        return part

    def part(self, audio_tower: Tower, video_tower: Tower) -> tuple[Tower, Tower]:
        """The towers to walk: a tuning that trains their own weights may take a shared one apart."""
        return audio_tower, video_tower

    def attach(self, audio_tower: Tower, video_tower: Tower) -> None:
        """Free what is trained of the towers' own weights, once, before the first walk."""
        if self.train_norms:
            free_norms(audio_tower)
            free_norms(video_tower)

    def open(self, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """Prepare the streams before the first block, and before the fusion does."""
        return audio, video

    def close(self, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """Undo :meth:`open` behind the towers' final norms, and after the fusion has closed."""
        return audio, video


def by_stream(
    audio_tower: Tower, video_tower: Tower, shared: bool, make: Callable[[FrozenBlock], BlockTuning]
) -> dict[str, nn.ModuleList]:
    """A part for each block of each stream.

    Args:
        audio_tower: Tower of the sound.
        video_tower: Tower of the frames; may be the same.
        shared: One set of parts for both streams.
        make: Makes the part of a block.

    Returns:
        What :class:`Tuning` takes.

    Raises:
        TuningError: Streams of two towers are to share their parts.
    """
    if not shared:
        return {
            "audio": nn.ModuleList(make(block) for block in audio_tower.blocks),
            "video": nn.ModuleList(make(block) for block in video_tower.blocks),
        }
    require_one_tower(audio_tower, video_tower)
    return {"both": nn.ModuleList(make(block) for block in video_tower.blocks)}


def require_one_tower(audio_tower: Tower, video_tower: Tower) -> None:
    """Refuse to share between streams of two towers.

    Raises:
        TuningError: The towers are two.
    """
    if audio_tower is not video_tower:
        raise TuningError(
            "shared=True lets both streams train the same weights, which needs one tower for both; leave "
            "audio_tower out, or set shared=False"
        )


def _as_it_is(x: Tensor) -> Tensor:
    return x
