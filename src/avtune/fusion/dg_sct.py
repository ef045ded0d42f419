"""DG-SCT: dual-guided spatial-channel-temporal attention (Duan et al., NeurIPS 2023).

Each stream is guided by the other: which of its channels and which of its tokens to strengthen. Names here: y the
other stream's tokens at this stream's count and width, ``prompt``; u their mean, ``summary``; M_c ``channels``; s
``scores``; M_s = softmax(tanh s) the spatial map. The temporal part stands behind the encoder, in
``avtune.heads.dg_sct``. ``docs/methods/dg_sct.md`` lists what the authors' code does otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.fusion.base import Block, BlockPairs, BlockSizes, Fusion, FusionLayer, Notes
from avtune.fusion.lavish import LavishAdapter, LavishConfig
from avtune.options import OptionError

AUDIO_MAP, VIDEO_MAP = "dg_sct.audio_map", "dg_sct.video_map"
"""Spatial maps in the notes, one of each layer, (batch * T, length), each frame's weights summing to one."""


@dataclass(frozen=True)
class DgSctConfig(LavishConfig):
    """Settings of DG-SCT: those of the LAVISH adapter inside it, with its own defaults, and the guidance.

    Attributes:
        latents: Latent tokens m of each adapter.
        gate_compression: Whether the latents' attention has a gate.
        channel_weight: α, how much of a token its channels decide about.
        spatial_weight: β, how much its place adds.
        token_count: How the other stream's tokens become as many as this stream's: ``trained``, a matrix of length
            x other length, or ``bicubic`` resizing of their square grid, as the authors' AVS-S4 code.
        norm_audio: Whether a tower of the sound alone keeps its final norm, which the authors' code leaves out.
    """

    latents: int = 32
    gate_compression: bool = False
    channel_weight: float = 0.3
    spatial_weight: float = 0.05
    token_count: Literal["trained", "bicubic"] = "trained"
    norm_audio: bool = True


PAPER = DgSctConfig()
OFFICIAL_AVE = replace(PAPER, latent_init="uniform", relu_alone=False, norm_audio=False)
OFFICIAL_AVQA = replace(
    OFFICIAL_AVE,
    latent_init="zeros",
    latents=2,
    groups=4,
    batch_norm=False,
    gate_audio=False,
    relu_alone=True,
)
OFFICIAL_AVS = replace(
    OFFICIAL_AVQA, latents=32, groups=2, norm_before=False, gate_order="gate_then_norm", token_count="bicubic"
)
PRESETS = {
    "paper": PAPER,
    "official_ave": OFFICIAL_AVE,
    "official_avs": OFFICIAL_AVS,
    "official_avs_ms3": replace(
        OFFICIAL_AVS, reduction=2, channel_weight=0.2, spatial_weight=0.1, token_count="trained"
    ),
    "official_avqa": OFFICIAL_AVQA,
}


class Prompt(nn.Module):
    """The other stream's tokens as y: as many as this stream has, and as wide.

    Args:
        dim: Channels of this stream.
        other_dim: Channels of the other stream.
        length: Tokens of this stream.
        other_length: Tokens of the other stream.
        token_count: See :class:`DgSctConfig`.

    Raises:
        OptionError: Tokens that form no square grid are to be resized.
    """

    def __init__(self, dim: int, other_dim: int, length: int, other_length: int, token_count: str) -> None:
        super().__init__()
        self.width = nn.Linear(other_dim, dim)
        self.count = nn.Linear(other_length, length) if token_count == "trained" else None
        self.side, self.other_side = math.isqrt(length), math.isqrt(other_length)
        if self.count is None and (self.side**2, self.other_side**2) != (length, other_length):
            raise OptionError(
                f"dg_sct cannot resize {other_length} to {length} tokens, which form no square grids; set "
                "encoder.options.token_count to trained"
            )

    def forward(self, other: Tensor) -> Tensor:
        """The prompt y = (W_n Y + b_n) W_c^T + b_c, by whichever order of the two maps is cheaper.

        Args:
            other: Y (batch, other length, other dim).

        Returns:
            (batch, length, dim).
        """
        if self.count is None:
            grid = self.width(other).transpose(1, 2).unflatten(2, (self.other_side, self.other_side))
            resized = F.interpolate(grid, (self.side, self.side), mode="bicubic", align_corners=False)
            return resized.flatten(2).transpose(1, 2)
        if self.width.in_features <= self.width.out_features:
            return self.width(self.count(other.transpose(1, 2)).transpose(1, 2))  # type: ignore[no-any-return]
        narrowed = F.linear(other, self.width.weight)
        counted = F.linear(narrowed.transpose(1, 2), self.count.weight).transpose(1, 2)
        return counted + (torch.outer(self.count.bias, self.width.weight.sum(1)) + self.width.bias)


class Guidance(nn.Module):
    """What the other stream says of this stream's channels and tokens.

    Args:
        dim: Channels of this stream.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.channel_prompt, self.channel_own = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.channel_down, self.channel_up = nn.Linear(dim, half), nn.Linear(half, dim)
        self.spatial_prompt, self.spatial_own = nn.Linear(dim, half), nn.Linear(dim, half)
        self.spatial_score = nn.Linear(half, 1)

    def channels(self, x: Tensor, summary: Tensor) -> Tensor:
        """M_c = σ(W_up relu(W_down mean_n(relu(A u) * relu(V x_n)))).

        Args:
            x: This stream's tokens (batch, length, dim).
            summary: u (batch, 1, dim).

        Returns:
            (batch, 1, dim), within 0 and 1.
        """
        # The summary's factor is the same for all tokens, so it stands outside their mean.
        joint = torch.relu(self.channel_prompt(summary)) * torch.relu(self.channel_own(x)).mean(
            1, keepdim=True
        )
        return torch.sigmoid(self.channel_up(torch.relu(self.channel_down(joint))))

    def scores(self, x: Tensor, summary: Tensor) -> Tensor:
        """s_n = w (relu(V' x_n) * relu(A' u)).

        Args:
            x: This stream's tokens, their channels weighted, (batch, length, dim).
            summary: u (batch, 1, dim).

        Returns:
            (batch, length, 1).
        """
        # The summary's factor joins w, which spares a product of the size of the stream.
        weights = self.spatial_score.weight * torch.relu(self.spatial_prompt(summary))
        scored: Tensor = torch.relu(self.spatial_own(x)) @ weights.transpose(1, 2) + self.spatial_score.bias
        return scored


class DgSctAdapter(nn.Module):
    """What one stream gains: LAVISH's fusion, guidance, LAVISH's bottleneck.

    Args:
        dim: Channels of the adapted stream.
        other_dim: Channels of the other stream.
        lengths: Tokens of both.
        config: Settings.
        hears_other: Whether it fuses and is guided; otherwise it is the bottleneck alone.
        gate: Whether the bottleneck has its output gate.
    """

    def __init__(
        self,
        dim: int,
        other_dim: int,
        lengths: tuple[int, int],
        config: DgSctConfig,
        *,
        hears_other: bool,
        gate: bool,
    ) -> None:
        super().__init__()
        self.channel_weight, self.spatial_weight = config.channel_weight, config.spatial_weight
        self.lavish = LavishAdapter(dim, dim, config, hears_other=hears_other, gate=gate)
        self.prompt = Prompt(dim, other_dim, *lengths, config.token_count) if hears_other else None
        self.guidance = Guidance(dim) if hears_other else None

    def forward(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor | None]:
        """``x' = x + g Softmax(x S^T) S``, then ``bottleneck(x' (α M_c + β σ(s) + 1 - α))``.

        Args:
            x: Tokens of the adapted stream (batch, length, dim).
            other: Tokens of the other stream (batch, other length, other dim).

        Returns:
            What is added to ``x`` (batch, length, dim), and the map M_s (batch, length); ``None`` where nothing
            guides.
        """
        if self.prompt is None or self.guidance is None:
            return self.lavish(x, other), None
        prompt = self.prompt(other)
        summary = prompt.mean(1, keepdim=True)
        x = self.lavish.fuse(x, prompt)
        channels = self.guidance.channels(x, summary)
        scores = self.guidance.scores(x * (1 + channels), summary)
        alpha, beta = self.channel_weight, self.spatial_weight
        guided = x * (alpha * channels + beta * torch.sigmoid(scores) + 1 - alpha)
        return self.lavish.bottleneck(guided), torch.softmax(torch.tanh(scores), dim=1).squeeze(-1)


class DgSctLayer(FusionLayer):
    """A pair of frozen blocks with four adapters: two in each stream.

    Args:
        sizes: Sizes of the blocks.
        config: Settings.
    """

    def __init__(self, sizes: BlockSizes, config: DgSctConfig) -> None:
        super().__init__()
        self.lengths = (sizes.audio_length, sizes.video_length)
        to_audio = config.direction in ("both", "visual_to_audio")
        to_video = config.direction in ("both", "audio_to_visual")

        def audio_adapter() -> DgSctAdapter:
            return DgSctAdapter(
                sizes.audio_dim,
                sizes.video_dim,
                self.lengths,
                config,
                hears_other=to_audio,
                gate=config.gate_audio,
            )

        def video_adapter() -> DgSctAdapter:
            return DgSctAdapter(
                sizes.video_dim, sizes.audio_dim, self.lengths[::-1], config,
                hears_other=to_video, gate=config.gate_video,
            )  # fmt: skip

        self.audio_first, self.audio_second = audio_adapter(), audio_adapter()
        self.video_first, self.video_second = video_adapter(), video_adapter()

    def forward(
        self, audio: Tensor, video: Tensor, audio_block: Block, video_block: Block, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        """The frames' attention and the sound's whole block, then the frames' MLP; an adapter beside each.

        Behind its block the sound gets the second adapter's output alone. Shapes as in
        :meth:`avtune.fusion.base.FusionLayer.forward`.

        Raises:
            OptionError: A stream has another number of tokens than the layer was built for.
        """
        _check_lengths((audio.shape[1], video.shape[1]), self.lengths)
        to_audio, _ = self.audio_first(audio, video)
        to_video, _ = self.video_first(video, audio)
        video = video + video_block.attend(video) + to_video
        audio = audio + audio_block.attend(audio)
        audio = audio + audio_block.feed(audio) + to_audio

        to_audio, audio_map = self.audio_second(audio, video)
        to_video, video_map = self.video_second(video, audio)
        video = video + video_block.feed(video) + to_video
        audio = audio + to_audio
        for name, seen in ((AUDIO_MAP, audio_map), (VIDEO_MAP, video_map)):
            if seen is not None:
                notes.record(name, seen)
        return audio, video


class DgSct(Fusion):
    """All layers; their last maps, which the notes hold, say how a head may sum up each frame.

    Args:
        layers: One for each pair of blocks.
        config: Settings.
    """

    def __init__(self, layers: Sequence[DgSctLayer], config: DgSctConfig) -> None:
        super().__init__(layers, train_norms=config.train_norms)
        self.norm_audio = config.norm_audio

    def attach(self, audio_tower: Tower, video_tower: Tower) -> None:
        """Take away the final norm of a tower of the sound alone, where the settings say so."""
        super().attach(audio_tower, video_tower)
        if not self.norm_audio and audio_tower is not video_tower:
            audio_tower.model.norm = nn.Identity()


def sum_up(tokens: Tensor, name: str, notes: Notes) -> Tensor | None:
    """Each frame as the sum of its tokens under the last layer's map.

    Args:
        tokens: A stream after its tower (batch * T, length, dim).
        name: ``AUDIO_MAP`` or ``VIDEO_MAP``.
        notes: What the layers left.

    Returns:
        (batch * T, dim); ``None`` where no layer left a map.

    Raises:
        OptionError: The map is of other tokens, such as those before a later block merged them.
    """
    if name not in notes.records:
        return None
    weights = notes.records[name][-1]
    if weights.shape[1] != tokens.shape[1]:
        raise OptionError(
            f"dg_sct weighs {weights.shape[1]} tokens in its last layer, but the tower ends with {tokens.shape[1]}; "
            "let the plan end with a pair and leave prompts out, or choose head.name segment"
        )
    return (weights.unsqueeze(1) @ tokens).squeeze(1)


def build_dg_sct(pairs: BlockPairs, config: DgSctConfig) -> Fusion:
    """A DG-SCT layer for each pair of blocks.

    Args:
        pairs: Sizes of the paired blocks, in the order of the walk, their token counts included.
        config: Settings.

    Returns:
        The method, ready for ``DualEncoder``.

    Raises:
        OptionError: The token counts are not known, or cannot be brought to each other.
    """
    for pair in pairs:
        if config.direction != "none" and min(pair.audio_length, pair.video_length) < 1:
            raise OptionError(
                "dg_sct has weights for every token; build it with audio_length and video_length of each pair, as "
                "create_encoder does"
            )
    return DgSct([DgSctLayer(pair, config) for pair in pairs], config)


def _check_lengths(lengths: tuple[int, int], built: tuple[int, int]) -> None:
    if lengths != built:
        raise OptionError(
            f"dg_sct was built for {built[0]} tokens of sound and {built[1]} of a frame and got {lengths[0]} and "
            f"{lengths[1]}; build it for the spectrograms and frames that it will see (input.audio, input.video)"
        )
