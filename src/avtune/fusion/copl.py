"""CoPL: collaborative prompt learning (Zhao et al., MM 2024), equation for equation.

Symbols of the paper and names here: Z_a, Z_v ``audio``, ``video``; M ``SpecificPrompts``, with M^g ``whole_clip`` and
M^f ``per_frame``; I ``coupling`` (Equations 5 to 9, ``prompt_bank.py``); T^l a frozen block, ``attend`` and ``feed``;
lambda ``consistency``. ``docs/methods/copl.md`` argues what the paper leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.fusion.base import Block, BlockPairs, BlockSizes, Fusion, FusionLayer, Notes
from avtune.fusion.prompt_bank import BankConfig, MutualCoupling, new_prompts
from avtune.options import OptionError


@dataclass(frozen=True)
class CoplConfig(BankConfig):
    """Settings of CoPL: its own, and before them those of :class:`avtune.fusion.prompt_bank.BankConfig`.

    Attributes:
        global_prompts: Length L_g of the video-level prompts (Figure 4); 0: none (Table 4). The paper: 20 on AVE,
            30 on AVS and AVQA.
        frame_prompts: The T frame-level prompts: ``own``, frame t gets the t-th; ``all``, every frame gets all;
            ``none`` (Table 4).
        interaction_blocks: Last blocks k that get interaction prompts; ``None``: 4, or 2 where the tower has
            stages.
        prompt_outputs: What becomes of the prompts' outputs: ``dropped``, each block begins with its own prompts;
            ``kept``, they pass the further blocks beside those (towers without windows only).
        consistency: Weight lambda of Equation 11 (Figure 5); 0: none (Table 4).
        consistency_over: What Equation 10 compares: ``pooled``, one vector per frame as the head reads it;
            ``mean``, the mean over patches; ``tokens``, token by token (equal grids only).
        consistency_width: How widths that differ are made equal for Equation 10: ``averaged``, neighbouring
            channels of the wider stream; ``projected``, the narrower stream, by a trained linear layer.
        consistency_reduction: ``mean`` over channels (mean squared error, the text) or ``sum`` (the squared norm
            of Equation 10).
    """

    global_prompts: int = 20
    frame_prompts: Literal["own", "all", "none"] = "own"
    interaction_blocks: int | None = None
    prompt_outputs: Literal["dropped", "kept"] = "dropped"
    consistency: float = 0.005
    consistency_over: Literal["pooled", "mean", "tokens"] = "pooled"
    consistency_width: Literal["averaged", "projected"] = "averaged"
    consistency_reduction: Literal["mean", "sum"] = "mean"


PAPER = CoplConfig()
LONG = replace(PAPER, global_prompts=30, interaction_prompts=30)
PRESETS = {"paper": PAPER, "paper_avs": LONG, "paper_avqa": LONG}


class SpecificPrompts(nn.Module):
    """Equation 2: M = [M^g, M^f], the prompts of one stream at one block.

    Args:
        dim: Channels.
        segments: Time steps T that there are frame-level prompts for.
        config: Settings.
    """

    def __init__(self, dim: int, segments: int, config: CoplConfig) -> None:
        super().__init__()
        self.every_frame_gets_all = config.frame_prompts == "all"
        self.whole_clip = new_prompts(config, config.global_prompts, dim) if config.global_prompts else None
        self.per_frame = new_prompts(config, segments, dim) if config.frame_prompts != "none" else None

    def forward(self, clips: int, segments: int) -> Tensor | None:
        """The prompts of each frame.

        Args:
            clips: Clips in the batch.
            segments: Time steps of this batch; the first frame-level prompts where there are fewer than T.

        Returns:
            M (clips * segments, length, dim); ``None`` where the settings leave nothing.
        """
        prompts = []
        if self.whole_clip is not None:
            prompts.append(self.whole_clip.expand(clips * segments, -1, -1))
        if self.per_frame is not None:
            steps = self.per_frame[:segments]
            if self.every_frame_gets_all:
                prompts.append(steps.expand(clips * segments, -1, -1))
            else:
                prompts.append(steps.unsqueeze(1).repeat(clips, 1, 1))
        return torch.cat(prompts, dim=1) if prompts else None


class CoplLayer(FusionLayer):
    """A pair of frozen blocks with prompts beside the tokens of each stream.

    Args:
        pair: Sizes of the two blocks.
        config: Settings.
        interacts: Whether it is one of the last k, which get interaction prompts.

    Attributes:
        prefixes: Class and register tokens before the patches, of sound and of frames.
    """

    def __init__(self, pair: BlockSizes, config: CoplConfig, *, interacts: bool) -> None:
        super().__init__()
        self.audio_prompts = SpecificPrompts(pair.audio_dim, pair.segments, config)
        self.video_prompts = SpecificPrompts(pair.video_dim, pair.segments, config)
        self.coupling = MutualCoupling(pair.audio_dim, pair.video_dim, config) if interacts else None
        self.keep = config.prompt_outputs == "kept"
        # Where outputs are kept, the stream's own tokens end here; otherwise there are no others.
        self.lengths = (pair.audio_length, pair.video_length) if self.keep else (None, None)
        self.patches_only = config.summary_tokens == "patches"
        self.prefixes = (0, 0)

    def collaborate(self, audio: Tensor, video: Tensor, segments: int) -> tuple[Tensor | None, Tensor | None]:
        """The prompts of Equations 3 and 4: [M, I], or M alone before the last k blocks.

        Args:
            audio: Sound tokens before the block.
            video: Frame tokens before the block.
            segments: Time steps per clip.

        Returns:
            Prompts of each stream (clips * segments, n, dim); ``None`` where the settings leave none.
        """
        clips = len(audio) // segments
        to_audio, to_video = self.audio_prompts(clips, segments), self.video_prompts(clips, segments)
        if self.coupling is None:
            return to_audio, to_video
        before = self.prefixes if self.patches_only else (0, 0)
        interaction = self.coupling(
            audio[:, before[0] : self.lengths[0]], video[:, before[1] : self.lengths[1]], segments
        )
        return _joined(to_audio, interaction[0]), _joined(to_video, interaction[1])

    def transform(self, x: Tensor, block: Block, prompts: Tensor | None) -> Tensor:
        """Z = T[Z, prompts]: one frozen block with prompts beside the tokens.

        Outputs that are dropped need no queries, no projection and no MLP: such prompts are keys and values
        alone, which is exactly equal.

        Args:
            x: Tokens (batch, length, dim).
            block: The frozen block.
            prompts: (batch, n, dim) or ``None``.

        Returns:
            (batch, length, dim), with the prompts' outputs behind where they are kept.
        """
        if self.keep and prompts is not None:
            x = torch.cat([x, prompts], dim=1)
            x = x + block.attend(x)
        else:
            x = x + block.attend(x, extra=prompts)
        return x + block.feed(x)

    def forward(
        self, audio: Tensor, video: Tensor, audio_block: Block, video_block: Block, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        """Equations 3 and 4: Z_a = T_a[Z_a, M_a, I_a], Z_v = T_v[Z_v, M_v, I_v]; I in the last k blocks.

        Shapes as in :meth:`avtune.fusion.base.FusionLayer.forward`.
        """
        to_audio, to_video = self.collaborate(audio, video, notes.segments)
        return self.transform(audio, audio_block, to_audio), self.transform(video, video_block, to_video)


class Copl(Fusion):
    """CoPL's layers, and the consistency constraint behind them.

    Args:
        pairs: Sizes of the paired blocks.
        config: Settings.
    """

    def __init__(self, pairs: BlockPairs, config: CoplConfig) -> None:
        first = len(pairs) - _interacting(pairs, config)
        super().__init__(
            CoplLayer(pair, config, interacts=place >= first) for place, pair in enumerate(pairs)
        )
        self.config = config
        self.segments = pairs[0].segments
        last = pairs[-1]
        # The towers' final tokens; what prompts left behind them is cut off in close.
        self.lengths = (last.audio_length, last.video_length)
        self.towers: tuple[Tower, ...] = ()
        projected = config.consistency > 0 and config.consistency_width == "projected"
        dims = sorted((last.audio_dim, last.video_dim))
        self.match = nn.Linear(dims[0], dims[1]) if projected and dims[0] != dims[1] else None

    def attach(self, audio_tower: Tower, video_tower: Tower) -> None:
        """See :meth:`avtune.fusion.base.Fusion.attach`; nothing is freed.

        Raises:
            OptionError: If prompts' outputs are to be kept in a tower that attends within windows.
        """
        super().attach(audio_tower, video_tower)
        for tower in (audio_tower, video_tower):
            if self.config.prompt_outputs == "kept" and len(tower.stages) > 1:
                raise OptionError(
                    f"copl option 'prompt_outputs' cannot be 'kept' with {tower.name}, whose windows and stages "
                    "leave the outputs no place; use 'dropped'"
                )
        # A tuple, so that the towers are not registered here a second time.
        self.towers = (audio_tower, video_tower)
        prefixes = (audio_tower.prefix_tokens, video_tower.prefix_tokens)
        for layer in self.layers:
            assert isinstance(layer, CoplLayer)
            layer.prefixes = prefixes

    def open(self, audio: Tensor, video: Tensor, notes: Notes) -> tuple[Tensor, Tensor]:
        """See :meth:`avtune.fusion.base.Fusion.open`.

        Raises:
            OptionError: If a clip has more time steps than there are frame-level prompts.
        """
        if self.config.frame_prompts != "none" and notes.segments > self.segments:
            raise OptionError(
                f"copl has frame-level prompts for {self.segments} segments, a clip has {notes.segments}; "
                f"set input.segments={notes.segments} or encoder.options.frame_prompts=none"
            )
        return audio, video

    def close(self, audio: Tensor, video: Tensor, notes: Notes) -> tuple[Tensor, Tensor]:
        """Cut off what prompts left, and note what Equation 10 compares.

        Args:
            audio: Sound tokens after the final norm.
            video: Frame tokens after the final norm.
            notes: Gets ``consistency``, the embeddings of both streams.
        """
        if self.config.prompt_outputs == "kept":
            audio, video = audio[:, : self.lengths[0]], video[:, : self.lengths[1]]
        if self.training and self.config.consistency > 0:
            for tower, tokens in zip(self.towers, (audio, video), strict=True):
                notes.record("consistency", self._embedding(tower, tokens))
        return audio, video

    def _embedding(self, tower: Tower, tokens: Tensor) -> Tensor:
        if self.config.consistency_over == "pooled":
            return tower.pool(tokens)
        if self.config.consistency_over == "mean":
            return tokens[:, tower.prefix_tokens :].mean(dim=1)
        return tokens

    def losses(self, notes: Notes, foreground: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
        """Equations 10 and 11: lambda ||Z_v - Z_a||^2, over every segment that exists, background too."""
        if not self.config.consistency:
            return {}
        embeddings = [embedding.float() for embedding in notes.records["consistency"]]
        narrow, wide = sorted(embeddings, key=lambda embedding: embedding.shape[-1])
        if self.match is not None:
            narrow = self.match(narrow)
        elif narrow.shape != wide.shape:
            wide = F.adaptive_avg_pool1d(wide, narrow.shape[-1])
        apart = F.mse_loss(narrow, wide, reduction="none").flatten(1).mean(1)
        existing = torch.ones_like(apart) if valid is None else valid.to(apart)
        # Weights instead of a choice: where nothing exists the loss is zero and every weight still has its gradient.
        apart = (existing * apart).sum() / existing.sum().clamp(min=1)
        if self.config.consistency_reduction == "sum":
            apart = apart * narrow.shape[-1]
        return {"consistency": self.config.consistency * apart}


def build_copl(pairs: BlockPairs, config: CoplConfig) -> Fusion:
    """CoPL for the given pairs of blocks.

    Args:
        pairs: Sizes of the paired blocks, in the order of the walk.
        config: Settings.

    Returns:
        The method, ready for ``DualEncoder``.

    Raises:
        OptionError: If a number is out of range or token-wise consistency has differing grids to compare.
    """
    for name, least in (
        ("global_prompts", 0), ("interaction_prompts", 0), ("interaction_blocks", 0), ("bank_size", 1),
        ("latents", 1), ("mapping_width", 1), ("init_patch", 1), ("consistency", 0),
    ):  # fmt: skip
        value = getattr(config, name)
        if value is not None and value < least:
            raise OptionError(f"copl option {name!r} cannot be {value}; set it to {least} or more")
    last = pairs[-1]
    if config.consistency_over == "tokens" and last.audio_length != last.video_length:
        raise OptionError(
            f"copl option 'consistency_over' cannot be 'tokens' where {last.audio_length} tokens of sound meet "
            f"{last.video_length} of frames; use 'pooled' or 'mean'"
        )
    return Copl(pairs, config)


def _interacting(pairs: BlockPairs, config: CoplConfig) -> int:
    """How many of the last pairs get interaction prompts."""
    if config.interaction_prompts == 0:
        return 0
    if config.interaction_blocks is not None:
        return min(config.interaction_blocks, len(pairs))
    staged = len({(pair.audio_dim, pair.video_dim) for pair in pairs}) > 1
    return min(2 if staged else 4, len(pairs))


def _joined(specific: Tensor | None, interaction: Tensor) -> Tensor:
    return interaction if specific is None else torch.cat([specific, interaction], dim=1)
