"""DG-SCT's step as its authors' code lays it out: a convolution over tokens first, products as large as the stream.

The other stream is always brought to this one's count before its width, and what its summary says of a channel is
multiplied into each token before the mean is taken. What it shares with LAVISH is laid out as there, with the same
reservation about the gradients of batch norm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from methods_reference.frozen import Walk
from methods_reference.lavish import as_image, as_tokens, bottleneck_on_images, heard
from torch import Tensor

from avtune.encoder import BoundBlock
from avtune.fusion import Fusion, Notes
from avtune.fusion.dg_sct import AUDIO_MAP, VIDEO_MAP, DgSctAdapter


def adapted(adapter: DgSctAdapter, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """What one adapter adds to the tokens x, and its spatial map."""
    guidance, count, width = adapter.guidance, adapter.prompt.count, adapter.prompt.width
    counted = F.conv2d(as_image(other).transpose(1, 2), count.weight[:, :, None, None], count.bias)
    prompt = as_image(width(counted.squeeze(-1)))
    summary = as_tokens(F.adaptive_avg_pool2d(prompt, 1))
    x = as_tokens(heard(adapter.lavish, as_image(x), prompt))

    joint = torch.relu(guidance.channel_prompt(summary)) * torch.relu(guidance.channel_own(x))
    squeezed = torch.relu(guidance.channel_down(joint.mean(1, keepdim=True)))
    channels = torch.sigmoid(guidance.channel_up(squeezed))
    joint = torch.relu(guidance.spatial_own(x * (channels + 1))) * torch.relu(
        guidance.spatial_prompt(summary)
    )
    scores = guidance.spatial_score(joint)

    alpha, beta = adapter.channel_weight, adapter.spatial_weight
    x = x * (alpha * channels + beta * torch.sigmoid(scores) + 1 - alpha)
    added = as_tokens(bottleneck_on_images(adapter.lavish.bottleneck, as_image(x)))
    return added, torch.tanh(scores).softmax(1).squeeze(-1)


def straightforward(fusion: Fusion, index: int) -> Walk:
    """The layer ``index`` of DG-SCT in the preset ``official_ave``, written down naively."""
    layer = fusion.layers[index]

    def walk(
        audio: Tensor, video: Tensor, audio_block: BoundBlock, video_block: BoundBlock, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        (a, _), (v, _) = adapted(layer.audio_first, audio, video), adapted(layer.video_first, video, audio)
        video = video + video_block.attend(video) + v
        audio = audio + audio_block.attend(audio)
        audio = audio + audio_block.feed(audio) + a
        a, audio_map = adapted(layer.audio_second, audio, video)
        v, video_map = adapted(layer.video_second, video, audio)
        notes.record(AUDIO_MAP, audio_map)
        notes.record(VIDEO_MAP, video_map)
        return audio + a, video + video_block.feed(video) + v

    return walk
