"""What of a block's output MA-AVT contrasts: the rows of its Table 3 and what its authors' code has beside them."""

from __future__ import annotations

from typing import Any, Literal, cast

from torch import Tensor

from avtune.fusion.appended import Layout
from avtune.fusion.base import Block


def contrast_feature(
    kind: str,
    sound: Literal["mean_patches", "class_token"],
    stream: str,
    before: Tensor,
    after: Tensor,
    block: Block,
    layout: Layout,
) -> Tensor:
    """The feature of one stream behind one block.

    Args:
        kind: See ``MaAvtConfig.contrast``.
        sound: See ``MaAvtConfig.contrast_sound``.
        stream: ``audio`` or ``video``: frames may be compared patch by patch, sound is one vector.
        before: Tokens before the block (batch, length, dim).
        after: Tokens behind it.
        block: The block.
        layout: Where tokens stand.

    Returns:
        (batch, dim), or for frames that are compared patch by patch (batch, patches, dim).
    """
    patches = layout.take(after, "patches")
    if kind == "shared_tokens":
        return layout.take(after, "shared").mean(1)
    if kind == "class_tokens":
        return layout.take(after, "foreground")[:, 0]
    if kind == "contrast_tokens":
        return layout.take(after, "contrast")[:, 0]
    if kind == "mean_patches":
        return patches.mean(1)
    if kind == "attended_patches":
        return (class_attention(block, before, layout)[:, :, None] * patches).sum(1)
    if stream == "audio":
        return layout.take(after, "foreground" if sound == "class_token" else "patches").mean(1)
    return patches.amax(1) if kind == "max_pool" else patches


def class_attention(block: Block, x: Tensor, layout: Layout) -> Tensor:
    """How strongly a ViT block's foreground token attends to each patch.

    Args:
        block: A ViT block, as a layer sees it.
        x: All tokens before the block (batch, length, dim).
        layout: Where tokens stand.

    Returns:
        Softmax over the patches of the attention's logits, averaged over heads before it: (batch, patches).
    """
    inner = cast(Any, block).block.block
    attention = inner.attn
    query, key, _ = attention.qkv(inner.norm1(x)).unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
    query, key = (
        layout.take(attention.q_norm(query), "foreground"),
        layout.take(attention.k_norm(key), "patches"),
    )
    weights: Tensor = ((query * key).sum(-1) * attention.scale).mean(-1).softmax(-1)
    return weights
