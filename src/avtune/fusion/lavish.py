"""LAVISH: latent audio-visual hybrid adapters (Lin et al., CVPR 2023), equation for equation.

Symbols of the paper and names here: X_a, X_v ``audio``, ``video``; L ``latents``; S ``summary``; MHA ``attend``;
MLP ``feed``; LAV ``LavishAdapter``; g ``gate``. ``docs/methods/lavish.md`` lists where the paper and its authors'
code differ and which preset follows which.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.fusion.base import Block, BlockPairs, Fusion, FusionLayer, Notes
from avtune.tuning.bottleneck import Bottleneck, GateOrder


@dataclass(frozen=True)
class LavishConfig:
    """Settings of LAVISH; the defaults are the paper's.

    Attributes:
        direction: Which stream hears of the other (Table 4): ``both``, ``audio_to_visual``, ``visual_to_audio``
            or ``none`` (plain adapters).
        latents: Latent tokens m of each adapter; 0 is AVISH: full cross-attention (Table 4).
        latent_init: ``normal`` (standard deviation 0.02), ``uniform`` in [0, 1) as the authors' AVE code, or
            ``zeros`` as their AVS and AVQA code: zeros never break symmetry, all latents then stay one.
        gate_compression: Whether Equation 7 has its gate g, as printed; the authors' code has none.
        values: Whose summary the values of Equation 8 are: ``other`` as the authors' code, so that what the
            other modality holds enters the stream; ``own`` as printed, where it only steers the weights.
        reduction: Ratio of the bottleneck.
        groups: Groups of the bottleneck's projections.
        batch_norm: BatchNorm after each projection.
        norm_before: LayerNorm before the bottleneck.
        norm_after: LayerNorm after the bottleneck.
        gate_audio: Zero-initialised output gate on the audio stream's adapters.
        gate_video: Zero-initialised output gate on the visual stream's adapters.
        gate_order: Whether the output gate stands behind or before the last LayerNorm.
        relu_alone: Whether an adapter that hears nothing of the other stream keeps its activation.
        train_norms: Train the towers' LayerNorms too.
    """

    direction: Literal["both", "audio_to_visual", "visual_to_audio", "none"] = "both"
    latents: int = 2
    latent_init: Literal["normal", "uniform", "zeros"] = "normal"
    gate_compression: bool = True
    values: Literal["other", "own"] = "other"
    reduction: int = 8
    groups: int = 2
    batch_norm: bool = True
    norm_before: bool = True
    norm_after: bool = True
    gate_audio: bool = True
    gate_video: bool = True
    gate_order: GateOrder = "norm_then_gate"
    relu_alone: bool = True
    train_norms: bool = False


PAPER = LavishConfig()
OFFICIAL_AVE = replace(PAPER, latent_init="uniform", gate_compression=False, relu_alone=False)
OFFICIAL_AVS = replace(
    OFFICIAL_AVE, latent_init="zeros", latents=16, reduction=4, batch_norm=False, norm_before=False,
    gate_audio=False, gate_order="gate_then_norm", relu_alone=True,
)  # fmt: skip
OFFICIAL_AVQA = replace(
    OFFICIAL_AVE,
    latent_init="zeros",
    latents=64,
    groups=4,
    batch_norm=False,
    relu_alone=True,
    train_norms=True,
)
PRESETS = {
    "paper": PAPER,
    "paper_as_printed": replace(PAPER, values="own"),
    "official_ave": OFFICIAL_AVE,
    "official_avs": OFFICIAL_AVS,
    "official_avqa": OFFICIAL_AVQA,
}


def cross_modal_attention(query: Tensor, key: Tensor, value: Tensor, gate: Tensor | None) -> Tensor:
    """Equation 6: CMA(Q, K, V) = Q + g Softmax(Q K^T) V, with one head, no projections and no scaling.

    Args:
        query: Q (batch, queries, dim).
        key: K (batch, tokens, dim).
        value: V (batch, tokens, dim).
        gate: g (1,); ``None``: 1.

    Returns:
        (batch, queries, dim).
    """
    weights = torch.softmax(query @ key.transpose(1, 2), dim=-1)
    # The gate at the weights and the sum in the product: no tensor of the streams' size is kept for the backward pass.
    return torch.baddbmm(query, weights if gate is None else gate * weights, value)


class LatentAttention(nn.Module):
    """What one stream hears of the other through a few latent tokens (Equations 6 to 8).

    Args:
        dim: Channels of the stream that hears.
        other_dim: Channels of the other stream.
        config: Settings; of them only the latents', their gate and ``values`` are read here.
        hears_other: Otherwise there is nothing in it, and the stream passes as it is.
    """

    def __init__(self, dim: int, other_dim: int, config: LavishConfig, *, hears_other: bool = True) -> None:
        super().__init__()
        self.hears_other = hears_other
        if hears_other:
            self.fusion_gate = nn.Parameter(torch.zeros(1))
            # The papers' towers are one; between towers of differing width only the few summaries are mapped.
            self.match = nn.Identity() if dim == other_dim else nn.Linear(other_dim, dim, bias=False)
            self.latents = _new_latents(config, other_dim)
            self.own_latents = _new_latents(config, dim) if config.values == "own" else None
            gated = config.gate_compression and config.latents > 0
            # One, not zero: a closed gate here would hide the other stream from its own summary.
            self.compression_gate = nn.Parameter(torch.ones(1)) if gated else None

    def compress(self, latents: Tensor, tokens: Tensor) -> Tensor:
        """Equation 7: S = CMA(L, X, X) = L + g Softmax(L X^T) X.

        Args:
            latents: L (m, dim).
            tokens: X (batch, length, dim).

        Returns:
            The summary S (batch, m, dim).
        """
        queries = latents.expand(len(tokens), -1, -1)
        return cross_modal_attention(queries, tokens, tokens, self.compression_gate)

    def fuse(self, x: Tensor, other: Tensor) -> Tensor:
        """Equation 8: X_av = CMA(X_a, S_v, S) = X_a + g Softmax(X_a S_v^T) S.

        Args:
            x: Tokens of the stream that hears (batch, length, dim).
            other: Tokens of the other stream (batch, other length, other dim).

        Returns:
            Tokens (batch, length, dim) that hold cues of the other stream.
        """
        if self.latents is None:
            # AVISH: CMA over all tokens. The fused kernel keeps no length x other-length matrix for the backward pass.
            key = self.match(other)[:, None]
            attended = F.scaled_dot_product_attention(x[:, None], key, key, scale=1.0)[:, 0]
            return x + self.fusion_gate * attended
        key = self.match(self.compress(self.latents, other))
        value = key if self.own_latents is None else self.compress(self.own_latents, x)
        return cross_modal_attention(x, key, value, self.fusion_gate)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Compress and fuse.

        Args:
            x: Tokens of the stream that hears (batch, length, dim).
            other: Tokens of the other stream (batch, other length, other dim).

        Returns:
            Tokens (batch, length, dim); ``x`` itself where nothing is heard.
        """
        return self.fuse(x, other) if self.hears_other else x


class LavishAdapter(LatentAttention):
    """LAV(other, x): what one stream gains from itself and from the other (Equations 6 to 9).

    Args:
        dim: Channels of the adapted stream.
        other_dim: Channels of the other stream.
        config: Settings; ``gate_*`` and ``direction`` are the layer's to read.
        hears_other: Whether this adapter fuses; otherwise it is the bottleneck alone.
        gate: Whether the bottleneck has its output gate.
    """

    def __init__(
        self, dim: int, other_dim: int, config: LavishConfig, *, hears_other: bool, gate: bool
    ) -> None:
        super().__init__(dim, other_dim, config, hears_other=hears_other)
        self.bottleneck = Bottleneck(
            dim,
            reduction=config.reduction,
            groups=config.groups,
            batch_norm=config.batch_norm,
            norm_before=config.norm_before,
            norm_after=config.norm_after,
            gate=gate,
            gate_order=config.gate_order,
            relu=hears_other or config.relu_alone,
        )

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Compress, fuse, adapt.

        Args:
            x: Tokens of the adapted stream (batch, length, dim).
            other: Tokens of the other stream (batch, other length, other dim).

        Returns:
            What is added to ``x`` (batch, length, dim): Z of Equation 9.
        """
        return self.bottleneck(super().forward(x, other))  # type: ignore[no-any-return]


class LavishLayer(FusionLayer):
    """A pair of frozen blocks with four adapters: beside attention and beside the MLP, in each stream."""

    def __init__(self, audio_dim: int, video_dim: int, config: LavishConfig) -> None:
        super().__init__()
        to_audio = config.direction in ("both", "visual_to_audio")
        to_video = config.direction in ("both", "audio_to_visual")

        def audio_adapter() -> LavishAdapter:
            return LavishAdapter(audio_dim, video_dim, config, hears_other=to_audio, gate=config.gate_audio)

        def video_adapter() -> LavishAdapter:
            return LavishAdapter(video_dim, audio_dim, config, hears_other=to_video, gate=config.gate_video)

        self.audio_attention, self.audio_mlp = audio_adapter(), audio_adapter()
        self.video_attention, self.video_mlp = video_adapter(), video_adapter()

    def forward(
        self, audio: Tensor, video: Tensor, audio_block: Block, video_block: Block, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        """Equations 4 and 5: Y = X + MHA(X) + LAV(X', X), then X = Y + MLP(Y) + LAV(Y', Y), both streams at once.

        Shapes as in :meth:`avtune.fusion.base.FusionLayer.forward`.
        """
        to_audio, to_video = self.audio_attention(audio, video), self.video_attention(video, audio)
        audio = audio + audio_block.attend(audio) + to_audio
        video = video + video_block.attend(video) + to_video

        to_audio, to_video = self.audio_mlp(audio, video), self.video_mlp(video, audio)
        audio = audio + audio_block.feed(audio) + to_audio
        video = video + video_block.feed(video) + to_video
        return audio, video


def build_lavish(pairs: BlockPairs, config: LavishConfig) -> Fusion:
    """A LAVISH layer for each pair of blocks.

    Args:
        pairs: Sizes of the paired blocks, in the order of the walk.
        config: Settings.

    Returns:
        The method, ready for ``DualEncoder``.
    """
    layers = [LavishLayer(pair.audio_dim, pair.video_dim, config) for pair in pairs]
    return Fusion(layers, train_norms=config.train_norms, exchanges=config.direction != "none")


def _new_latents(config: LavishConfig, dim: int) -> nn.Parameter | None:
    if config.latents == 0:
        return None
    latents = torch.empty(config.latents, dim)
    if config.latent_init == "normal":
        nn.init.normal_(latents, std=0.02)
    elif config.latent_init == "uniform":
        nn.init.uniform_(latents)
    else:
        nn.init.zeros_(latents)
    return nn.Parameter(latents)
