"""MA-AVT's step as it is first written down: local self-attention for each segment anew, scores kept whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avtune.fusion.base import Block, Notes
from avtune.fusion.contrast_features import contrast_feature
from avtune.fusion.ma_avt import LocalSelfAttention, MaAvt


def naive_attention(attention: Any, heads: int, x: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v and the output projection, every score in memory."""
    query, key, value = attention.qkv(x).reshape(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
    mixed: Tensor = attention.proj((weights @ value).transpose(1, 2).flatten(2))
    return mixed


def naive_prompts(tokens: Tensor, attention: LocalSelfAttention, batch: int) -> Tensor:
    """Equation 1 on a copy of the tokens for each segment, (batch, n, dim)."""
    copies = tokens.expand(batch, -1, -1)
    return copies + naive_attention(attention, attention.heads, copies)


def straightforward(
    fusion: MaAvt, audio: Tensor, video: Tensor, block: Block, notes: Notes
) -> tuple[Tensor, Tensor]:
    """Tokens in, one block, tokens out, with the weights of ``fusion``."""
    audio, video = fusion.embed(audio, video, notes)
    prompts, streams = fusion.prompts, []
    for stream, x, own in (("audio", audio, "audio"), ("video", video, "video")):
        groups = [
            naive_prompts(getattr(prompts, name), getattr(prompts, f"{name}_attention"), len(x))
            for name in (own, "shared")
        ]
        before = torch.cat([x, *groups], dim=1)
        inner: Any = block
        inner = inner.block.block
        after = before + naive_attention(inner.attn, inner.attn.num_heads, inner.norm1(before))
        after = after + inner.mlp(inner.norm2(after))
        layout = fusion.layouts[stream == "video"]
        feature = contrast_feature("shared_tokens", "mean_patches", stream, before, after, block, layout)
        notes.record(f"{stream}_contrasted", feature)
        streams.append(after)
    return fusion.close(streams[0], streams[1], notes)
