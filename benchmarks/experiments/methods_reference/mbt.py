"""MBT's step as its authors' code has it: each stream with the bottlenecks behind it, taken apart and averaged."""

from __future__ import annotations

import torch
from methods_reference.frozen import Walk
from torch import Tensor

from avtune.encoder import BoundBlock
from avtune.fusion import Fusion, Notes


def straightforward(fusion: Fusion, index: int) -> Walk:
    """The layer ``index``, into which the bottlenecks enter; they leave it behind both streams."""
    layer = fusion.layers[index]

    def walk(
        audio: Tensor, video: Tensor, audio_block: BoundBlock, video_block: BoundBlock, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        streams, bottlenecks = [], []
        for x, block in ((audio, audio_block), (video, video_block)):
            joined = torch.cat([x, layer.bottlenecks.unsqueeze(0).repeat(len(x), 1, 1)], dim=1)
            joined = joined + block.attend(joined)
            joined = joined + block.feed(joined)
            streams.append(joined[:, : x.shape[1]])
            bottlenecks.append(joined[:, x.shape[1] :])
        mean = torch.stack(bottlenecks, dim=-1).mean(dim=-1)
        return torch.cat([streams[0], mean], dim=1), torch.cat([streams[1], mean], dim=1)

    return walk
