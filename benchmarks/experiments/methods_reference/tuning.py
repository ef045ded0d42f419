"""Tunings as they are first written down, beside a frozen block whose attention keeps its scores.

LAVISH's authors' modules for Table 5 stand on images of one column; Compacter makes each Kronecker product before it
sums them; prompts pass the whole block and are thrown away. An adapter of two plain projections, peft's LoRA and freed
weights have no longer way: of them only the frozen attention differs.
"""

from __future__ import annotations

import copy

import torch.nn.functional as F
from methods_reference.copl import carried
from methods_reference.frozen import Walk, unfused
from methods_reference.lavish import as_image, as_tokens, bottleneck_on_images, heard
from torch import Tensor, nn

from avtune.encoder import BoundBlock
from avtune.fusion import Fusion, Notes
from avtune.fusion.lavish import LatentAttention
from avtune.tuning import BlockTuning, Bottleneck
from avtune.tuning.beside import ModuleBeside
from avtune.tuning.compacter import HyperComplexAdapter, HyperComplexLinear


class OnImages(nn.Module):
    """A bottleneck with norms, in the layout of LAVISH's authors."""

    def __init__(self, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.bottleneck = bottleneck

    def forward(self, x: Tensor) -> Tensor:
        """Tokens in, what is added to them out."""
        return as_tokens(bottleneck_on_images(self.bottleneck, as_image(x)))


class Products(nn.Module):
    """A Compacter with each of its Kronecker products in memory."""

    def __init__(self, adapter: HyperComplexAdapter) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """Tokens in, what is added to them out."""
        return multiplied(self.adapter.up, F.gelu(multiplied(self.adapter.down, x)))


def multiplied(linear: HyperComplexLinear, x: Tensor) -> Tensor:
    factors = linear.left @ linear.right if linear.factored else linear.factors
    products = linear.rules[:, :, None, :, None] * factors[:, None, :, None, :]
    return x @ products.flatten(3).flatten(1, 2).sum(0) + linear.bias


def naive_part(part: BlockTuning) -> BlockTuning:
    """What a stream trains at a block, in the straightforward form."""
    if not isinstance(part, ModuleBeside):
        return unfused(part)
    naive = copy.copy(part)
    naive._modules = {name: naive_module(module) for name, module in part._modules.items()}
    return naive


def naive_module(module: nn.Module | None) -> nn.Module | None:
    if isinstance(module, HyperComplexAdapter):
        return Products(module)
    if isinstance(module, Bottleneck) and isinstance(module.norm_before, nn.LayerNorm):
        return OnImages(module)
    return module


def straightforward(fusion: Fusion, index: int) -> Walk:
    """The layer ``index`` as it is: what differs is the part that is bound to the block."""
    return fusion.layers[index]


def carried_prompts(fusion: Fusion, index: int) -> Walk:
    """Deep prompts as tokens that pass the whole block."""

    def walk(
        audio: Tensor, video: Tensor, audio_block: BoundBlock, video_block: BoundBlock, notes: Notes
    ) -> tuple[Tensor, ...]:
        return tuple(
            carried(x, block.block, block.tuning.prompts.expand(len(x), -1, -1))
            for x, block in ((audio, audio_block), (video, video_block))
        )

    return walk


def cross_modal_attention(fusion: Fusion, index: int) -> Walk:
    """Attention across in front of what each stream trains, its latents repeated over the batch."""
    layer = fusion.layers[index]

    def in_front(block: BoundBlock, attention: LatentAttention, other: Tensor) -> BoundBlock:
        return block.hearing(lambda x: as_tokens(heard(attention, as_image(x), as_image(other))))

    def walk(
        audio: Tensor, video: Tensor, audio_block: BoundBlock, video_block: BoundBlock, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        a = in_front(audio_block, layer.audio_attention, video).attend(audio)
        v = in_front(video_block, layer.video_attention, audio).attend(video)
        audio, video = audio + a, video + v
        a = in_front(audio_block, layer.audio_mlp, video).feed(audio)
        v = in_front(video_block, layer.video_mlp, audio).feed(video)
        return audio + a, video + v

    return walk
