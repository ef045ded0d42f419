"""MA-AVT: modality alignment of one frozen transformer by tokens and contrast (Mahmud et al., CVPRW 2024).

Symbols of the paper and names here: z_a, z_v, z_s ``audio``, ``video``, ``shared`` of ``Prompts``; A_a, A_v, A_s its
``*_attention``; z_f foreground, z_b background tokens; P patches; L_cnt ``BlockwiseContrast``. The head that reads the
foreground and background tokens is ``heads/ma_avt.py``, mismatched pairs are made in ``transforms/mining.py``.
``docs/methods/ma_avt.md`` lists where the paper and its authors' code differ and which preset follows which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones import Tower
from avtune.backbones.vit import ViTBlock
from avtune.fusion.appended import Layout, append, joined, replace_tail, stretch_positions
from avtune.fusion.base import Block, BlockPairs, Fusion, FusionLayer, Notes
from avtune.fusion.contrast_features import contrast_feature
from avtune.fusion.contrastive import BlockwiseContrast, Feature, Projection
from avtune.options import OptionError


@dataclass(frozen=True)
class MaAvtConfig:
    """Settings of MA-AVT; the defaults are the paper's.

    Attributes:
        audio_tokens: Unimodal tokens n_a of the sound (Table 2).
        video_tokens: Unimodal tokens n_v of the frames (Table 2).
        shared_tokens: Tokens n_s that enter both streams (Table 2).
        prompts: ``shallow``: tokens enter before the first block and are carried on; ``reinserted``: the same
            tokens enter anew before every block; ``deep``: every block has tokens of its own.
        self_attention: Whether each group of tokens passes local self-attention, LSA, first (Table 2).
        residual: Whether LSA has its residual, as Equation 1; the authors' code has none.
        attention_heads: Heads of LSA.
        foreground: ``per_modality``: each stream trains a foreground token of its own, starting from the tower's
            class token; ``class_token``: both train the tower's class token itself, as the authors' code.
        background: Background tokens ``per_modality`` as the paper, one ``shared`` by both streams as the
            authors' code, or ``none`` (Table 4).
        positions: ``slot``: the background token takes a place in the position table, which is stretched to
            that length, as the authors' code; ``pretrained``: patches keep their positions, it has none.
        contrast: What is contrasted (Table 3): ``shared_tokens``, their mean; ``class_tokens``;
            ``max_similarity``, ``mean_similarity``: the largest or mean similarity of any patch of the frame
            with the sound; ``max_pool``: the largest value over patches with the sound; of the authors' code
            beside it, ``mean_patches``, ``attended_patches`` (weighted by the class token's attention) and
            ``contrast_tokens`` (a token of its own in each stream); ``none``: nothing.
        contrast_sound: What the sound is where frames are compared patch by patch or pooled by maximum: its mean
            patch, as Table 3, or its class token, as the authors' code.
        contrast_at: After every block (block-wise) or after the last one alone (Table 3).
        projection: Linear layers before the comparison: ``none`` as printed, one pair ``per_block`` or one
            ``shared`` by all blocks as the authors' code.
        projection_dim: Channels behind them.
        temperature: tau.
        contrast_reduce: Sum over blocks, as Equation 10, or their mean, as the authors' code.
        contrast_weight: Factor of the contrastive loss.
    """

    audio_tokens: int = 5
    video_tokens: int = 5
    shared_tokens: int = 5
    prompts: Literal["shallow", "reinserted", "deep"] = "shallow"
    self_attention: bool = True
    residual: bool = True
    attention_heads: int = 8
    foreground: Literal["per_modality", "class_token"] = "per_modality"
    background: Literal["per_modality", "shared", "none"] = "per_modality"
    positions: Literal["pretrained", "slot"] = "pretrained"
    contrast: Feature | Literal["none"] = "shared_tokens"
    contrast_sound: Literal["mean_patches", "class_token"] = "mean_patches"
    contrast_at: Literal["blocks", "final"] = "blocks"
    projection: Projection = "none"
    projection_dim: int = 512
    temperature: float = 0.07
    contrast_reduce: Literal["sum", "mean"] = "sum"
    contrast_weight: float = 1.0


PAPER = MaAvtConfig()
OFFICIAL = replace(
    PAPER, residual=False, foreground="class_token", background="shared", positions="slot",
    contrast_sound="class_token", projection="per_block", contrast_reduce="mean",
)  # fmt: skip
PRESETS = {"paper": PAPER, "official": OFFICIAL}


class LocalSelfAttention(nn.Module):
    """Equation 1: LSA(x) = x + MHA(x) among the tokens of one group.

    Args:
        dim: Channels.
        heads: Attention heads.
        residual: Whether x is added.
    """

    def __init__(self, dim: int, heads: int, *, residual: bool) -> None:
        super().__init__()
        self.heads, self.residual = heads, residual
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (..., n, dim) to the same shape."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        mixed = F.scaled_dot_product_attention(*(x.transpose(-3, -2) for x in (query, key, value)))
        attended: Tensor = self.proj(mixed.transpose(-3, -2).flatten(-2))
        return tokens + attended if self.residual else attended


class Prompts(nn.Module):
    """The three groups of tokens, each behind its local self-attention (Equations 2 and 3).

    Args:
        audio_dim: Channels of the sound.
        video_dim: Channels of the frames; those of the sound where there are shared tokens.
        config: Settings.
    """

    def __init__(self, audio_dim: int, video_dim: int, config: MaAvtConfig) -> None:
        super().__init__()

        def group(count: int, dim: int) -> tuple[nn.Parameter | None, nn.Module | None]:
            if not count:
                return None, None
            attention = LocalSelfAttention(dim, config.attention_heads, residual=config.residual)
            return nn.Parameter(torch.randn(count, dim)), attention if config.self_attention else None

        self.audio, self.audio_attention = group(config.audio_tokens, audio_dim)
        self.video, self.video_attention = group(config.video_tokens, video_dim)
        self.shared, self.shared_attention = group(config.shared_tokens, video_dim)

    def forward(self) -> tuple[Tensor | None, Tensor | None]:
        """Own and shared tokens of the sound (n_a + n_s, dim) and of the frames (n_v + n_s, dim).

        They do not depend on the clips, so LSA runs once a step, not once a segment.
        """
        audio, video, shared = (
            tokens if tokens is None or attention is None else attention(tokens)
            for tokens, attention in (
                (self.audio, self.audio_attention),
                (self.video, self.video_attention),
                (self.shared, self.shared_attention),
            )
        )
        return joined(audio, shared), joined(video, shared)


class MaAvtLayer(FusionLayer):
    """A pair of frozen blocks; the streams meet only in shared tokens and in what is contrasted behind the blocks.

    Args:
        layouts: Where tokens stand, of the sound and of the frames.
        config: Settings.
        prompts: Tokens that replace those of the block before (``deep``).
        reinserts: Whether the first block's tokens replace them (``reinserted``).
        contrasted: Whether its output is contrasted.
    """

    def __init__(
        self,
        layouts: tuple[Layout, Layout],
        config: MaAvtConfig,
        *,
        prompts: Prompts | None,
        reinserts: bool,
        contrasted: bool,
    ) -> None:
        super().__init__()
        self.layouts, self.config, self.prompts, self.reinserts = layouts, config, prompts, reinserts
        self.contrasted = contrasted and config.contrast != "none"

    def forward(
        self, audio: Tensor, video: Tensor, audio_block: Block, video_block: Block, notes: Notes
    ) -> tuple[Tensor, Tensor]:
        """X = X + MHA(X), then X = X + MLP(X), in each stream for itself (Equations 7 and 8).

        Shapes as in :meth:`avtune.fusion.base.FusionLayer.forward`.
        """
        if self.prompts is not None:
            audio, video = (
                replace_tail(x, new) for x, new in zip((audio, video), self.prompts(), strict=True)
            )
        elif self.reinserts:
            (for_audio,), (for_video,) = notes.records["audio_prompts"], notes.records["video_prompts"]
            audio, video = replace_tail(audio, for_audio), replace_tail(video, for_video)
        entered = (audio, video)
        audio = audio + audio_block.attend(audio)
        video = video + video_block.attend(video)
        audio = audio + audio_block.feed(audio)
        video = video + video_block.feed(video)
        if self.contrasted and self.training:
            kind, sound = self.config.contrast, self.config.contrast_sound
            for stream, before, after, block, layout in (
                ("audio", entered[0], audio, audio_block, self.layouts[0]),
                ("video", entered[1], video, video_block, self.layouts[1]),
            ):
                feature = contrast_feature(kind, sound, stream, before, after, block, layout)
                notes.record(f"{stream}_contrasted", feature)
        return audio, video


class MaAvt(Fusion):
    """MA-AVT's tokens, its layers and its contrastive loss.

    Leaves ``audio_foreground``, ``video_foreground`` and, where there are any, ``audio_background``,
    ``video_background`` (batch * T, dim) in the notes, after the towers' final norms.

    Args:
        layers: The layers.
        layouts: Where tokens stand, of the sound and of the frames; the layers hold the same objects.
        prompts: The tokens that enter before the first block.
        pairs: Sizes of the paired blocks.
        config: Settings.
    """

    audio_table: Tensor
    video_table: Tensor

    def __init__(
        self,
        layers: Sequence[MaAvtLayer],
        layouts: tuple[Layout, Layout],
        prompts: Prompts,
        pairs: BlockPairs,
        config: MaAvtConfig,
    ) -> None:
        super().__init__(layers)
        self.layouts, self.prompts, self.config = layouts, prompts, config
        audio_dim, video_dim = pairs[0].audio_dim, pairs[0].video_dim
        self.foreground, self.background, self.contrast_tokens = (nn.ParameterDict() for _ in range(3))
        if config.foreground == "per_modality":
            # Added to the tower's class token, or a token of its own where the tower has none.
            self.foreground.update({"audio": torch.zeros(1, audio_dim), "video": torch.zeros(1, video_dim)})
        if config.background == "per_modality":
            self.background.update({"audio": torch.randn(1, audio_dim), "video": torch.randn(1, video_dim)})
        elif config.background == "shared":
            self.background["both"] = torch.randn(1, video_dim)
        if config.contrast == "contrast_tokens":
            new = {"audio": torch.randn(1, audio_dim), "video": torch.randn(1, video_dim)}
            self.contrast_tokens.update(new)
        contrasted = [(pair.audio_dim, pair.video_dim) for pair in pairs]
        self.contrast = None if config.contrast == "none" else BlockwiseContrast(
            contrasted if config.contrast_at == "blocks" else contrasted[-1:],
            config.contrast,
            projection=config.projection,
            projection_dim=config.projection_dim,
            temperature=config.temperature,
            reduce=config.contrast_reduce,
            weight=config.contrast_weight,
        )  # fmt: skip

    def attach(self, audio_tower: Tower, video_tower: Tower) -> None:
        """See :meth:`Fusion.attach`; takes the position tables and, with ``class_token``, frees that token.

        Raises:
            OptionError: A tower lacks what the settings need of it.
        """
        super().attach(audio_tower, video_tower)
        for stream, tower, layout in zip(
            ("audio", "video"), (audio_tower, video_tower), self.layouts, strict=True
        ):
            _check_tower(tower, self.config)
            layout.prefix = tower.prefix_tokens
            layout.unplaced = tower.prefix_tokens if getattr(tower.model, "no_embed_class", False) else 0
            class_token = getattr(tower.model, "cls_token", None)
            if self.config.foreground == "class_token":
                assert class_token is not None
                class_token.requires_grad_(True)
            layout.tail["foreground"] = int(class_token is None)
            table = tower.model.pos_embed if self.config.positions == "slot" else torch.empty(0)
            self.register_buffer(f"{stream}_table", table.detach(), persistent=False)

    def embed(self, audio: Tensor, video: Tensor, notes: Notes) -> tuple[Tensor, Tensor]:
        """Bring foreground, contrast and background tokens in, before a norm that some towers begin with."""
        audio = self._embed("audio", audio, self.layouts[0], self.audio_table)
        return audio, self._embed("video", video, self.layouts[1], self.video_table)

    def _embed(self, stream: str, x: Tensor, layout: Layout, table: Tensor) -> Tensor:
        new: list[Tensor] = []
        if stream in self.foreground:
            if layout.tail["foreground"]:
                new.append(self.foreground[stream])
            else:
                x = torch.cat([x[:, :1] + self.foreground[stream], x[:, 1:]], dim=1)
        if stream in self.contrast_tokens:
            new.append(self.contrast_tokens[stream])
        if self.config.background != "none":
            new.append(self.background["both" if "both" in self.background else stream])
        if not new:
            return x
        appended = torch.cat(new).expand(len(x), -1, -1)
        if self.config.positions == "slot":
            x, appended = stretch_positions(x, appended, table, layout.unplaced)
        return torch.cat([x, appended], dim=1)

    def open(self, audio: Tensor, video: Tensor, notes: Notes) -> tuple[Tensor, Tensor]:
        """Append own and shared tokens: Equations 7 and 8, in the order of the authors' code."""
        for_audio, for_video = self.prompts()
        if self.config.prompts == "reinserted":
            notes.record("audio_prompts", for_audio)
            notes.record("video_prompts", for_video)
        return append(audio, for_audio), append(video, for_video)

    def close(self, audio: Tensor, video: Tensor, notes: Notes) -> tuple[Tensor, Tensor]:
        """Note foreground and background tokens, and take out all that was appended."""
        kinds = ["foreground"] if self.config.background == "none" else ["foreground", "background"]
        for stream, x, layout in zip(("audio", "video"), (audio, video), self.layouts, strict=True):
            for kind in kinds:
                notes.record(f"{stream}_{kind}", layout.take(x, kind)[:, 0])
        return (
            audio[:, : audio.shape[1] - self.layouts[0].appended],
            video[:, : video.shape[1] - self.layouts[1].appended],
        )

    def losses(self, notes: Notes, foreground: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
        """The contrastive loss of Equation 10 over the foreground segments of all processes."""
        if self.contrast is None:
            return {}
        audio, video = notes.records["audio_contrasted"], notes.records["video_contrasted"]
        return {"contrast": self.contrast(audio, video, foreground)}


def build_ma_avt(pairs: BlockPairs, config: MaAvtConfig) -> Fusion:
    """Tokens, and a layer for each pair of blocks.

    Args:
        pairs: Sizes of the paired blocks, in the order of the walk.
        config: Settings.

    Returns:
        The method, ready for ``DualEncoder``.

    Raises:
        OptionError: The settings contradict each other or do not fit the towers' widths.
    """
    _check_widths(pairs, config)
    first = pairs[0]

    def layout(own: int) -> Layout:
        tail = {"foreground": 0, "contrast": int(config.contrast == "contrast_tokens")}
        return Layout(
            tail={**tail, "background": int(config.background != "none"), "own": own, "shared": config.shared_tokens}
        )  # fmt: skip

    layouts = layout(config.audio_tokens), layout(config.video_tokens)
    layers = [
        MaAvtLayer(
            layouts,
            config,
            prompts=Prompts(pair.audio_dim, pair.video_dim, config) if number and config.prompts == "deep" else None,
            reinserts=number > 0 and config.prompts == "reinserted",
            contrasted=config.contrast_at == "blocks" or number == len(pairs) - 1,
        )
        for number, pair in enumerate(pairs)
    ]  # fmt: skip
    return MaAvt(layers, layouts, Prompts(first.audio_dim, first.video_dim, config), pairs, config)


def _check_widths(pairs: BlockPairs, config: MaAvtConfig) -> None:
    widths = {(pair.audio_dim, pair.video_dim) for pair in pairs}
    if len(widths) > 1:
        raise OptionError(
            "ma_avt carries its tokens from block to block, so a tower has to keep one width; take a ViT"
        )
    ((audio, video),) = widths
    shared = [
        name
        for name, needed in (
            ("shared_tokens above 0", config.shared_tokens > 0),
            ("background 'shared'", config.background == "shared"),
            ("projection 'none'", config.contrast != "none" and config.projection == "none"),
        )
        if needed
    ]
    if audio != video and shared:
        raise OptionError(f"ma_avt with {shared[0]} needs towers of one width, not {audio} and {video}")
    if config.contrast == "shared_tokens" and not config.shared_tokens:
        raise OptionError(
            "ma_avt has no shared tokens to contrast (shared_tokens is 0); choose another contrast"
        )
    groups = {audio} if config.audio_tokens else set()
    groups |= {video} if config.video_tokens or config.shared_tokens else set()
    for width in groups if config.self_attention else ():
        if width % config.attention_heads:
            raise OptionError(
                f"ma_avt option 'attention_heads' is {config.attention_heads}; it has to divide the width {width}"
            )


def _check_tower(tower: Tower, config: MaAvtConfig) -> None:
    if config.foreground == "class_token" and getattr(tower.model, "cls_token", None) is None:
        raise OptionError(
            f"{tower.name} has no class token; choose --encoder.options.foreground per_modality or another tower"
        )
    if config.positions == "slot" and getattr(tower.model, "pos_embed", None) is None:
        raise OptionError(
            f"{tower.name} has no position table; choose --encoder.options.positions pretrained"
        )
    if config.contrast == "attended_patches" and not isinstance(tower.blocks[0], ViTBlock):
        raise OptionError(
            f"the class token's attention cannot be read from {tower.name}; choose another contrast"
        )
