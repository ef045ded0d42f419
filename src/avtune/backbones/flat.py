"""Towers without stages: one grid and one width from the first block to the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from avtune.backbones.tower import BackboneError, FrozenBlock, Tower


class FlatTower(Tower):
    """A tower without stages (ViT, EVA): one grid and one width from first to last.

    Attributes:
        any_size: Whether images of another size than ``picture_size`` are taken.
    """

    def __init__(self, model: Any, blocks: Sequence[FrozenBlock], *, name: str) -> None:
        super().__init__(model, blocks, [range(len(blocks))], name=name)
        self.any_size: bool = model.dynamic_img_size
        model.blocks = nn.Sequential()

    def lengths(self, height: int, width: int) -> tuple[int, ...]:
        """See :meth:`Tower.lengths`; the same number for every block."""
        rows, columns = self._taken(height, width)
        return (rows * columns + self.prefix_tokens,) * len(self.blocks)

    def _taken(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of whole patches; refuses a picture that cannot be embedded."""
        rows, columns = self.grid(height, width)
        if (height, width) == self.picture_size:
            return rows, columns
        if not self.any_size:
            raise BackboneError(
                f"{self.name} takes {self.image_size}x{self.image_size} images only, not {height}x{width}; "
                f"resize them or create the tower with image_size={max(height, width)}"
            )
        if rows < 1 or columns < 1:
            raise BackboneError(
                f"an image of {height}x{width} holds no whole patch of {self.name} "
                f"({self.patch_size}x{self.patch_size}); give a larger image or spectrogram"
            )
        return rows, columns

    def _whole_patches(self, images: Tensor) -> Tensor:
        """Crop to whole patches, as a strided convolution does; refuse what cannot be embedded."""
        rows, columns = self._taken(*images.shape[-2:])
        if images.shape[-2:] == self.picture_size:
            return images
        return images[..., : rows * self.patch_size, : columns * self.patch_size]

    def _resampled_sequence(self, patches: Tensor) -> Tensor:
        """Prefix tokens and patches plus the position table, interpolated along its length."""
        model = self.model
        patches = patches.flatten(1, -2)
        prefix = [
            token.expand(len(patches), -1, -1)
            for name in ("cls_token", "reg_token", "dist_token")
            if (token := getattr(model, name, None)) is not None
        ]
        whole = torch.cat([*prefix, patches], dim=1)
        if model.pos_embed is None:
            return whole
        length = patches.shape[1] if model.no_embed_class else whole.shape[1]
        table = model.pos_embed.transpose(1, 2)
        table = nn.functional.interpolate(table, size=length, mode="linear").transpose(1, 2)
        if model.no_embed_class:
            return torch.cat([*prefix, patches + table], dim=1)
        return whole + table
