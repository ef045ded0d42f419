"""STG-CMA: spatial, temporal and global cross-modal adaptation (Wang, Tian, Hatzinakos, 2024).

Symbols and names here: X_a, X_v ``audio``, ``video``; MHA ``attend``; MLP ``feed``; D, U ``down``, ``up``; O what a
frozen branch gives; H ``hidden``; g ``gate``. ``docs/methods/stg_cma.md`` lists what the poster leaves open and what
its authors' code does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.backbones.head_count import split_into_heads
from avtune.backbones.timm_loading import timm
from avtune.fusion.base import Block, BlockPairs, BlockSizes, Fusion, FusionLayer, Notes
from avtune.options import OptionError

Size = Literal["base", "tiny"]

RATIOS: dict[str, tuple[float, ...]] = {
    "clip_b_tiny": (1 / 32,),
    "clip_b_base": (1 / 8,),
    "clip_l_tiny": (1 / 32,),
    "clip_l_base": (1 / 16,),
    "swin_b_tiny": (1 / 8, 1 / 8, 1 / 16, 1 / 16),
    "swin_b_base": (1 / 4, 1 / 4, 1 / 8, 1 / 8),
    "swin_l_tiny": (1 / 8, 1 / 8, 1 / 16, 1 / 16),
    "swin_l_base": (1 / 2, 1 / 4, 1 / 8, 1 / 16),
}
"""Width of the adapters over the width of the tokens, stage by stage, in the rows of the poster's Table 1."""


@dataclass(frozen=True)
class StgCmaConfig:
    """Settings of STG-CMA; the defaults are those of the poster's Base rows.

    Attributes:
        size: Row of the poster's Table 1 that ``ratios`` follow while they are ``None``.
        ratios: Width of the adapters over the width of the tokens, for each stage of the tower; one value serves
            all stages. ``None``: those of the poster's row for the tower of the same widths.
        direction: Which stream hears of the other: ``both``, ``audio_to_visual``, ``visual_to_audio`` or ``none``
            (adapters alone).
        spatial: Whom spatial adaptation compares: ``window`` the same attention window of both streams (on a tower
            without windows the whole frame), ``frame`` always all tokens of the frame.
        temporal: Blocks that attend along time: ``unshifted`` leaves out those with shifted windows, every other
            one in Swin, as the authors' code; ``all``; ``none``.
        time_positions: What tells the time steps apart: ``embedding`` added to the tokens before the first block,
            ``tables`` of relative bias in each block, ``none``; ``auto``: tables where widths change from stage to
            stage (Swin), otherwise the embedding.
        drop_path: Chance that a clip's temporal branch is left out in training, in the last block; it rises from
            zero in the first.
        train_final_norm: Train the towers' final norm; ``None``: where widths do not change (CLIP).
        heads: Attention heads of a ViT's frozen attention; ``None``: as pretrained. The authors ran CLIP-B, which has
            12, with 8.
    """

    size: Size = "base"
    ratios: tuple[float, ...] | None = None
    direction: Literal["both", "audio_to_visual", "visual_to_audio", "none"] = "both"
    spatial: Literal["window", "frame"] = "window"
    temporal: Literal["unshifted", "all", "none"] = "unshifted"
    time_positions: Literal["auto", "embedding", "tables", "none"] = "auto"
    drop_path: float = 0.2
    train_final_norm: bool | None = None
    heads: int | None = None


PRESETS = {
    "base": StgCmaConfig(),
    "tiny": StgCmaConfig(size="tiny"),
    **{name: StgCmaConfig(ratios=ratios) for name, ratios in RATIOS.items()},
    "clip_b_tiny_8_heads": StgCmaConfig(ratios=RATIOS["clip_b_tiny"], heads=8),
    "clip_b_base_8_heads": StgCmaConfig(ratios=RATIOS["clip_b_base"], heads=8),
}


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
        _check_segments(segments, built)
        steps = torch.arange(segments, device=self.bias_table.device)
        distance = steps[:, None] - steps[None, :] + built - 1
        return self.bias_table[distance].permute(2, 0, 1)

    def forward(self, x: Tensor, block: Block, segments: int) -> Tensor:
        """What is added to tokens (batch * T, length, dim), of the same shape."""
        clips = x.reshape(-1, segments, *x.shape[1:]).transpose(1, 2)
        attended = block.attend_along(clips.flatten(0, 1), self.bias(segments))
        adapted: Tensor = self.drop_path(self.adapter(attended).reshape(clips.shape))
        return adapted.transpose(1, 2).flatten(0, 1)


class StgCmaLayer(FusionLayer):
    """A pair of frozen blocks, adapted in time, in space and as a whole.

    Args:
        sizes: Sizes of the blocks.
        width: Channels of every adapter.
        config: Settings.
        tables: Whether temporal attention has tables of relative bias.
        drop_path: Chance that a clip's temporal branch is left out in training.
    """

    def __init__(
        self, sizes: BlockSizes, width: int, config: StgCmaConfig, *, tables: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.by_window = config.spatial == "window"
        self.gates = Gates(config.direction)

        def along_time(dim: int, heads: int, shifted: bool) -> TemporalAdaptation | None:
            if config.temporal == "none" or (config.temporal == "unshifted" and shifted):
                return None
            heads = config.heads or heads
            return TemporalAdaptation(dim, width, heads, sizes.segments, tables=tables, drop_path=drop_path)

        self.audio_temporal = along_time(sizes.audio_dim, sizes.audio_heads, sizes.audio_shifted)
        self.video_temporal = along_time(sizes.video_dim, sizes.video_heads, sizes.video_shifted)
        self.spatial_adapter = AudioVisualAdapter(sizes, width)
        self.global_adapter = AudioVisualAdapter(sizes, width)

    def forward(
        self, audio: Tensor, video: Tensor, audio_block: Block, video_block: Block, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        """Temporal, spatial and global adaptation, both streams at once.

        Shapes as in :meth:`avtune.fusion.base.FusionLayer.forward`.
        """
        audio, video = self.adapt_in_time(audio, video, audio_block, video_block, notes)
        audio, video = self.adapt_in_space(audio, video, audio_block, video_block)
        return self.adapt_globally(audio, video, audio_block, video_block)

    def adapt_in_time(
        self, audio: Tensor, video: Tensor, audio_block: Block, video_block: Block, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        """X = X + Adapter(MHA(X along time)); nothing passes between the streams."""
        if self.audio_temporal is not None:
            audio = audio + self.audio_temporal(audio, audio_block, notes.segments)
        if self.video_temporal is not None:
            video = video + self.video_temporal(video, video_block, notes.segments)
        return audio, video

    def adapt_in_space(
        self, audio: Tensor, video: Tensor, audio_block: Block, video_block: Block
    ) -> tuple[Tensor, Tensor]:
        """O = MHA(X), X = X + O + U H', fused within windows."""
        a, v = audio_block.attend(audio), video_block.attend(video)
        windows = (audio_block, video_block) if self.by_window else None
        to_audio, to_video = self.spatial_adapter(a, v, self.gates, windows)
        return audio + a + to_audio, video + v + to_video

    def adapt_globally(
        self, audio: Tensor, video: Tensor, audio_block: Block, video_block: Block
    ) -> tuple[Tensor, Tensor]:
        """O = MLP(X), X = X + O + U H', fused over all tokens of the frame."""
        a, v = audio_block.feed(audio), video_block.feed(video)
        to_audio, to_video = self.global_adapter(a, v, self.gates)
        return audio + a + to_audio, video + v + to_video


class StgCma(Fusion):
    """All layers, the temporal embeddings, and what of the towers is trained along.

    Args:
        layers: One for each pair of blocks.
        config: Settings.
        first: Sizes of the first pair where there are temporal embeddings; ``None``: there are none.
        train_final_norm: Whether the towers' final norm is trained.
    """

    def __init__(
        self,
        layers: Sequence[StgCmaLayer],
        config: StgCmaConfig,
        first: BlockSizes | None,
        *,
        train_final_norm: bool,
    ) -> None:
        super().__init__(layers)
        self.heads, self.train_final_norm = config.heads, train_final_norm
        self.audio_time = nn.Parameter(torch.zeros(1, first.segments, first.audio_dim)) if first else None
        self.video_time = nn.Parameter(torch.zeros(1, first.segments, first.video_dim)) if first else None

    def attach(self, audio_tower: Tower, video_tower: Tower) -> None:
        """Free the final norms and set the head count, where the settings say so."""
        super().attach(audio_tower, video_tower)
        for tower in (audio_tower, video_tower):
            if self.heads is not None:
                split_into_heads(tower, self.heads)
            if self.train_final_norm:
                # A tower that pools by a mean has its final norm behind it.
                for name in ("norm", "fc_norm"):
                    getattr(tower.model, name, nn.Identity()).requires_grad_(True)

    def embed(self, audio: Tensor, video: Tensor, notes: Notes) -> tuple[Tensor, Tensor]:
        """Add to every token the embedding of its time step."""
        return _add_time(audio, self.audio_time, notes), _add_time(video, self.video_time, notes)


def build_stg_cma(pairs: BlockPairs, config: StgCmaConfig) -> Fusion:
    """An STG-CMA layer for each pair of blocks.

    Args:
        pairs: Sizes of the paired blocks, in the order of the walk.
        config: Settings.

    Returns:
        The method, ready for ``DualEncoder``.

    Raises:
        OptionError: If the ratios do not fit the tower's stages.
    """
    stages = list(dict.fromkeys(pair.video_dim for pair in pairs))
    ratios = _ratios(stages, config)
    staged = len(stages) > 1
    positions = config.time_positions
    if positions == "auto":
        positions = "tables" if staged else "embedding"
    last = max(1, len(pairs) - 1)
    layers = [
        StgCmaLayer(
            pair,
            _width(pair, ratios[stages.index(pair.video_dim)]),
            config,
            tables=positions == "tables",
            drop_path=config.drop_path * index / last,
        )
        for index, pair in enumerate(pairs)
    ]
    train_final_norm = not staged if config.train_final_norm is None else config.train_final_norm
    first = pairs[0] if positions == "embedding" else None
    return StgCma(layers, config, first, train_final_norm=train_final_norm)


def _ratios(stages: Sequence[int], config: StgCmaConfig) -> Sequence[float]:
    ratios = config.ratios
    if ratios is None:
        if len(stages) == 1:
            tower = "clip_b" if stages[0] <= 768 else "clip_l"
        else:
            tower = "swin_b" if stages[-1] <= 1024 else "swin_l"
        ratios = RATIOS[f"{tower}_{config.size}"]
    if len(ratios) == 1:
        return ratios * len(stages)
    if len(ratios) != len(stages):
        raise OptionError(
            f"stg_cma has {len(ratios)} ratios for the {len(stages)} widths {', '.join(map(str, stages))} of the "
            "tower; set encoder.options.ratios to one value for each, or to one for all"
        )
    return ratios


def _width(pair: BlockSizes, ratio: float) -> int:
    width = int(ratio * min(pair.audio_dim, pair.video_dim))
    if width < 1:
        raise OptionError(
            f"ratio {ratio} leaves no channel of {pair.audio_dim} and {pair.video_dim}; choose a larger one"
        )
    return width


def _by_window(block: Block, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Tokens by window, and which of them are no padding (``None``: all)."""
    grouped = block.group(x)
    if grouped.numel() == x.numel():
        return grouped, None
    return grouped, block.group(x.new_ones(*x.shape[:2], 1)).bool().transpose(1, 2)[:, None]


def _add_time(x: Tensor, embedding: Tensor | None, notes: Notes) -> Tensor:
    if embedding is None:
        return x
    _check_segments(notes.segments, embedding.shape[1])
    clips = x.reshape(-1, notes.segments, *x.shape[1:])
    return (clips + embedding[:, : notes.segments, None]).flatten(0, 1)


def _check_segments(segments: int, built: int) -> None:
    if segments > built:
        raise OptionError(
            f"stg_cma was built for {built} segments a clip and got {segments}; build it with input.segments={segments}"
        )
