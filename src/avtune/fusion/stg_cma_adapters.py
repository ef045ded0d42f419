"""The adapters of STG-CMA: one stream's, the pair that hears each other, and the one along time.

Symbols and names as in ``avtune.fusion.stg_cma``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones.timm_loading import timm
from avtune.fusion.base import Block, BlockSizes
from avtune.options import OptionError


class Adapter(nn.Module):
    """U gelu(D x + b) + b', exactly zero until it is trained.

    Args:
        dim: Channels of the tokens.
        width: Channels between the projections.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def squeeze(self, x: Tensor) -> Tensor:
        """H = gelu(D x + b): tokens (..., dim) to (..., width)."""
        return F.gelu(self.down(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (..., dim) to what is added, of the same shape."""
        return self.up(self.squeeze(x))  # type: ignore[no-any-return]


def hear(hidden: Tensor, other: Tensor, gate: Tensor | None, present: Tensor | None = None) -> Tensor:
    """H' = H + g Softmax(H H_otherᵀ) H_other: one head, no projections, no scaling.

    The fused kernel keeps no length x other-length matrix, neither here nor for the backward pass.

    Args:
        hidden: H (batch, length, width).
        other: The other stream's H, before it has heard anything (batch, other length, width).
        gate: g (1,); ``None``: this stream does not hear, H' = H.
        present: Which of the other's tokens exist, (batch, 1, 1, other length) bool; ``None``: all.

    Returns:
        H' (batch, length, width).
    """
    if gate is None:
        return hidden
    query, key = hidden[:, None], other[:, None]
    attended = F.scaled_dot_product_attention(query, key, key, attn_mask=present, scale=1.0)
    return hidden + gate * attended[:, 0]


class Gates(nn.Module):
    """How much each stream takes from the other: two scalars from zero, shared by a block's two stages."""

    def __init__(self, direction: str) -> None:
        super().__init__()
        hears = {"audio": ("both", "visual_to_audio"), "video": ("both", "audio_to_visual")}
        self.audio = nn.Parameter(torch.zeros(1)) if direction in hears["audio"] else None
        self.video = nn.Parameter(torch.zeros(1)) if direction in hears["video"] else None


class AudioVisualAdapter(nn.Module):
    """The poster's AV Adapter: an adapter for each stream, and between its halves attention to the other stream.

    Args:
        sizes: The blocks' widths.
        width: Channels between the projections, the same in both streams so that they can be compared.
    """

    def __init__(self, sizes: BlockSizes, width: int) -> None:
        super().__init__()
        self.audio, self.video = Adapter(sizes.audio_dim, width), Adapter(sizes.video_dim, width)

    def forward(
        self, audio: Tensor, video: Tensor, gates: Gates, windows: tuple[Block, Block] | None = None
    ) -> tuple[Tensor, Tensor]:
        """U H'_a and U H'_v of the outputs O_a and O_v of a frozen branch.

        Args:
            audio: O_a (batch * T, audio length, audio dim).
            video: O_v (batch * T, video length, video dim).
            gates: g_a and g_v.
            windows: The audio and the video block, to fuse within their windows; ``None``: over all tokens.

        Returns:
            What is added to each stream, shaped as ``audio`` and ``video``.
        """
        a, v = self.audio.squeeze(audio), self.video.squeeze(video)
        if windows is None or (gates.audio is None and gates.video is None):
            a, v = hear(a, v, gates.audio), hear(v, a, gates.video)
        else:
            (a, a_present), (v, v_present) = _by_window(windows[0], a), _by_window(windows[1], v)
            if len(a) != len(v):
                raise OptionError(
                    f"stg_cma fuses within windows, but a frame of sound has {len(a) // len(audio)} and a picture "
                    f"{len(v) // len(video)}; set encoder.options.spatial to frame, or use towers of one grid"
                )
            a, v = hear(a, v, gates.audio, v_present), hear(v, a, gates.video, a_present)
            a, v = windows[0].ungroup(a), windows[1].ungroup(v)
        return self.audio.up(a), self.video.up(v)


class TemporalAdaptation(nn.Module):
    """Adapter(MHA(X along time)): the block's frozen attention over the T steps of each token position.

    Args:
        dim: Channels of the stream.
        width: Channels of the adapter.
        heads: Attention heads of the frozen block.
        segments: Time steps T that tables are made for.
        tables: Whether there is a trained bias for each distance in time and head.
        drop_path: Chance that a clip's branch is left out in training.
    """

    def __init__(
        self, dim: int, width: int, heads: int, segments: int, *, tables: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.adapter = Adapter(dim, width)
        self.bias_table = nn.Parameter(torch.empty(2 * segments - 1, heads)) if tables else None
        if self.bias_table is not None:
            nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.drop_path = timm.layers.DropPath(drop_path)

    def bias(self, segments: int) -> Tensor | None:
        """The bias (heads, T, T) of ``segments`` steps: entry i - j + T_built - 1 of the table."""
        if self.bias_table is None:
            return None
        built = (len(self.bias_table) + 1) // 2
        check_segments(segments, built)
        steps = torch.arange(segments, device=self.bias_table.device)
        distance = steps[:, None] - steps[None, :] + built - 1
        return self.bias_table[distance].permute(2, 0, 1)

    def forward(self, x: Tensor, block: Block, segments: int) -> Tensor:
        """What is added to tokens (batch * T, length, dim), of the same shape."""
        clips = x.reshape(-1, segments, *x.shape[1:]).transpose(1, 2)
        attended = block.attend_along(clips.flatten(0, 1), self.bias(segments))
        adapted: Tensor = self.drop_path(self.adapter(attended).reshape(clips.shape))
        return adapted.transpose(1, 2).flatten(0, 1)


def check_segments(segments: int, built: int) -> None:
    """Refuse more time steps than there are weights for; fewer are fine.

    Raises:
        OptionError: If ``segments`` exceeds ``built``.
    """
    if segments > built:
        raise OptionError(
            f"stg_cma was built for {built} segments a clip and got {segments}; build it with input.segments={segments}"
        )


def _by_window(block: Block, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Tokens by window, and which of them are no padding (``None``: all)."""
    grouped = block.group(x)
    if grouped.numel() == x.numel():
        return grouped, None
    return grouped, block.group(x.new_ones(*x.shape[:2], 1)).bool().transpose(1, 2)[:, None]
