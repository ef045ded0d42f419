"""The walk: two frozen towers in lockstep, a method's layer at each step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from avtune.backbones import FrozenBlock, Resampling, Tower, create_tower
from avtune.config import EncoderConfig
from avtune.errors import AvtuneError
from avtune.fusion import BlockSizes, Fusion, Notes, build_fusion
from avtune.tuning import statistics_kept

Plan = Sequence[tuple[int | None, int | None]]


class PlanError(AvtuneError):
    """A plan that does not walk each tower's blocks once, in order."""


class BoundBlock:
    """A frozen block together with the positions of the stream that passes it, as a method's layer sees it.

    One tower may serve both streams at once, so what differs between them cannot live in the block.
    """

    def __init__(self, block: FrozenBlock, positions: Any) -> None:
        self.block, self.positions = block, positions
        self.dim, self.heads = block.dim, block.heads

    def attend(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """The attention branch, without the residual add; ``extra`` tokens are keys and values only."""
        return self.block.attend(x, self.positions, extra=extra)

    def feed(self, x: Tensor) -> Tensor:
        """The MLP branch, without the residual add."""
        return self.block.feed(x)


@dataclass
class Encoded:
    """Both streams after their towers.

    Attributes:
        audio: Sound tokens (batch * T, audio length, audio dim), after the final norm.
        video: Frame tokens (batch * T, video length, video dim), after the final norm.
        audio_pooled: (batch, T, audio dim), pooled as the tower's own head would.
        video_pooled: (batch, T, video dim).
        notes: What the method's layers left for losses.
    """

    audio: Tensor
    video: Tensor
    audio_pooled: Tensor
    video_pooled: Tensor
    notes: Notes


class DualEncoder(nn.Module):
    """Two towers walked together (Figure 2 of LAVISH).

    Args:
        audio_tower: Tower of the sound; may be the same object as ``video_tower``.
        video_tower: Tower of the frames.
        fusion: The method; as many layers as the plan has pairs.
        plan: Pairs of block indices; ``(None, j)`` means that the sound waits while video block j runs plain.
        recompute: Recompute each step in the backward pass instead of keeping its activations.
        resampling: How a learned position embedding is fitted to the spectrogram's size: ``grid`` in two
            dimensions, ``sequence`` as the LAVISH authors' code.

    Raises:
        PlanError: If the plan leaves out or repeats a block, or its pairs do not match the method's layers.
    """

    def __init__(
        self,
        audio_tower: Tower,
        video_tower: Tower,
        fusion: Fusion,
        plan: Plan,
        *,
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
        self.plan = tuple(plan)
        self.recompute = recompute
        self.resampling: Resampling = resampling

    @property
    def audio_tower(self) -> Tower:
        """The tower that the sound passes."""
        return self.video_tower if self.shared else self.separate_audio_tower

    def forward(self, spectrogram: Tensor, frames: Tensor) -> Encoded:
        """Encode clips.

        Args:
            spectrogram: Normalised log-mel values (batch, T, steps, mels).
            frames: Normalised RGB (batch, T, 3, height, width).

        Returns:
            Both streams, as tokens and pooled.
        """
        batch, segments = frames.shape[:2]
        # The towers were pretrained on colour images: the one channel of sound is shown as three.
        pictures = spectrogram.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)
        audio, audio_positions = self.audio_tower.embed(pictures, resampling=self.resampling)
        video, video_positions = self.video_tower.embed(frames.flatten(0, 1))
        notes = Notes(segments=segments)

        audio, video = self.fusion.open(audio, video)
        layers = iter(self.fusion.layers)
        for i, j in self.plan:
            if i is not None and j is not None:
                audio_block, video_block = self.audio_tower.blocks[i], self.video_tower.blocks[j]
                audio, video = audio_block.enter(audio), video_block.enter(video)
                a, v = BoundBlock(audio_block, audio_positions), BoundBlock(video_block, video_positions)
                audio, video = self._step(next(layers), audio, video, a, v, notes)
            elif i is not None:
                audio = self._alone(self.audio_tower.blocks[i], audio, audio_positions)
            elif j is not None:
                video = self._alone(self.video_tower.blocks[j], video, video_positions)
        audio, video = self.fusion.close(audio, video)

        audio, video = self.audio_tower.finish(audio), self.video_tower.finish(video)
        return Encoded(
            audio,
            video,
            self.audio_tower.pool(audio).view(batch, segments, -1),
            self.video_tower.pool(video).view(batch, segments, -1),
            notes,
        )

    def _step(
        self, layer: nn.Module, audio: Tensor, video: Tensor, a: BoundBlock, v: BoundBlock, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        if self.recompute and torch.is_grad_enabled():
            stepped: tuple[Tensor, Tensor] = checkpoint(
                layer, audio, video, a, v, notes, use_reentrant=False,
                context_fn=lambda: (nullcontext(), statistics_kept(layer)),
            )  # fmt: skip
            return stepped
        stepped = layer(audio, video, a, v, notes)
        return stepped

    @staticmethod
    def _alone(block: FrozenBlock, x: Tensor, positions: Any) -> Tensor:
        return block.plain(block.enter(x), positions)


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


def create_encoder(
    config: EncoderConfig, *, depth: int | None = None, recompute: bool = False, device: str | None = None
) -> DualEncoder:
    """Towers, plan and method as a recipe states them.

    Args:
        config: The recipe's ``encoder`` part.
        depth: Keep only this many blocks of each tower (for tests and sketches).
        recompute: See :class:`DualEncoder`.
        device: ``meta`` builds shapes without memory.

    Raises:
        avtune.backbones.BackboneError: If a tower does not exist or cannot be walked.
        avtune.fusion.OptionError: If a method, preset or option does not exist.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.tower_seed)
        video_tower = create_tower(config.tower, pretrained=config.pretrained, depth=depth, device=device)
        audio_tower = video_tower
        if config.audio_tower is not None and config.audio_tower != config.tower:
            audio_tower = create_tower(
                config.audio_tower, pretrained=config.pretrained, depth=depth, device=device
            )
    plan = pair_blocks(len(audio_tower.blocks), len(video_tower.blocks))
    pairs = [
        BlockSizes(a.dim, v.dim, a.heads, v.heads)
        for a, v in (
            (audio_tower.blocks[i], video_tower.blocks[j]) for i, j in plan if i is not None and j is not None
        )
    ]
    with torch.device(device or "cpu"):
        fusion = build_fusion(config.fusion, pairs, config.preset, config.options)
    encoder = DualEncoder(
        audio_tower, video_tower, fusion, plan, recompute=recompute, resampling=config.position_resampling
    )
    if fusion.train_norms:
        for tower in {id(t): t for t in (audio_tower, video_tower)}.values():
            _train_norms(tower)
    return encoder


def _train_norms(tower: Tower) -> None:
    for module in tower.modules():
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)


def _check_plan(plan: Plan, audio_depth: int, video_depth: int) -> None:
    for stream, walked, depth in (
        ("audio", [i for i, _ in plan if i is not None], audio_depth),
        ("video", [j for _, j in plan if j is not None], video_depth),
    ):
        if walked != list(range(depth)):
            raise PlanError(
                f"the plan walks {stream} blocks {walked}; it must walk 0 to {depth - 1} once, in order"
            )
