"""No method at all: both streams pass their frozen towers, and only the head is trained (linear probing)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from avtune.fusion.base import Block, BlockPairs, Fusion, FusionLayer, Notes


@dataclass(frozen=True)
class FrozenConfig:
    """Settings of the plain walk.

    Attributes:
        train_norms: Train the towers' LayerNorms (norm tuning).
    """

    train_norms: bool = False


PRESETS = {"paper": FrozenConfig(), "norms": FrozenConfig(train_norms=True)}


class FrozenLayer(FusionLayer):
    """A pair of frozen blocks with nothing between them."""

    def forward(
        self, audio: Tensor, video: Tensor, audio_block: Block, video_block: Block, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        """X = X + MHA(X), then X = X + MLP(X), in each stream for itself."""
        audio = audio + audio_block.attend(audio)
        video = video + video_block.attend(video)
        return audio + audio_block.feed(audio), video + video_block.feed(video)


def build_frozen(pairs: BlockPairs, config: FrozenConfig) -> Fusion:
    """A plain layer for each pair of blocks."""
    return Fusion([FrozenLayer() for _ in pairs], train_norms=config.train_norms, exchanges=False)
