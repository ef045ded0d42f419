"""Views of timm's Swin-V2: norms after the branches, cosine attention, a learned temperature per head."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from avtune.backbones.swin import SwinBlock, SwinTower

MAXIMAL_LOG_SCALE = math.log(100.0)


class SwinV2Block(SwinBlock):
    """A Swin-V2 block."""

    def __init__(
        self, block: Any, merge: nn.Module | None = None, merge_grid: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__(block, merge, merge_grid)
        self.norm_after = True

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv, bias = self.block.attn.qkv(x), self._projection_bias()
        return self._heads_apart(qkv if bias is None else qkv + bias)

    def _projection_bias(self) -> Tensor | None:
        attention = self.block.attn
        if attention.q_bias is None:
            return None
        return torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])

    def _position_bias(self) -> Tensor:
        attention = self.block.attn
        table = attention.cpb_mlp(attention.relative_coords_table).view(-1, self.heads)
        length = self.window[0] * self.window[1]
        bias: Tensor = table[attention.relative_position_index.view(-1)].view(length, length, self.heads)
        return 16 * torch.sigmoid(bias.permute(2, 0, 1)).unsqueeze(0)

    def _comparable(self, x: Tensor, *, is_key: bool = False) -> Tensor:
        # Cosine similarity: the temperature per head goes into the queries, so no further scale is due.
        # A copy of its own, because the norm keeps it and would keep the values in the same memory along.
        x = nn.functional.normalize(x.contiguous(), dim=-1)
        return x if is_key else x * self.block.attn.logit_scale.clamp(max=MAXIMAL_LOG_SCALE).exp()

    def _attention_along(self, x: Tensor, bias: Tensor | None) -> Tensor:
        attention = self.block.attn
        query, key, value = self._project(x)
        normalize = nn.functional.normalize
        # Cosine similarity: the temperature per head goes into the queries, so no further scale is due.
        query = normalize(query, dim=-1) * attention.logit_scale.clamp(max=MAXIMAL_LOG_SCALE).exp()
        mixed = nn.functional.scaled_dot_product_attention(
            query, normalize(key, dim=-1), value, attn_mask=bias, scale=1.0
        )
        along: Tensor = attention.proj(mixed.transpose(1, 2).flatten(2))
        return along


class SwinV2Tower(SwinTower):
    """A ``SwinTransformerV2`` of timm."""

    block_view = SwinV2Block
