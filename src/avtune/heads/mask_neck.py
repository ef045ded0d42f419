"""From a tower's tokens to the four scales that the mask decoder reads, the finest first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class StageNeck(nn.Module):
    """The tokens at the end of each of four stages, each through a linear layer, resampled to its scale's grid.

    As LAVISH's and STG-CMA's code, which then resamples bicubically where a stage's grid is another.

    Args:
        stage_dims: Channels of the stages.
        channels: Channels of the scales.
        sides: Rows and columns of the scales.
    """

    def __init__(self, stage_dims: Sequence[int], channels: Sequence[int], sides: Sequence[int]) -> None:
        super().__init__()
        self.sides = tuple(sides)
        self.project = nn.ModuleList(
            nn.Linear(dim, width) for dim, width in zip(stage_dims, channels, strict=True)
        )

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Map (frames, places, dim) of each stage to (frames, channels, side, side) of each scale."""
        return [
            resampled(as_grid(project(tokens)), side)
            for tokens, project, side in zip(stages, self.project, self.sides, strict=True)
        ]


class GridNeck(nn.Module):
    """Four scales from the one grid of a plain vision transformer, after the simple feature pyramid of ViTDet.

    For a finer scale each token spells several cells (a transposed convolution whose kernel is as large as its
    stride); for a coarser one neighbouring tokens are averaged.

    Args:
        dim: Channels of the tokens.
        grid: Rows and columns of the tokens.
        channels: Channels of the scales.
        sides: Rows and columns of the scales.
    """

    def __init__(self, dim: int, grid: int, channels: Sequence[int], sides: Sequence[int]) -> None:
        super().__init__()
        self.sides = tuple(sides)
        factors = [max(1, math.ceil(side / grid)) for side in sides]
        self.spell = nn.ModuleList(
            nn.ConvTranspose2d(dim, width, factor, stride=factor)
            for width, factor in zip(channels, factors, strict=True)
        )

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Map the last of the stages (frames, places, dim) to (frames, channels, side, side) of each scale."""
        cells = as_grid(stages[-1])
        scales = []
        for spell, side in zip(self.spell, self.sides, strict=True):
            coarser = side < cells.shape[-1]
            own = F.adaptive_avg_pool2d(cells, side) if coarser else cells
            scales.append(resampled(spell(own), side))
        return scales


def as_grid(tokens: Tensor) -> Tensor:
    """Tokens of square frames (frames, places, channels) as pictures (frames, channels, side, side)."""
    frames, places, channels = tokens.shape
    side = math.isqrt(places)
    return tokens.transpose(1, 2).reshape(frames, channels, side, side)


def resampled(pictures: Tensor, side: int) -> Tensor:
    """Pictures (frames, channels, height, width) at another size, bicubic; as they are where it is theirs."""
    if pictures.shape[-1] == side:
        return pictures
    return F.interpolate(pictures, size=(side, side), mode="bicubic", align_corners=False)
