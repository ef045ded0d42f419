"""MBT: attention bottlenecks for multimodal fusion (Nagrani et al., NeurIPS 2021), by the rules of its authors' code.

Symbols of the paper and names here: z_fsn ``bottlenecks``; B its number; L_f ``fusion_from``. Until layer L_f each
stream passes its own transformer alone; from there on all that one stream learns of the other has to pass through a
few bottleneck tokens, which both read and both rewrite. ``docs/methods/mbt.md`` says what differs from the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.fusion.appended import append
from avtune.fusion.base import Block, BlockPairs, Fusion, FusionLayer, Notes
from avtune.options import OptionError


@dataclass(frozen=True)
class MbtConfig:
    """Settings of MBT; the defaults are those of its authors' released configuration.

    Attributes:
        bottlenecks: Bottleneck tokens B.
        fusion_from: First layer with bottlenecks, L_f, from 0; ``None``: behind two thirds of the layers, which is
            the authors' 8 of 12.
        exchange: Whether the streams average the bottlenecks; without, each keeps a copy of its own and nothing
            passes from one to the other.
        bottlenecks_in_testing: Whether the bottlenecks take part out of training too.
        init: ``normal`` (standard deviation 0.02), ``unit_normal``, or ``positions``: the video tower's position
            table, resized to B places, as the authors' code starts from a pretrained transformer.
        towers: ``trained``: all weights of both towers, as the paper, or ``frozen``: the bottlenecks alone.
        stochastic_depth: Largest probability with which a residual branch is left out for a segment in training;
            it rises linearly from 0 at the first layer. As in the authors' code, branches that stay are not
            scaled up.
    """

    bottlenecks: int = 4
    fusion_from: int | None = None
    exchange: bool = True
    bottlenecks_in_testing: bool = True
    init: Literal["normal", "unit_normal", "positions"] = "normal"
    towers: Literal["trained", "frozen"] = "trained"
    stochastic_depth: float = 0.0


PAPER = MbtConfig()
PRESETS = {
    "paper": PAPER,
    "official_pretrained": replace(PAPER, init="positions"),
    "official_audioset": replace(PAPER, init="positions", stochastic_depth=0.3),
    "frozen": replace(PAPER, towers="frozen"),
    # What the MA-AVT authors' repository calls MBT: no stream ever hears of the other.
    "imitation": replace(PAPER, bottlenecks=5, fusion_from=0, exchange=False, init="unit_normal"),
}


class MbtLayer(FusionLayer):
    """A pair of blocks; from L_f on, bottleneck tokens stand behind both streams.

    Args:
        bottlenecks: Tokens that enter in front of this layer; ``None``: those of the layer before, if any, go on.
        count: Bottleneck tokens that stand behind the streams in this layer.
        drop: Probability of leaving a residual branch out for a segment in training.
        config: Settings.
    """

    def __init__(self, bottlenecks: Tensor | None, count: int, drop: float, config: MbtConfig) -> None:
        super().__init__()
        self.bottlenecks = None if bottlenecks is None else nn.Parameter(bottlenecks)
        self.count, self.drop, self.config = count, drop, config

    def forward(
        self, audio: Tensor, video: Tensor, audio_block: Block, video_block: Block, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        """[X_a || Z_a] = Block_a([X_a || Z]), [X_v || Z_v] = Block_v([X_v || Z]), then Z = (Z_a + Z_v) / 2.

        Shapes as in :meth:`avtune.fusion.base.FusionLayer.forward`; Z stands behind both streams.
        """
        fused = self.count > 0 and (self.training or self.config.bottlenecks_in_testing)
        if fused and self.bottlenecks is not None:
            audio, video = append(audio, self.bottlenecks), append(video, self.bottlenecks)
        audio = self._kept(audio, audio_block.attend(audio))
        video = self._kept(video, video_block.attend(video))
        audio = self._kept(audio, audio_block.feed(audio))
        video = self._kept(video, video_block.feed(video))
        if fused and self.config.exchange:
            both = (audio[:, -self.count :] + video[:, -self.count :]) / 2
            audio = torch.cat([audio[:, : -self.count], both], dim=1)
            video = torch.cat([video[:, : -self.count], both], dim=1)
        return audio, video

    def _kept(self, x: Tensor, branch: Tensor) -> Tensor:
        """``x + branch``, the branch left out for some rows in training."""
        if not (self.training and self.drop):
            return x + branch
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.drop
        return x + branch * kept


class Mbt(Fusion):
    """MBT's layers, and the towers that it trains.

    Args:
        layers: The layers.
        first: Index of the first layer with bottlenecks.
        config: Settings.
    """

    def __init__(self, layers: Sequence[MbtLayer], first: int, config: MbtConfig) -> None:
        super().__init__(layers)
        self.first, self.config = first, config

    def attach(self, audio_tower: Tower, video_tower: Tower) -> None:
        """See :meth:`Fusion.attach`; frees the towers' weights, and takes positions for the bottlenecks.

        Raises:
            OptionError: The bottlenecks are to start from positions, and the tower has no table of them.
        """
        super().attach(audio_tower, video_tower)
        if self.config.towers == "trained":
            audio_tower.requires_grad_(True)
            video_tower.requires_grad_(True)
        if self.config.init == "positions":
            bottlenecks = self.layers[self.first].bottlenecks
            assert isinstance(bottlenecks, Tensor)
            with torch.no_grad():
                bottlenecks.copy_(_resized_positions(video_tower, len(bottlenecks)))

    def close(self, audio: Tensor, video: Tensor, notes: Notes) -> tuple[Tensor, Tensor]:
        """Take the bottlenecks out."""
        if not (self.training or self.config.bottlenecks_in_testing):
            return audio, video
        return audio[:, : -self.config.bottlenecks], video[:, : -self.config.bottlenecks]


def build_mbt(pairs: BlockPairs, config: MbtConfig) -> Fusion:
    """A layer for each pair of blocks, with bottlenecks from L_f on.

    Args:
        pairs: Sizes of the paired blocks, in the order of the walk.
        config: Settings.

    Returns:
        The method, ready for ``DualEncoder``.

    Raises:
        OptionError: The settings do not fit each other or the towers.
    """
    widths = {width for pair in pairs for width in (pair.audio_dim, pair.video_dim)}
    if len(widths) > 1:
        raise OptionError(
            f"mbt's bottlenecks pass through both towers, which need one width, not {sorted(widths)}; take ViTs alike"
        )
    first = len(pairs) * 2 // 3 if config.fusion_from is None else config.fusion_from
    if not 0 <= first < len(pairs):
        raise OptionError(
            f"mbt option 'fusion_from' is {first}; the towers have layers 0 to {len(pairs) - 1}"
        )
    if config.bottlenecks < 1:
        raise OptionError(
            "mbt option 'bottlenecks' has to be at least 1; for no exchange set exchange to false"
        )
    if not 0 <= config.stochastic_depth < 1:
        raise OptionError(
            f"mbt option 'stochastic_depth' is {config.stochastic_depth}; it has to be in [0, 1)"
        )
    start = torch.randn(config.bottlenecks, widths.pop()) * (1.0 if config.init == "unit_normal" else 0.02)
    layers = [
        MbtLayer(
            start if number == first else None,
            config.bottlenecks if number >= first else 0,
            config.stochastic_depth * number / max(len(pairs) - 1, 1),
            config,
        )
        for number in range(len(pairs))
    ]
    return Mbt(layers, first, config)


def _resized_positions(tower: Tower, count: int) -> Tensor:
    """The patches' positions, resized bilinearly, corners on corners, to a grid of ``count`` places: (count, dim)."""
    table = getattr(tower.model, "pos_embed", None)
    if table is None:
        raise OptionError(
            f"{tower.name} has no position table to start the bottlenecks from; choose init normal"
        )
    rows, columns = tower.model.patch_embed.grid_size
    grid = table[:, -rows * columns :].reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
    height = int(count**0.5)
    if count % height:
        raise OptionError(
            f"mbt cannot lay {count} bottlenecks out as a grid of {height} rows; choose init normal"
        )
    resized = F.interpolate(grid, (height, count // height), mode="bilinear", align_corners=True)
    return resized.flatten(2)[0].T
