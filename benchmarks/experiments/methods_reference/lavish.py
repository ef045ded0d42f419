"""LAVISH's step as its authors' code lays it out: tokens are images of one column, (batch, channels, length, 1).

They are permuted for every LayerNorm and every product, the projections are convolutions in groups, the latents are
repeated over the batch, and the attention is two products around a softmax. Without latents (AVISH) that keeps a
score for each pair of tokens. PyTorch's batch norm on the CPU gives wrong gradients in this layout (its input and
gradient have differing strides): outputs agree with avtune's, time and bytes of the backward pass count, its values
do not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from methods_reference.frozen import Walk
from torch import Tensor, nn

from avtune.encoder import BoundBlock
from avtune.fusion import Fusion, Notes
from avtune.fusion.lavish import LatentAttention, LavishAdapter
from avtune.tuning import Bottleneck, GroupedLinear, TokenBatchNorm


def as_image(x: Tensor) -> Tensor:
    """(batch, length, channels) to (batch, channels, length, 1)."""
    return x.permute(0, 2, 1).unsqueeze(-1)


def as_tokens(x: Tensor) -> Tensor:
    """(batch, channels, length, 1) to (batch, length, channels)."""
    return x.squeeze(-1).permute(0, 2, 1)


def heard(attention: LatentAttention, x: Tensor, other: Tensor) -> Tensor:
    """X + g Softmax(X S^T) S with S = L + Softmax(L Y^T) Y, or S = Y without latents; images in and out."""
    summary = as_tokens(other)
    if attention.latents is not None:
        latents = attention.latents.unsqueeze(0).repeat(len(other), 1, 1)
        weights = torch.bmm(latents, other.squeeze(-1)).softmax(-1)
        summary = latents + torch.bmm(weights, as_tokens(other))
    weights = torch.bmm(as_tokens(x), summary.permute(0, 2, 1)).softmax(-1)
    return x + attention.fusion_gate * as_image(torch.bmm(weights, summary))


def bottleneck_on_images(bottleneck: Bottleneck, x: Tensor) -> Tensor:
    """Norm, convolution, norm, activation, convolution, norm, norm, gate; images in and out."""
    x = as_image(bottleneck.norm_before(as_tokens(x)))
    x = bottleneck.activation(convolved(x, bottleneck.down, bottleneck.norm_down))
    x = convolved(x, bottleneck.up, bottleneck.norm_up)
    return bottleneck.gate * as_image(bottleneck.norm_after(as_tokens(x)))


def convolved(x: Tensor, projection: GroupedLinear, norm: nn.Module) -> Tensor:
    x = F.conv2d(x, projection.weight[:, :, None, None], groups=projection.groups)
    if isinstance(norm, TokenBatchNorm):
        x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    return x


def adapted(adapter: LavishAdapter, x: Tensor, other: Tensor) -> Tensor:
    """What one adapter adds to the tokens x."""
    return as_tokens(bottleneck_on_images(adapter.bottleneck, heard(adapter, as_image(x), as_image(other))))


def straightforward(fusion: Fusion, index: int) -> Walk:
    """The layer ``index`` of LAVISH or AVISH in the preset ``official_ave``, written down naively."""
    layer = fusion.layers[index]

    def walk(
        audio: Tensor, video: Tensor, audio_block: BoundBlock, video_block: BoundBlock, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        a, v = adapted(layer.audio_attention, audio, video), adapted(layer.video_attention, video, audio)
        audio, video = audio + audio_block.attend(audio) + a, video + video_block.attend(video) + v
        a, v = adapted(layer.audio_mlp, audio, video), adapted(layer.video_mlp, video, audio)
        return audio + audio_block.feed(audio) + a, video + video_block.feed(video) + v

    return walk
