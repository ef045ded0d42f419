"""Running a frozen attention with another number of heads than it was trained with."""

from __future__ import annotations

from torch import nn

from avtune.backbones.timm_loading import timm
from avtune.backbones.tower import BackboneError, Tower
from avtune.backbones.vit import ViTBlock


def split_into_heads(tower: Tower, heads: int) -> None:
    """Let every block of a ViT divide its queries, keys and values into ``heads`` heads.

    The projections stay as they are and the logits are scaled by the new head dimension. What comes out is
    another function of the same weights: this is there to reproduce code that ran a backbone so.

    Args:
        tower: The tower, changed in place.
        heads: Attention heads per block.

    Raises:
        BackboneError: The tower's attention has weights for each head, or ``heads`` does not divide its width.
    """
    for block in tower.blocks:
        attention = block.block.attn
        plain = isinstance(block, ViTBlock) and type(attention) is timm.layers.Attention
        if not plain or not isinstance(attention.q_norm, nn.Identity):
            raise BackboneError(
                f"the attention of {tower.name} is bound to its {block.heads} heads; leave heads out, or use a "
                "plain ViT"
            )
        if heads < 1 or block.dim % heads:
            raise BackboneError(
                f"{heads} heads do not divide the {block.dim} channels of {tower.name}; choose a divisor"
            )
        attention.num_heads, attention.head_dim = heads, block.dim // heads
        attention.scale = attention.head_dim**-0.5
        block.heads = heads
