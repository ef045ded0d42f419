"""Prompt tuning: trained tokens beside a stream's own (visual prompt tuning, Jia et al., ECCV 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from avtune.backbones import FrozenBlock, Tower
from avtune.backbones.tower import Positions
from avtune.tuning.base import BlockTuning, Hear, Stream, Tuning, TuningError, by_stream, require_one_tower


@dataclass(frozen=True)
class PromptConfig:
    """Settings of prompt tuning.

    Attributes:
        length: Prompts p of a stream.
        depth: ``deep``: new ones in every block, (Z_i, _) = L_i([X, P_i]); ``shallow``: one set that enters before the
            first block and walks on with the stream to the end.
        shared: Both streams, over one tower, train the same prompts.
    """

    length: int = 10
    depth: Literal["deep", "shallow"] = "deep"
    shared: bool = False


PRESETS = {
    "deep": PromptConfig(),
    "shallow": PromptConfig(depth="shallow"),
    "lavish_table_5": PromptConfig(length=32),
}


class DeepPrompts(BlockTuning):
    """Prompts of one block, as extra keys and values of its attention.

    In visual prompt tuning they enter as tokens, and what the block makes of them is replaced by the next block's.
    Nobody reads their outputs, so they need no queries and no MLP: the stream's tokens come out the same.

    Args:
        length: Prompts p.
        dim: Channels of the block.
        patch_size: Side of a patch, pixels, for the range that they start in.
    """

    def __init__(self, length: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.prompts = _prompts(length, dim, patch_size)

    def attend(
        self, block: FrozenBlock, x: Tensor, positions: Positions, extra: Tensor | None, hear: Hear
    ) -> Tensor:
        """See :meth:`BlockTuning.attend`; what is heard of the other stream enters the prompts."""
        prompts = hear(self.prompts.expand(len(x), -1, -1))
        return block.attend(x, positions, extra=prompts if extra is None else torch.cat([extra, prompts], 1))


class ShallowPrompts(Tuning):
    """Prompts that enter behind a stream's tokens and leave before pooling.

    Args:
        streams: Parts that train nothing.
        prompts: Tokens (p, dim) by stream, or under ``both``.
    """

    def __init__(self, streams: dict[str, nn.ModuleList], prompts: dict[str, nn.Parameter]) -> None:
        super().__init__(streams)
        self.prompts = nn.ParameterDict(prompts)
        self.tokens = len(next(iter(prompts.values())))

    def open(self, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """Append the prompts: (batch, length, dim) to (batch, length + p, dim)."""
        return self._append("audio", audio), self._append("video", video)

    def close(self, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """Take the prompts out again."""
        return audio[:, : -self.tokens], video[:, : -self.tokens]

    def _append(self, stream: Stream, x: Tensor) -> Tensor:
        prompts = self.prompts["both" if "both" in self.prompts else stream]
        return torch.cat([x, prompts.expand(len(x), -1, -1)], dim=1)


def build_prompts(audio_tower: Tower, video_tower: Tower, config: PromptConfig) -> Tuning:
    """Prompts for both streams.

    Args:
        audio_tower: Tower of the sound.
        video_tower: Tower of the frames; may be the same.
        config: Settings.

    Raises:
        TuningError: There is no prompt; shallow prompts are to walk a tower of stages; or streams of two towers are
            to share their prompts.
    """
    if config.length < 1:
        raise TuningError(f"prompt tuning needs a length of at least 1, not {config.length}")
    towers = {"audio": audio_tower, "video": video_tower}
    if config.depth == "deep":
        sizes = {block: tower.patch_size for tower in towers.values() for block in tower.blocks}

        def make(block: FrozenBlock) -> DeepPrompts:
            return DeepPrompts(config.length, block.dim, sizes[block])

        return Tuning(by_stream(audio_tower, video_tower, config.shared, make))

    for tower in towers.values():
        if len(tower.stages) > 1:
            raise TuningError(
                f"shallow prompts walk with the tokens from the first block to the last, but {tower.name} cuts tokens "
                "into windows of a grid and merges them between stages, where a prompt has no cell; choose deep "
                "prompts, or a tower without stages (ViT, EVA)"
            )
    if config.shared:
        require_one_tower(audio_tower, video_tower)
        towers = {"both": video_tower}
    return ShallowPrompts(
        by_stream(audio_tower, video_tower, False, lambda block: BlockTuning()),
        {
            stream: _prompts(config.length, tower.dims[0], tower.patch_size)
            for stream, tower in towers.items()
        },
    )


def _prompts(length: int, dim: int, patch_size: int) -> nn.Parameter:
    reach = math.sqrt(6 / (3 * patch_size**2 + dim))
    return nn.Parameter(torch.empty(length, dim).uniform_(-reach, reach))
