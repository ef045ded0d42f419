"""Views of timm's plain vision transformers: ViT, DeiT, CLIP, DINOv2, SigLIP and their relatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from avtune.backbones.flat import FlatTower
from avtune.backbones.timm_loading import timm
from avtune.backbones.tower import FrozenBlock, Positions, Resampling

Block = timm.models.vision_transformer.Block
ResPostBlock = timm.models.vision_transformer.ResPostBlock
DiffAttention = timm.layers.DiffAttention
apply_rotary = timm.layers.apply_rot_embed_cat


def attend_with_extra(attention: Any, x: Tensor, extra: Tensor, rotary: Tensor | None = None) -> Tensor:
    """Multi-head attention in which ``extra`` gives keys and values but asks nothing.

    The projections are called as modules, so that a low-rank update wrapped around them acts here too.

    Args:
        attention: A timm ``Attention``, ``AttentionRope`` or ``EvaAttention``.
        x: Normed tokens (batch, length, dim).
        extra: Normed tokens (batch, n, dim).
        rotary: Sine and cosine per token after the prefix, (..., length + n - prefix, 2 * head dim).

    Returns:
        (batch, length, dim), the output projection applied.
    """
    length = x.shape[1]
    query, key, value = _project(attention, torch.cat([x, extra], dim=1))
    query, key = attention.q_norm(query[:, :, :length]), attention.k_norm(key)
    if rotary is not None:
        prefix = attention.num_prefix_tokens
        query = _rotate(query, rotary[..., : length - prefix, :], prefix, attention.rotate_half).type_as(
            value
        )
        key = _rotate(key, rotary, prefix, attention.rotate_half).type_as(value)
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    mixed = nn.functional.scaled_dot_product_attention(query, key, value)
    mixed = attention.norm(mixed.transpose(1, 2).flatten(2))
    if getattr(attention, "gate", None) is not None:
        mixed = mixed * attention.gate(x).sigmoid()
    projected: Tensor = attention.proj(mixed)
    return projected


def _project(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each (batch, its heads, length, head dim)."""
    if attention.qkv is None:
        parts = [attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)]
    elif getattr(attention, "q_bias", None) is not None:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        parts = list((attention.qkv(x) + bias).chunk(3, dim=-1))
    else:
        parts = list(attention.qkv(x).chunk(3, dim=-1))
    query, key, value = (p.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for p in parts)
    return query, key, value


def _rotate(x: Tensor, rotary: Tensor, prefix: int, half: bool) -> Tensor:
    return torch.cat([x[:, :, :prefix], apply_rotary(x[:, :, prefix:], rotary, half=half)], dim=2)


class ViTBlock(FrozenBlock):
    """A ViT block, with its norms before the branches (most) or after them (``norm_after``)."""

    def __init__(self, block: Any) -> None:
        super().__init__(
            block,
            dim=block.norm1.weight.numel(),
            heads=block.attn.num_heads,
            norm_after=isinstance(block, ResPostBlock),
        )

    def _scale_attention(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.block.ls1(x)
        return scaled

    def _scale_feed(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.block.ls2(x)
        return scaled

    def _attention(self, x: Tensor, positions: Positions, extra: Tensor | None) -> Tensor:
        attention = self.block.attn
        if extra is None:
            whole: Tensor = attention(x)
            return whole
        if isinstance(attention, DiffAttention):
            # The difference of two attention maps has no simpler form here: ask with the extra tokens too.
            whole = attention(torch.cat([x, extra], dim=1))
            return whole[:, : x.shape[1]]
        return attend_with_extra(attention, x, extra)

    def _attention_along(self, x: Tensor, bias: Tensor | None) -> Tensor:
        along: Tensor = self.block.attn(x, attn_mask=bias)
        return along


class ViTTower(FlatTower):
    """A ``VisionTransformer`` of timm.

    Images of another size than the tower's own (spectrograms) are cropped to whole patches and get a
    resampled position embedding, except where patches come from a convolutional stem (hybrids).
    """

    def __init__(self, model: Any, *, name: str, depth: int | None = None) -> None:
        _accept_any_size(model)
        super().__init__(model, [ViTBlock(block) for block in model.blocks[:depth]], name=name)

    @classmethod
    def reduced(cls, model: Any, depth: int) -> dict[str, Any]:
        """See :meth:`Tower.reduced`."""
        return {"depth": min(depth, len(model.blocks))}

    def place(self, images: Tensor, *, resampling: Resampling = "grid") -> tuple[Tensor, Positions]:
        """See :meth:`Tower.place`; there are no positions to hand on."""
        images = self._whole_patches(images)
        patches = self.model.patch_embed(images)
        if resampling == "grid" or images.shape[-2:] == self.picture_size:
            tokens = self.model._pos_embed(patches)
        else:
            tokens = self._resampled_sequence(patches)
        return tokens, None


def _accept_any_size(model: Any) -> None:
    """Do to a model that is already built what timm does for ``dynamic_img_size=True``."""
    patches = model.patch_embed
    if type(patches) is timm.layers.PatchEmbed and not model.dynamic_img_size:
        model.dynamic_img_size = True
        patches.strict_img_size, patches.flatten = False, False
        patches.output_fmt = timm.layers.Format.NHWC
