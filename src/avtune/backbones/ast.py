"""The Audio Spectrogram Transformer (Gong et al., 2021): a distilled DeiT over overlapping patches of sound."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from avtune.backbones.pretrained import load_published
from avtune.backbones.timm_loading import timm
from avtune.backbones.tower import BackboneError, Positions, Resampling
from avtune.backbones.vit import ViTTower

PATCH, STRIDE = 16, 10
MELS, STEPS = 128, 1024
AUDIOSET_GRID = (12, 101)
AUDIOSET_FILE = "audioset_10_10_0.4593.pth"
AUDIOSET_SOURCE = "the links in github.com/YuanGongND/ast"
CLASSES = 527
# The class heads of DeiT, which AST carries along unused, and AST's own.
HEADS = re.compile(r"v\.head(_dist)?\.(weight|bias)|mlp_head\.[01]\.(weight|bias)")

PositionFit: TypeAlias = Literal["cut", "bilinear"]
"""How AST's positions are fitted to fewer patches than they were trained for; to more always bilinearly.

``cut``: the middle of the table, as AST's own code. ``bilinear``: as the LAVISH authors' copy of it.
"""


@dataclass(frozen=True)
class ASTVariant:
    """One AST.

    Attributes:
        body: timm's name of the DeiT whose blocks it has.
        audioset: Trained on AudioSet; otherwise it begins from that DeiT's ImageNet weights.
    """

    body: str
    audioset: bool


AST_VARIANTS: dict[str, ASTVariant] = {
    "ast": ASTVariant("deit_base_distilled_patch16_384", audioset=True),
    "ast_base384": ASTVariant("deit_base_distilled_patch16_384", audioset=True),
    "ast_base384_imagenet": ASTVariant("deit_base_distilled_patch16_384", audioset=False),
    "ast_base224_imagenet": ASTVariant("deit_base_distilled_patch16_224", audioset=False),
    "ast_small224_imagenet": ASTVariant("deit_small_distilled_patch16_224", audioset=False),
    "ast_tiny224_imagenet": ASTVariant("deit_tiny_distilled_patch16_224", audioset=False),
}
"""The names under which ``create_tower`` builds an AST."""


class ASTTower(ViTTower):
    """An AST; pictures are log-mel spectrograms with mel bands as rows and time as columns.

    Patches of 16x16 overlap by 6, so that 128 bands of 1024 frames give 12x101 of them. Class and
    distillation token stand before the patches, and ``pool`` returns their mean.

    Attributes:
        table_grid: Rows and columns of the position table.
        position_fit: How that table is fitted to fewer patches.
    """

    audio_preset = "ast_second"

    def __init__(
        self,
        model: Any,
        *,
        name: str,
        depth: int | None = None,
        table_grid: tuple[int, int] = AUDIOSET_GRID,
        position_fit: PositionFit = "cut",
    ) -> None:
        if position_fit not in ("cut", "bilinear"):
            raise BackboneError(f"position_fit is {position_fit!r}; choose cut or bilinear")
        super().__init__(model, name=name, depth=depth)
        self.table_grid = table_grid
        self.position_fit: PositionFit = position_fit

    def _trained_size(self) -> tuple[int, int]:
        return MELS, STEPS

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """See :meth:`Tower.grid`; patches overlap, and what fills no whole patch at the end is dropped."""
        return (height - PATCH) // STRIDE + 1, (width - PATCH) // STRIDE + 1

    def place(self, images: Tensor, *, resampling: Resampling = "grid") -> tuple[Tensor, Positions]:
        """See :meth:`Tower.place`; by ``grid`` the positions are fitted as ``position_fit`` says."""
        grid = self._taken(*images.shape[-2:])
        model = self.model
        patches: Tensor = model.patch_embed.proj(images).flatten(2).transpose(1, 2)
        if resampling == "sequence" and grid != self.table_grid:
            return self._resampled_sequence(patches), None
        prefix = torch.cat([model.cls_token, model.dist_token], dim=1) + model.pos_embed[:, :2]
        table = model.pos_embed[:, 2:].unflatten(1, self.table_grid).permute(0, 3, 1, 2)
        table = fit_positions(table, grid, self.position_fit).flatten(2).transpose(1, 2)
        return torch.cat([prefix.expand(len(patches), -1, -1), patches + table], dim=1), None


def fit_positions(table: Tensor, grid: tuple[int, int], fit: PositionFit) -> Tensor:
    """Fit a position table to another grid.

    Args:
        table: (1, dim, rows, columns).
        grid: Rows and columns wanted.
        fit: What happens along an axis that becomes shorter; one that becomes longer is interpolated.

    Returns:
        (1, dim, rows, columns) of that grid.
    """
    if fit == "cut":
        for axis, wanted in ((2, grid[0]), (3, grid[1])):
            present = table.shape[axis]
            if wanted < present:
                table = table.narrow(axis, present // 2 - wanted // 2, wanted)
    if tuple(table.shape[2:]) == grid:
        return table
    return nn.functional.interpolate(table, size=grid, mode="bilinear")


def hear(body: Any, *, audioset: bool) -> tuple[int, int]:
    """Make a distilled DeiT an AST, in place.

    Args:
        body: timm's model for RGB. Its patch convolution becomes that of one channel and stride 10, weights
            summed over RGB.
        audioset: Give it a new position table of 12x101, to be loaded, instead of keeping its own.

    Returns:
        Rows and columns of its position table.
    """
    colour = body.patch_embed.proj
    place: dict[str, Any] = {"device": colour.weight.device, "dtype": colour.weight.dtype}
    mono = nn.Conv2d(1, colour.out_channels, PATCH, stride=STRIDE, **place)
    with torch.no_grad():
        mono.weight.copy_(colour.weight.sum(dim=1, keepdim=True))
        mono.bias.copy_(colour.bias)  # type: ignore[union-attr]
    body.patch_embed.proj = mono
    if not audioset:
        rows, columns = body.patch_embed.grid_size
        return int(rows), int(columns)
    length = AUDIOSET_GRID[0] * AUDIOSET_GRID[1] + 2
    body.pos_embed = nn.Parameter(torch.empty(1, length, colour.out_channels, **place))
    timm.layers.trunc_normal_(body.pos_embed, std=0.02)
    return AUDIOSET_GRID


def load_audioset(model: Any, path: Path, name: str) -> None:
    """Load the AST authors' AudioSet file, ``audioset_10_10_0.4593.pth`` or one of its form.

    Its keys are ``module.v.<DeiT's names>``; class heads are left out.

    Args:
        model: What :func:`hear` made.
        path: The file.
        name: The tower's name, for messages.

    Raises:
        BackboneError: The file is missing, unreadable, or not an AST of this size.
    """

    def rename(key: str) -> str | None:
        if HEADS.fullmatch(key):
            return None
        return key.removeprefix("v.")

    load_published(model, path, name, rename)


def head_parameters() -> int:
    """Size of AST's class head for AudioSet: a norm and a linear layer."""
    return 2 * 768 + 768 * CLASSES + CLASSES
