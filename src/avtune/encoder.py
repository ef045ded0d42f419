"""The walk: two frozen towers in lockstep, a method's layer at each step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from avtune.backbones import BackboneError, Positions, Resampling, Tower, create_tower
from avtune.config import EncoderConfig
from avtune.errors import AvtuneError
from avtune.fusion import BlockSizes, Fusion, Notes, build_fusion
from avtune.tuning import BoundBlock, Stream, Tuning, build_tuning, statistics_kept

Plan = Sequence[tuple[int | None, int | None]]


class PlanError(AvtuneError):
    """A plan that does not walk each tower's blocks once, in order."""


@dataclass
class Encoded:
    """Both streams after their towers.

    Attributes:
        audio: Sound tokens (batch * T, audio length, audio dim), after the final norm.
        video: Frame tokens (batch * T, video length, video dim), after the final norm.
        audio_pooled: (batch, T, audio dim), pooled as the tower's own head would.
        video_pooled: (batch, T, video dim).
        notes: What the method's layers left for losses.
        audio_prefix: Class and register tokens that stand before the sound's patches.
        video_prefix: Those before the frames' patches.
        valid: Which segments exist in their files, (batch, T) bool; ``None``: all.
        has_audio: Which clips have sound, (batch,) bool; ``None``: all.
        has_video: Which clips have frames, (batch,) bool; ``None``: all.
        video_stages: Frame tokens at the end of each stage of the tower (batch * T, length, dim), the finest first,
            without what methods append; the last is ``video``. Empty unless the encoder's ``keep_stages`` is set.
        question: What is asked about each clip, word numbers (batch, words) int64; ``None``: nothing.
        stranger: Frame tokens of another file for each segment, of the shape of ``video``; ``None``: the task compares
            with none.
    """

    audio: Tensor
    video: Tensor
    audio_pooled: Tensor
    video_pooled: Tensor
    notes: Notes
    audio_prefix: int = 0
    video_prefix: int = 0
    valid: Tensor | None = None
    has_audio: Tensor | None = None
    has_video: Tensor | None = None
    video_stages: tuple[Tensor, ...] = ()
    question: Tensor | None = None
    stranger: Tensor | None = None


class DualEncoder(nn.Module):
    """Two towers walked together (Figure 2 of LAVISH).

    Args:
        audio_tower: Tower of the sound; may be the same object as ``video_tower``.
        video_tower: Tower of the frames.
        fusion: The method; as many layers as the plan has pairs.
        plan: Pairs of block indices; ``(None, j)`` means that the sound waits while video block j runs alone.
        tuning: What is trained within the streams; ``None``: nothing.
        recompute: Recompute each step in the backward pass instead of keeping its activations.
        resampling: How a learned position embedding is fitted to the spectrogram's size: ``grid`` in two
            dimensions, ``sequence`` as the LAVISH authors' code.

    Attributes:
        keep_stages: Hand the frames' tokens of every stage on, for heads that need more than one scale.

    Raises:
        PlanError: If the plan leaves out or repeats a block, or its pairs do not match the method's layers.
    """

    keep_stages = False

    def __init__(
        self,
        audio_tower: Tower,
        video_tower: Tower,
        fusion: Fusion,
        plan: Plan,
        *,
        tuning: Tuning | None = None,
        recompute: bool = False,
        resampling: Resampling = "grid",
    ) -> None:
        super().__init__()
        _check_plan(plan, len(audio_tower.blocks), len(video_tower.blocks))
        pairs = sum(i is not None and j is not None for i, j in plan)
        if pairs != len(fusion.layers):
            raise PlanError(f"the plan pairs {pairs} blocks, but the method has {len(fusion.layers)} layers")
        self.video_tower = video_tower
        # Registered once when shared: its weights count, move and save once.
        self.shared = audio_tower is video_tower
        if not self.shared:
            self.separate_audio_tower = audio_tower
        self.fusion = fusion
        self.tuning = tuning or build_tuning(None, audio_tower, video_tower)
        self.plan = tuple(plan)
        self.recompute = recompute
        self.resampling: Resampling = resampling
        self.tuning.attach(audio_tower, video_tower)
        fusion.attach(audio_tower, video_tower)

    @property
    def audio_tower(self) -> Tower:
        """The tower that the sound passes."""
        return self.video_tower if self.shared else self.separate_audio_tower

    def forward(self, spectrogram: Tensor, frames: Tensor) -> Encoded:
        """Encode clips.

        Args:
            spectrogram: Normalised log-mel values (batch, T, steps, mels), or (batch, 1, steps, mels) where all
                segments hear the same.
            frames: Normalised RGB (batch, T, 3, height, width).

        Returns:
            Both streams, as tokens and pooled.
        """
        batch, segments = frames.shape[:2]
        # A tower that was pretrained on colour images sees the one channel of sound three times.
        heard = spectrogram.expand(-1, segments, -1, -1).flatten(0, 1)
        pictures = heard.unsqueeze(1).expand(-1, self.audio_tower.channels, -1, -1)
        audio, audio_positions = self.audio_tower.place(pictures, resampling=self.resampling)
        video, video_positions = self.video_tower.place(frames.flatten(0, 1))
        notes = Notes(segments=segments)

        audio, video = self.fusion.embed(audio, video, notes)
        audio, video = self.audio_tower.begin(audio), self.video_tower.begin(video)
        audio, video = self.tuning.open(audio, video)
        audio, video = self.fusion.open(audio, video, notes)
        layers = iter(self.fusion.layers)
        stages = []
        for i, j in self.plan:
            if i is not None:
                a, audio = self._bind("audio", i, audio, audio_positions)
            if j is not None:
                v, video = self._bind("video", j, video, video_positions)
            if i is not None and j is not None:
                audio, video = self._step(next(layers), audio, video, a, v, notes)
            elif i is not None:
                audio = _alone(a, audio)
            else:
                video = _alone(v, video)
            if j in self._stage_ends:
                # Prompts and the like stand behind the tower's own tokens.
                stages.append(video[:, : self.video_tower.lengths(*frames.shape[-2:])[j]])
        audio, video = self.audio_tower.finish(audio), self.video_tower.finish(video)
        audio, video = self.fusion.close(audio, video, notes)
        audio, video = self.tuning.close(audio, video)
        return Encoded(
            audio,
            video,
            self.audio_tower.pool(audio).view(batch, segments, -1),
            self.video_tower.pool(video).view(batch, segments, -1),
            notes,
            self.audio_tower.prefix_tokens,
            self.video_tower.prefix_tokens,
            video_stages=(*stages, video) if self.keep_stages else (),
        )

    @property
    def _stage_ends(self) -> tuple[int, ...]:
        """Last blocks of all stages but the last, whose tokens are those after the final norm."""
        return tuple(stage[-1] for stage in self.video_tower.stages[:-1]) if self.keep_stages else ()

    def _bind(self, stream: Stream, index: int, x: Tensor, positions: Positions) -> tuple[BoundBlock, Tensor]:
        """A block as its stream sees it, and the stream on that block's grid."""
        block = (self.audio_tower if stream == "audio" else self.video_tower).blocks[index]
        return BoundBlock(block, positions, self.tuning.at(stream, index)), block.enter(x)

    def _step(
        self, layer: nn.Module, audio: Tensor, video: Tensor, a: BoundBlock, v: BoundBlock, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        if self.recompute and torch.is_grad_enabled():
            stepped: tuple[Tensor, Tensor] = checkpoint(
                layer, audio, video, a, v, notes, use_reentrant=False,
                context_fn=lambda: (nullcontext(), statistics_kept(layer, a.tuning, v.tuning)),
            )  # fmt: skip
            return stepped
        stepped = layer(audio, video, a, v, notes)
        return stepped


def _alone(block: BoundBlock, x: Tensor) -> Tensor:
    x = x + block.attend(x)
    return x + block.feed(x)


def pair_blocks(audio_depth: int, video_depth: int) -> list[tuple[int | None, int | None]]:
    """The default plan: every block of the shallower tower has a partner, spread evenly over the deeper one.

    Args:
        audio_depth: Blocks of the audio tower.
        video_depth: Blocks of the video tower.

    Returns:
        For equal depths ``[(0, 0), (1, 1), ...]``; otherwise the deeper tower's other blocks run alone.
    """
    shallow, deep = min(audio_depth, video_depth), max(audio_depth, video_depth)
    partners = {(k + 1) * deep // shallow - 1: k for k in range(shallow)}
    plan: list[tuple[int | None, int | None]] = []
    for block in range(deep):
        partner = partners.get(block)
        plan.append((partner, block) if video_depth >= audio_depth else (block, partner))
    return plan


def pair_towers(audio_tower: Tower, video_tower: Tower) -> list[tuple[int | None, int | None]]:
    """The default plan of two towers: stage by stage where they have as many, otherwise over their whole depth.

    Stages pair equal grids: Swin-V2-L (2, 2, 18, 2) with HTS-AT (2, 2, 6, 2) gives DG-SCT's plan, in whose third
    stage block k of the sound meets block 3k + 2 of the frames.
    """
    if len(audio_tower.stages) != len(video_tower.stages):
        return pair_blocks(len(audio_tower.blocks), len(video_tower.blocks))
    return [
        (None if i is None else audio[i], None if j is None else video[j])
        for audio, video in zip(audio_tower.stages, video_tower.stages, strict=True)
        for i, j in pair_blocks(len(audio), len(video))
    ]


def create_towers(
    config: EncoderConfig, *, depth: int | None = None, device: str | None = None
) -> tuple[Tower, Tower]:
    """The towers that a recipe names, of the sound and of the frames; the same object where they share one.

    Args:
        config: The recipe's ``encoder`` part.
        depth: Keep only this many blocks of each tower (for tests and sketches).
        device: ``meta`` builds shapes without memory.

    Raises:
        avtune.backbones.BackboneError: If a tower does not exist or cannot be walked.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.tower_seed)
        video = create_tower(config.tower, pretrained=config.pretrained, depth=depth, device=device)
        if video.channels != 3:
            raise BackboneError(
                f"{config.tower} is a tower for sound and cannot see frames; set "
                f"encoder.audio_tower={config.tower} and encoder.tower to a backbone for images"
            )
        own = config.audio_tower or config.tower
        if own == config.tower and not config.separate:
            return video, video
        audio = create_tower(own, pretrained=config.pretrained, depth=depth, device=device)
        return audio, video


def create_encoder(
    config: EncoderConfig,
    *,
    towers: tuple[Tower, Tower] | None = None,
    segments: int = 10,
    spectrogram_shape: tuple[int, int] | None = None,
    frame_shape: tuple[int, int] | None = None,
    depth: int | None = None,
    recompute: bool = False,
    device: str | None = None,
) -> DualEncoder:
    """Towers, plan and method as a recipe states them.

    Args:
        config: The recipe's ``encoder`` part.
        towers: What :func:`create_towers` gave; ``None``: made here.
        segments: Time steps per clip, T; some methods have weights for each.
        spectrogram_shape: Rows and columns of a spectrogram; ``None``: the audio tower's own square.
        frame_shape: Rows and columns of a frame; ``None``: the video tower's own square.
        depth: See :func:`create_towers`.
        recompute: See :class:`DualEncoder`.
        device: See :func:`create_towers`.

    Raises:
        avtune.backbones.BackboneError: If a tower does not exist or cannot be walked.
        avtune.options.OptionError: If a method, tuning, preset or option does not exist.
        avtune.tuning.TuningError: If the tuning does not fit the towers.
        PlanError: If the recipe's plan does not fit the towers.
    """
    audio_tower, video_tower = towers or create_towers(config, depth=depth, device=device)
    plan = config.plan or pair_towers(audio_tower, video_tower)
    _check_plan(plan, len(audio_tower.blocks), len(video_tower.blocks))
    with torch.device(device or "cpu"):
        tuning = build_tuning(
            config.tuning, audio_tower, video_tower, config.tuning_preset, config.tuning_options
        )
    audio_tower, video_tower = tuning.part(audio_tower, video_tower)
    audio_lengths = audio_tower.lengths(*(spectrogram_shape or (audio_tower.image_size,) * 2))
    video_lengths = video_tower.lengths(*(frame_shape or (video_tower.image_size,) * 2))
    pairs = []
    for i, j in plan:
        if i is None or j is None:
            continue
        a, v = audio_tower.blocks[i], video_tower.blocks[j]
        lengths = (audio_lengths[i] + tuning.tokens, video_lengths[j] + tuning.tokens)
        pairs.append(BlockSizes(a.dim, v.dim, a.heads, v.heads, *lengths, segments))
    with torch.device(device or "cpu"):
        fusion = build_fusion(config.fusion, pairs, config.preset, config.options)
    return DualEncoder(
        audio_tower,
        video_tower,
        fusion,
        plan,
        tuning=tuning,
        recompute=recompute,
        resampling=config.position_resampling,
    )


def _check_plan(plan: Plan, audio_depth: int, video_depth: int) -> None:
    for stream, walked, depth in (
        ("audio", [i for i, _ in plan if i is not None], audio_depth),
        ("video", [j for _, j in plan if j is not None], video_depth),
    ):
        if walked != list(range(depth)):
            raise PlanError(
                f"the plan walks {stream} blocks {walked}; it must walk 0 to {depth - 1} once, in order"
            )
