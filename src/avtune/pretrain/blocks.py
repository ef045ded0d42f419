"""Transformer blocks over packed sequences, with norms of their own for each modality."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from avtune.backbones.timm_loading import timm
from avtune.errors import AvtuneError
from avtune.pretrain.packing import Layout, Norm, Packed, attend_packed

Block = timm.models.vision_transformer.Block


class ModalityNorms(nn.Module):
    """Layer norms of which each token takes the one that its stretch of the layout names.

    Args:
        start: What all of them begin as copies of.
        norms: Names of those to have.
        epsilon: Added to variances; ``None``: as in ``start``.

    Raises:
        AvtuneError: ``epsilon`` is not above 0.
    """

    def __init__(self, start: nn.LayerNorm, norms: Sequence[Norm], epsilon: float | None = None) -> None:
        super().__init__()
        if epsilon is not None and not epsilon > 0:
            raise AvtuneError(f"block_epsilon is {epsilon:g}; set it to a number above 0, or to null")
        self.of = nn.ModuleDict({norm: copy.deepcopy(start) for norm in norms})
        for norm in self.of.values():
            norm.eps = start.eps if epsilon is None else epsilon  # type: ignore[assignment]

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Normed tokens; ``x`` (all tokens, dim)."""
        if len(layout.norms) == 1:
            only: Tensor = self.of[layout.norms[0][0]](x)
            return only
        parts = torch.split(x, [count for _, count in layout.norms])
        return torch.cat([self.of[norm](part) for (norm, _), part in zip(layout.norms, parts, strict=True)])


class PackedBlock(nn.Module):
    """A ViT block over packed tokens: attention and MLP for all, norms by modality.

    Args:
        block: timm's block, whose attention and MLP it takes over.
        norms: Names of the norms to have.
        epsilon: Of the norms; ``None``: the block's own.
    """

    def __init__(self, block: Any, norms: Sequence[Norm], epsilon: float | None = None) -> None:
        super().__init__()
        self.attention_norm = ModalityNorms(block.norm1, norms, epsilon)
        self.attention = block.attn
        self.attention_scale = block.ls1
        self.mlp_norm = ModalityNorms(block.norm2, norms, epsilon)
        self.mlp = block.mlp
        self.mlp_scale = block.ls2

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Tokens (all tokens, dim) behind the block."""
        x = x + self.attention_scale(self._attend(self.attention_norm(x, layout), layout))
        fed: Tensor = x + self.mlp_scale(self.mlp(self.mlp_norm(x, layout)))
        return fed

    def _attend(self, x: Tensor, layout: Layout) -> Tensor:
        attention = self.attention
        query, key, value = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1)).unbind(1)
        query, key = attention.q_norm(query), attention.k_norm(key)
        # A query or key norm under autocast gives single precision, the values are half.
        mixed = attend_packed(query.type_as(value), key.type_as(value), value, layout)
        projected: Tensor = attention.proj(attention.norm(mixed.flatten(1)))
        return projected


class PackedBlocks(nn.Module):
    """Blocks, and a norm behind the last.

    Args:
        blocks: The blocks, in order.
        final: The norm that the final norms begin as copies of; ``None``: there is none.
        norms: Names of the final norms.
        epsilon: Of the final norms; ``None``: as in ``final``.

    Attributes:
        recompute: Compute each block anew in the backward pass instead of keeping what it computed; off at first.
    """

    def __init__(
        self,
        blocks: Iterable[PackedBlock],
        final: nn.LayerNorm | None,
        norms: Sequence[Norm],
        epsilon: float | None = None,
    ) -> None:
        super().__init__()
        self.recompute = False
        self.blocks = nn.ModuleList(blocks)
        self.norm = None if final is None else ModalityNorms(final, norms, epsilon)

    def forward(self, packed: Packed) -> Packed:
        """The sequences behind all blocks; one call of each layer for all tokens."""
        x, layout = packed.tokens, packed.layout
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, layout, use_reentrant=False)
            else:
                x = block(x, layout)
        return Packed(x if self.norm is None else self.norm(x, layout), layout)


def recompute_blocks(model: nn.Module, wanted: bool) -> None:
    """Set :attr:`PackedBlocks.recompute` throughout a model."""
    for part in model.modules():
        if isinstance(part, PackedBlocks):
            part.recompute = wanted


def new_block(dim: int, heads: int, device: torch.device | str | None = None) -> Any:
    """A block of timm with fresh weights: torch's initialisation, norms with torch's epsilon of 1e-5.

    Args:
        dim: Channels.
        heads: Attention heads.
        device: Where it is made.
    """
    return Block(dim, heads, qkv_bias=True, norm_layer=nn.LayerNorm, device=device)
