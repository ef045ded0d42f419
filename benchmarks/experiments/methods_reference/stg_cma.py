"""STG-CMA written straight from its formulas, to measure against: all scores and weights are tensors of their own.

It takes over the weights of an avtune layer and computes the same, the way one writes it down first: time-first
copies around the temporal stage, windows cut at full width, the weights of both directions kept.
"""

from __future__ import annotations

from methods_reference.frozen import Walk
from torch import Tensor, nn

from avtune.backbones.swin import SwinBlock
from avtune.encoder import BoundBlock
from avtune.fusion import Fusion, FusionLayer, Notes
from avtune.fusion.stg_cma import StgCmaLayer
from avtune.fusion.stg_cma_adapters import Adapter, AudioVisualAdapter, TemporalAdaptation


def multi_head(attention: nn.Module, x: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """Multi-head self-attention (batch, length, dim) with its scores kept."""
    query, key, value = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in attention.qkv(x).chunk(3, -1)
    )
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return attention.proj((weights @ value).transpose(1, 2).flatten(2))


class StraightforwardLayer(FusionLayer):
    """An ``StgCmaLayer`` in evaluation mode, written down naively.

    Args:
        layer: Whose weights are used.
    """

    def __init__(self, layer: StgCmaLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, audio: Tensor, video: Tensor, audio_block: BoundBlock, video_block: BoundBlock, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in :meth:`avtune.fusion.base.FusionLayer.forward`."""
        layer = self.layer
        if layer.audio_temporal is not None:
            audio = audio + along_time(layer.audio_temporal, audio, audio_block, notes.segments)
        if layer.video_temporal is not None:
            video = video + along_time(layer.video_temporal, video, video_block, notes.segments)
        a, v = windows_attended(audio, audio_block), windows_attended(video, video_block)
        a, v = self.compared(layer.spatial_adapter, a, v)
        audio, video = audio + audio_block.ungroup(a), video + video_block.ungroup(v)
        a, v = self.compared(layer.global_adapter, audio_block.feed(audio), video_block.feed(video))
        return audio + a, video + v

    def compared(self, adapter: AudioVisualAdapter, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """O + U H' of both streams."""
        a, v = squeezed(adapter.audio, audio), squeezed(adapter.video, video)
        video_scores, audio_scores = v @ a.transpose(1, 2), a @ v.transpose(1, 2)
        heard_v = v + self.layer.gates.video * (video_scores.softmax(-1) @ a)
        heard_a = a + self.layer.gates.audio * (audio_scores.softmax(-1) @ v)
        return audio + adapter.audio.up(heard_a), video + adapter.video.up(heard_v)


def squeezed(adapter: Adapter, x: Tensor) -> Tensor:
    """Gelu(D x + b)."""
    return nn.functional.gelu(adapter.down(x))


def along_time(temporal: TemporalAdaptation, x: Tensor, block: BoundBlock, segments: int) -> Tensor:
    """The temporal branch, by way of time-first copies."""
    length = x.shape[1]
    frozen = block.block.block
    clips = x.unflatten(0, (-1, segments)).permute(0, 2, 1, 3).reshape(-1, segments, x.shape[-1]).contiguous()
    attended = multi_head(frozen.attn, frozen.norm1(clips), block.heads, temporal.bias(segments))
    adapted = temporal.adapter.up(squeezed(temporal.adapter, attended))
    return adapted.unflatten(0, (-1, length)).permute(0, 2, 1, 3).reshape(x.shape)


def windows_attended(x: Tensor, block: BoundBlock) -> Tensor:
    """The frozen attention's output, left in its windows."""
    frozen = block.block.block
    if isinstance(block.block, SwinBlock):
        bias = frozen.attn._get_rel_pos_bias()
        return multi_head(frozen.attn, block.group(frozen.norm1(x)), block.heads, bias)
    return multi_head(frozen.attn, frozen.norm1(x), block.heads, None)


def straightforward(fusion: Fusion, index: int) -> Walk:
    """The naive form of the layer ``index``; unshifted blocks and both directions only."""
    layer = fusion.layers[index]
    if layer.gates.audio is None or layer.gates.video is None:
        raise ValueError("the straightforward form knows both directions only")
    return StraightforwardLayer(layer)
