"""Views of timm's ``Eva`` family: EVA, EVA-02, Perception Encoder, DINOv3 and other rotary ViTs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avtune.backbones.flat import FlatTower
from avtune.backbones.timm_loading import timm
from avtune.backbones.tower import FrozenBlock, Positions, Resampling
from avtune.backbones.vit import attend_with_extra

EvaBlock = timm.models.eva.EvaBlock
EvaBlockPostNorm = timm.models.eva.EvaBlockPostNorm


class RotaryBlock(FrozenBlock):
    """An EVA block: a layer scale kept as a bare parameter, and (mostly) a rotary embedding.

    Attributes:
        index: Its place in the tower: with "mixed" rotary embeddings each block has a table of its own.
    """

    def __init__(self, block: Any, index: int) -> None:
        super().__init__(
            block,
            dim=block.norm1.weight.numel(),
            heads=block.attn.num_heads,
            norm_after=isinstance(block, EvaBlockPostNorm),
        )
        self.index = index

    def _scale_attention(self, x: Tensor) -> Tensor:
        scale: Tensor | None = self.block.gamma_1
        return x if scale is None else scale * x

    def _scale_feed(self, x: Tensor) -> Tensor:
        scale: Tensor | None = self.block.gamma_2
        return x if scale is None else scale * x

    def _rotary(self, positions: Positions, length: int) -> Tensor | None:
        """This block's table for ``length`` tokens; tokens beyond the grid are turned by an angle of zero."""
        if positions is None:
            return None
        # (blocks, heads, patches, 2 * head dim) where every block has its own, else (patches, 2 * head dim).
        table = positions[self.index] if positions.ndim == 4 else positions
        beyond = length - self.block.attn.num_prefix_tokens - table.shape[-2]
        if beyond <= 0:
            return table
        half = (*table.shape[:-2], beyond, table.shape[-1] // 2)
        return torch.cat([table, torch.cat([table.new_zeros(half), table.new_ones(half)], dim=-1)], dim=-2)

    def _attention(self, x: Tensor, positions: Positions, extra: Tensor | None) -> Tensor:
        if extra is None:
            whole: Tensor = self.block.attn(x, rope=self._rotary(positions, x.shape[1]))
            return whole
        rotary = self._rotary(positions, x.shape[1] + extra.shape[1])
        return attend_with_extra(self.block.attn, x, extra, rotary)

    def _attention_along(self, x: Tensor, bias: Tensor | None) -> Tensor:
        along: Tensor = self.block.attn(x, attn_mask=bias)
        return along


class EvaTower(FlatTower):
    """An ``Eva`` of timm: learned positions, rotary ones, or both."""

    def __init__(self, model: Any, *, name: str, depth: int | None = None) -> None:
        blocks = [RotaryBlock(block, index) for index, block in enumerate(model.blocks[:depth])]
        super().__init__(model, blocks, name=name)

    @classmethod
    def reduced(cls, model: Any, depth: int) -> dict[str, Any]:
        """See :meth:`Tower.reduced`."""
        kept = model.blocks[: min(depth, len(model.blocks))]
        arguments: dict[str, Any] = {"depth": len(kept)}
        shared = [getattr(block.attn, "num_kv_heads", None) for block in kept]
        # Some architectures list the heads that share keys block by block: the list must be cut as well.
        if None not in shared:
            arguments["num_kv_heads"] = tuple(shared)
        return arguments

    def place(self, images: Tensor, *, resampling: Resampling = "grid") -> tuple[Tensor, Positions]:
        """See :meth:`Tower.place`; the positions are the rotary table of this grid, if there is one.

        A rotary table is computed for the grid itself, whatever ``resampling`` says of the learned positions.
        """
        images = self._whole_patches(images)
        patches = self.model.patch_embed(images)
        tokens, positions = self.model._pos_embed(patches)
        if resampling == "sequence" and images.shape[-2:] != self.picture_size:
            tokens = self._resampled_sequence(patches)
        return tokens, positions
