"""MA-AVT's step as it is first written down: local self-attention for each segment anew, scores kept whole."""

from __future__ import annotations

from typing import Any

import torch
from methods_reference.frozen import Walk
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


def whole(fusion: MaAvt, index: int) -> Walk:
    """What avtune does at its first block, with what stands before and behind: tokens enter, tokens leave, contrast."""

    def walk(
        audio: Tensor, video: Tensor, audio_block: Block, video_block: Block, notes: Notes
    ) -> tuple[Tensor, ...]:
        streams = fusion.open(*fusion.embed(audio, video, notes), notes)
        streams = fusion.layers[index](*streams, audio_block, video_block, notes)
        return *fusion.close(*streams, notes), contrast(fusion, notes, len(audio))

    return walk


def straightforward(fusion: MaAvt, index: int) -> Walk:
    """The same, written down naively, with the weights of ``fusion``."""

    def walk(
        audio: Tensor, video: Tensor, audio_block: Block, video_block: Block, notes: Notes
    ) -> tuple[Tensor, ...]:
        audio, video = fusion.embed(audio, video, notes)
        streams = []
        for stream, x, block in (("audio", audio, audio_block), ("video", video, video_block)):
            groups = [
                naive_prompts(
                    getattr(fusion.prompts, name), getattr(fusion.prompts, f"{name}_attention"), len(x)
                )
                for name in (stream, "shared")
            ]
            before = torch.cat([x, *groups], dim=1)
            after = before + block.attend(before)
            after = after + block.feed(after)
            layout = fusion.layouts[stream == "video"]
            feature = contrast_feature("shared_tokens", "mean_patches", stream, before, after, block, layout)
            notes.record(f"{stream}_contrasted", feature)
            streams.append(after)
        return *fusion.close(streams[0], streams[1], notes), contrast(fusion, notes, len(audio))

    return walk


def contrast(fusion: MaAvt, notes: Notes, segments: int) -> Tensor:
    """The contrastive loss, all segments in the foreground."""
    return fusion.losses(notes, torch.ones(segments, dtype=torch.bool))["contrast"]
