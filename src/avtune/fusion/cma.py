"""Cross-modal attention alone: LAVISH's latent tokens in front of whatever a stream trains (LAVISH, Table 5).

The paper compares its adapter with others "with" and "without CMA": an adapter, a Compacter or a low-rank map that
reads its own stream, or one that reads what the stream has heard of the other. Here the two halves are two settings:
``fusion: cma`` is the attention, ``tuning`` the module behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor

from avtune.fusion.base import Block, BlockPairs, Fusion, FusionLayer, Notes
from avtune.fusion.lavish import LatentAttention, LavishConfig


@dataclass(frozen=True)
class CmaConfig:
    """Settings of cross-modal attention; the defaults are LAVISH's.

    Attributes:
        direction: Which stream hears of the other: ``both``, ``audio_to_visual``, ``visual_to_audio`` or ``none``.
        sites: At which branches there is attention: ``both``, ``attention`` or ``mlp``.
        latents: Latent tokens m at each branch; 0: attention over all tokens, with no weights but its gate.
        latent_init: See ``LavishConfig``.
        gate_compression: See ``LavishConfig``.
        values: See ``LavishConfig``.
    """

    direction: Literal["both", "audio_to_visual", "visual_to_audio", "none"] = "both"
    sites: Literal["both", "attention", "mlp"] = "both"
    latents: int = 2
    latent_init: Literal["normal", "uniform", "zeros"] = "normal"
    gate_compression: bool = True
    values: Literal["other", "own"] = "other"


PRESETS = {
    "paper": CmaConfig(),
    "official_ave": CmaConfig(latent_init="uniform", gate_compression=False),
    "without_latents": CmaConfig(latents=0),
}


class CmaLayer(FusionLayer):
    """A pair of blocks in each of which the trained part hears of the other stream."""

    def __init__(self, audio_dim: int, video_dim: int, config: CmaConfig) -> None:
        super().__init__()
        settings = LavishConfig(
            latents=config.latents,
            latent_init=config.latent_init,
            gate_compression=config.gate_compression,
            values=config.values,
        )
        to_audio = config.direction in ("both", "visual_to_audio")
        to_video = config.direction in ("both", "audio_to_visual")

        def attentions(site: str) -> tuple[LatentAttention, LatentAttention]:
            here = config.sites in ("both", site)
            return (
                LatentAttention(audio_dim, video_dim, settings, hears_other=here and to_audio),
                LatentAttention(video_dim, audio_dim, settings, hears_other=here and to_video),
            )

        self.audio_attention, self.video_attention = attentions("attention")
        self.audio_mlp, self.video_mlp = attentions("mlp")

    def forward(
        self, audio: Tensor, video: Tensor, audio_block: Block, video_block: Block, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        """Equations 4 and 5 with the tuning's module in place of LAV's: both streams hear before either moves.

        Y = X + MHA'(X; X'), then X = Y + MLP'(Y; Y'): F'(x; x') is the frozen branch of x with the stream's trained
        module, which reads CMA(x, S', S') where it would read x. Shapes as in
        :meth:`avtune.fusion.base.FusionLayer.forward`.
        """
        a = audio_block.hearing(partial(self.audio_attention, other=video))
        v = video_block.hearing(partial(self.video_attention, other=audio))
        audio, video = audio + a.attend(audio), video + v.attend(video)

        a = audio_block.hearing(partial(self.audio_mlp, other=video))
        v = video_block.hearing(partial(self.video_mlp, other=audio))
        return audio + a.feed(audio), video + v.feed(video)


def build_cma(pairs: BlockPairs, config: CmaConfig) -> Fusion:
    """A layer of cross-modal attention for each pair of blocks.

    Args:
        pairs: Sizes of the paired blocks, in the order of the walk.
        config: Settings.
    """
    return Fusion([CmaLayer(pair.audio_dim, pair.video_dim, config) for pair in pairs])
