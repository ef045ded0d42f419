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
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.backbones.head_count import split_into_heads
from avtune.fusion.base import Block, BlockPairs, BlockSizes, Fusion, FusionLayer, Notes
from avtune.fusion.stg_cma_adapters import AudioVisualAdapter, Gates, TemporalAdaptation, check_segments
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
        temporal: Blocks that attend along time: ``alternate`` every other one of a stage from its first, which are
            those that Swin does not shift, as the authors' code; ``all``; ``none``; ``auto``: alternate where widths
            change from stage to stage (Swin), otherwise all.
        time_positions: What tells the time steps apart: ``embedding`` added to the tokens before the first block,
            ``tables`` of relative bias in each block, ``none``; ``auto``: tables where widths change (Swin),
            otherwise the embedding.
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
    temporal: Literal["auto", "alternate", "all", "none"] = "auto"
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


class StgCmaLayer(FusionLayer):
    """A pair of frozen blocks, adapted in time, in space and as a whole.

    Args:
        sizes: Sizes of the blocks.
        width: Channels of every adapter.
        config: Settings.
        temporal: Whether these blocks attend along time.
        tables: Whether they then have tables of relative bias.
        drop_path: Chance that a clip's temporal branch is left out in training.
    """

    def __init__(
        self,
        sizes: BlockSizes,
        width: int,
        config: StgCmaConfig,
        *,
        temporal: bool,
        tables: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.by_window = config.spatial == "window"
        self.gates = Gates(config.direction)

        def along_time(dim: int, heads: int) -> TemporalAdaptation | None:
            if not temporal:
                return None
            heads = config.heads or heads
            return TemporalAdaptation(dim, width, heads, sizes.segments, tables=tables, drop_path=drop_path)

        self.audio_temporal = along_time(sizes.audio_dim, sizes.audio_heads)
        self.video_temporal = along_time(sizes.video_dim, sizes.video_heads)
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
    widths = [pair.video_dim for pair in pairs]
    stages = list(dict.fromkeys(widths))
    ratios = _ratios(stages, config)
    staged = len(stages) > 1
    positions = config.time_positions
    if positions == "auto":
        positions = "tables" if staged else "embedding"
    layers = []
    for index, pair in enumerate(pairs):
        stage = stages.index(pair.video_dim)
        layer = StgCmaLayer(
            pair,
            _width(pair, ratios[stage]),
            config,
            temporal=_attends_along_time(config, staged, index - widths.index(pair.video_dim)),
            tables=positions == "tables",
            drop_path=config.drop_path * index / max(1, len(pairs) - 1),
        )
        layers.append(layer)
    train_final_norm = not staged if config.train_final_norm is None else config.train_final_norm
    first = pairs[0] if positions == "embedding" else None
    return StgCma(layers, config, first, train_final_norm=train_final_norm)


def _attends_along_time(config: StgCmaConfig, staged: bool, index: int) -> bool:
    if config.temporal == "alternate" or (config.temporal == "auto" and staged):
        return index % 2 == 0
    return config.temporal != "none"


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


def _add_time(x: Tensor, embedding: Tensor | None, notes: Notes) -> Tensor:
    if embedding is None:
        return x
    check_segments(notes.segments, embedding.shape[1])
    clips = x.reshape(-1, notes.segments, *x.shape[1:])
    return (clips + embedding[:, : notes.segments, None]).flatten(0, 1)
