"""What a siamese encoder begins from: the blocks, kernels and positions of a vision transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avtune.backbones import create_tower
from avtune.backbones.ast import AST_VARIANTS, ASTTower
from avtune.backbones.timm_loading import timm
from avtune.backbones.tower import BackboneError
from avtune.backbones.vit import ViTTower
from avtune.pretrain.blocks import Block
from avtune.pretrain.patches import resampled, stretched

Attention = timm.layers.Attention


@dataclass(frozen=True)
class Backbone:
    """The parts of a pretrained vision transformer, all of which may be trained.

    Attributes:
        name: Its name.
        blocks: timm's blocks, in order.
        norm: The norm behind them.
        before: Module between embedding and first block (``norm_pre``).
        kernel: Patch convolution (dim, 3, patch, patch), or (dim, 1, patch, patch) of a tower of sound.
        bias: Its bias (dim,).
        positions: Position table (patches, dim) without class and other prefix tokens, row by row.
        grid: Rows and columns of that table.
        image_size: Side of the square frames, pixels.
        prefix: Class and other tokens in front, which the authors carry along and avtune leaves away.
        mean: Mean per channel of RGB in [0, 1] that frames are normalised by.
        std: Standard deviation per channel.
    """

    name: str
    blocks: tuple[Any, ...]
    norm: nn.LayerNorm
    before: nn.Module
    kernel: Tensor
    bias: Tensor
    positions: Tensor
    grid: tuple[int, int]
    image_size: int
    prefix: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def dim(self) -> int:
        """Channels."""
        return self.kernel.shape[0]

    @property
    def heads(self) -> int:
        """Attention heads of a block."""
        heads: int = self.blocks[0].attn.num_heads
        return heads

    @property
    def patch(self) -> int:
        """Side of a patch, pixels."""
        return self.kernel.shape[-1]

    @property
    def of_sound(self) -> bool:
        """Whether it was pretrained on spectrograms."""
        return self.kernel.shape[1] == 1

    def sound_kernel(self) -> Tensor:
        """(dim, 1, patch, patch): the mean over RGB, as the paper's section 3.1; of a tower of sound its own."""
        return self.kernel.mean(dim=1, keepdim=True)

    def frame_kernel(self) -> Tensor:
        """(dim, 3, patch, patch): its own; of a tower of sound a third for each colour, so that grey acts as sound."""
        return self.kernel.expand(-1, 3, -1, -1) / 3 if self.of_sound else self.kernel

    def sound_positions(self, grid: tuple[int, int]) -> Tensor:
        """Positions of a spectrogram's patches (rows * columns, dim).

        The table stretched along its raster order, as AVSiam; of a tower of sound, whose table has frequency and time
        as its axes, resampled in two dimensions.
        """
        if self.of_sound:
            return resampled(self.positions, self.grid, grid)
        return stretched(self.positions, grid[0] * grid[1])

    def frame_positions(self) -> Tensor:
        """Positions of a frame's patches (rows * columns, dim)."""
        side = self.image_size // self.patch
        return resampled(self.positions, self.grid, (side, side)) if self.of_sound else self.positions


def take_backbone(
    name: str,
    *,
    pretrained: bool = True,
    depth: int | None = None,
    image_size: int | None = None,
    device: torch.device | str | None = None,
) -> Backbone:
    """Build a vision transformer and take it apart.

    Args:
        name: As for :func:`avtune.backbones.create_tower`: ``vit_base_patch16_224.augreg_in21k``, ``nano``, ``ast``.
        pretrained: Load its weights.
        depth: Keep only the first blocks.
        image_size: Side of the frames; ``None``: as it was trained on; 224 for a tower of sound.
        device: Where it is built; ``meta`` to count only.

    Raises:
        BackboneError: There is no such tower, it is no plain vision transformer, or its weights are out of reach.
    """
    of_sound = name in AST_VARIANTS
    tower = create_tower(
        name, pretrained=pretrained, depth=depth, device=device, image_size=None if of_sound else image_size
    )
    blocks = tuple(block.block for block in tower.blocks)
    if not isinstance(tower, ViTTower) or not all(map(_plain, blocks)):
        raise BackboneError(
            f"{name} is no plain vision transformer, whose blocks two modalities can share; choose a ViT such as "
            "vit_base_patch16_224.augreg_in21k, or ast"
        )
    model = tower.model
    if model.pos_embed is None or not isinstance(model.norm, nn.LayerNorm):
        raise BackboneError(f"{name} has no position table or no final norm; choose another ViT")
    if isinstance(tower, ASTTower):
        grid, image_size = tower.table_grid, image_size or 224
    else:
        rows, columns = model.patch_embed.grid_size
        grid, image_size = (int(rows), int(columns)), tower.image_size
    kernel = model.patch_embed.proj
    bias = torch.zeros_like(kernel.weight[:, 0, 0, 0]) if kernel.bias is None else kernel.bias
    for part in (*blocks, model.norm, model.norm_pre):
        part.requires_grad_(True).train()
    return Backbone(
        name, blocks, model.norm, model.norm_pre, kernel.weight.detach(), bias.detach(),
        model.pos_embed.detach()[0, -grid[0] * grid[1] :], grid, image_size,
        prefix=model.pos_embed.shape[1] - grid[0] * grid[1], mean=tower.mean, std=tower.std,
    )  # fmt: skip


def _plain(block: Any) -> bool:
    return type(block) is Block and type(block.attn) is Attention and block.attn.gate is None
