"""CoPL's step as visual prompt tuning carries prompts: through queries, projection and MLP, and then thrown away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from methods_reference.frozen import Walk
from torch import Tensor

from avtune.backbones import FrozenBlock
from avtune.backbones.swin_v2 import MAXIMAL_LOG_SCALE, SwinV2Block
from avtune.encoder import BoundBlock
from avtune.fusion import Fusion
from avtune.fusion.base import Block
from avtune.fusion.copl import CoplLayer
from avtune.tuning.tied import tied_copy


def straightforward(fusion: Fusion, index: int) -> Walk:
    """The layer ``index``, with its weights, in the straightforward form."""
    layer = tied_copy(fusion.layers[index])
    layer.__class__ = CarriedLayer
    return layer


class CarriedLayer(CoplLayer):
    """CoPL with prompts that pass the whole block."""

    def transform(self, x: Tensor, block: Block, prompts: Tensor | None) -> Tensor:
        """Z = T[Z, prompts], the prompts' outputs dropped at the end."""
        assert isinstance(block, BoundBlock)
        assert prompts is not None
        return carried(x, block.block, prompts)


def carried(x: Tensor, block: FrozenBlock, prompts: Tensor) -> Tensor:
    """The block's output for the tokens x, with prompts (batch, n, dim) beside them all the way."""
    if isinstance(block, SwinV2Block):
        attended, prompts_attended = window_attention(block, x, prompts)
        joined = torch.cat([x + attended, prompts + prompts_attended], dim=1)
    else:
        joined = torch.cat([x, prompts], dim=1)
        joined = joined + block.attend(joined)
    return (joined + block.feed(joined))[:, : x.shape[1]]


def window_attention(block: SwinV2Block, x: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts before the tokens of each window, in the order of the samples; their outputs averaged over windows."""
    attention, count = block.block.attn, prompts.shape[1]
    windows = block.group(x)
    of_a_sample = len(windows) // len(x)
    joined = torch.cat([prompts.repeat_interleave(of_a_sample, dim=0), windows], dim=1)
    bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    qkv = F.linear(joined, attention.qkv.weight, bias)
    query, key, value = qkv.reshape(*joined.shape[:2], 3, block.heads, -1).permute(2, 0, 3, 1, 4)
    scores = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(2, 3)
    scores = scores * attention.logit_scale.clamp(max=MAXIMAL_LOG_SCALE).exp()
    table = attention.cpb_mlp(attention.relative_coords_table).view(-1, block.heads)
    places = 16 * torch.sigmoid(table[attention.relative_position_index].permute(2, 0, 1))
    scores = scores + F.pad(places, (count, 0, count, 0))
    if block.block.attn_mask is not None:
        mask = F.pad(block.block.attn_mask, (count, 0, count, 0)).repeat(len(x), 1, 1)
        scores = scores + mask.unsqueeze(1)
    mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
    out = attention.proj(mixed)
    averaged = out[:, :count].reshape(len(x), of_a_sample, count, -1).mean(dim=1)
    return block.block.norm1(block.ungroup(out[:, count:])), block.block.norm1(averaged)
