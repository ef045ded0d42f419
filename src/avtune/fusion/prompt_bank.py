"""Prompt bank-based mutual coupling (PMC) of CoPL (Zhao et al., MM 2024, Section 3.3), equation for equation.

Symbols of the paper and names here: Z_a, Z_v ``audio``, ``video``; L_a, L_v ``audio_latents``, ``video_latents``;
Z' ``summary``; B, P_b ``entries``; e ``weights``; P_a, P_v ``chosen``; F ``PromptMapping``; I ``prompts``.
``docs/methods/copl.md`` argues what the paper leaves open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from avtune.fusion.lavish import cross_modal_attention


@dataclass(frozen=True)
class BankConfig:
    """Settings of the mutual coupling; the defaults are the paper's where it has a say.

    Attributes:
        interaction_prompts: Length L_I of the prompts that are chosen for each stream; the other stream gets as
            many, mapped. 0: no coupling (Table 4). The paper: 20 on AVE, 30 on AVS and AVQA.
        bank: What an entry of the bank is: ``prompts``, a whole prompt (L_I, dim); ``vectors``, one token, of
            which each of L_I latents chooses its own mixture; ``none``, interaction prompts that are learned
            directly and are the same for every clip (Table 4, without the bank).
        bank_size: Entries q (Figure 6).
        bank_sharing: Whether the modalities choose from one bank: ``by_width``, one where both streams have the
            same width, otherwise one each; ``separate``, one each; ``projected``, one in the sound's width,
            whose entries a bottleneck maps to the frames' where widths differ.
        similarity: What is weighed in Equation 6: ``position``, each of an entry's L_I tokens for itself;
            ``entry``, the whole entry, by the mean over its tokens.
        similarity_scale: Factor of the products in Equation 6: ``none`` as printed, or ``root_width``,
            1 / sqrt(dim).
        latents: Latent tokens b of Equation 5; with ``bank: vectors`` there are L_I.
        summary_tokens: Which tokens Equation 5 compresses: ``patches``, or ``all``, class and register tokens
            included.
        summary_span: Whether they are those of a ``frame`` or of the whole ``clip``, all segments at once.
        mapping_width: Width r of the bottleneck F.
        mapping_sharing: ``by_width``: one F for both directions where the streams have the same width,
            otherwise one each; ``separate``: one each.
        init: How prompts start: ``uniform`` within +-sqrt(6 / (3 p^2 + dim)) as visual prompt tuning, with
            p = ``init_patch``, or ``normal`` with standard deviation 0.02.
        init_patch: Side p of a patch in that bound, pixels.
    """

    interaction_prompts: int = 20
    bank: Literal["prompts", "vectors", "none"] = "prompts"
    bank_size: int = 10
    bank_sharing: Literal["by_width", "separate", "projected"] = "by_width"
    similarity: Literal["position", "entry"] = "position"
    similarity_scale: Literal["none", "root_width"] = "none"
    latents: int = 2
    summary_tokens: Literal["patches", "all"] = "patches"
    summary_span: Literal["frame", "clip"] = "frame"
    mapping_width: int = 8
    mapping_sharing: Literal["by_width", "separate"] = "by_width"
    init: Literal["uniform", "normal"] = "uniform"
    init_patch: int = 16


def new_prompts(config: BankConfig, *shape: int) -> nn.Parameter:
    """Randomly initialised tokens (..., dim)."""
    prompts = torch.empty(shape)
    if config.init == "normal":
        nn.init.normal_(prompts, std=0.02)
    else:
        bound = math.sqrt(6 / (3 * config.init_patch**2 + shape[-1]))
        nn.init.uniform_(prompts, -bound, bound)
    return nn.Parameter(prompts)


def choose_prompts(
    summary: Tensor, entries: Tensor, *, similarity: str = "position", scale: float = 1.0
) -> Tensor:
    """Equations 6 and 7: e^i = Softmax_i(Z' P_bi), P = sum_i e^i P_bi.

    Args:
        summary: Z' (batch, b, dim).
        entries: The bank's P_b, whole prompts (q, L_I, dim), for which the latents' mean asks; or single tokens
            (q, dim), for which each latent asks on its own.
        similarity: ``position`` or ``entry``, see :class:`BankConfig`.
        scale: Factor of the products.

    Returns:
        P (batch, L_I, dim); with single tokens L_I = b.
    """
    if entries.ndim == 2:
        weights = torch.softmax(scale * summary @ entries.T, dim=-1)
        return weights @ entries
    scores = scale * torch.einsum("nd,qld->nql", summary.mean(1), entries)
    if similarity == "entry":
        return torch.einsum("nq,qld->nld", scores.mean(2).softmax(1), entries)
    return torch.einsum("nql,qld->nld", scores.softmax(1), entries)


class PromptMapping(nn.Sequential):
    """Equation 8: F = Linear(ReLU(Linear(.))), a bottleneck.

    Args:
        dim: Width that it reads.
        other_dim: Width that it gives.
        width: Width r between.
    """

    def __init__(self, dim: int, other_dim: int, width: int) -> None:
        super().__init__(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, other_dim))


class MutualCoupling(nn.Module):
    """PMC of one pair of blocks: interaction prompts for each stream out of both streams' tokens.

    Args:
        audio_dim: Channels d_a.
        video_dim: Channels d_v.
        config: Settings, ``interaction_prompts`` above zero.
    """

    def __init__(self, audio_dim: int, video_dim: int, config: BankConfig) -> None:
        super().__init__()
        self.config = config
        length, width, one_width = config.interaction_prompts, config.mapping_width, audio_dim == video_dim
        directly = config.bank == "none"
        self.audio_latents = self.video_latents = None
        if not directly:
            latents = length if config.bank == "vectors" else config.latents
            self.audio_latents = new_prompts(config, latents, audio_dim)
            self.video_latents = new_prompts(config, latents, video_dim)

        shape = {"prompts": (config.bank_size, length), "vectors": (config.bank_size,), "none": (length,)}
        each = directly or config.bank_sharing == "separate"
        each = each or (config.bank_sharing == "by_width" and not one_width)
        self.entries = new_prompts(config, *shape[config.bank], audio_dim)
        self.video_entries = new_prompts(config, *shape[config.bank], video_dim) if each else None
        self.widen = None if each or one_width else PromptMapping(audio_dim, video_dim, width)

        self.mapping = PromptMapping(audio_dim, video_dim, width)
        one_mapping = one_width and config.mapping_sharing == "by_width"
        self.mapping_back = None if one_mapping else PromptMapping(video_dim, audio_dim, width)

    def summarise(self, latents: Tensor, tokens: Tensor, segments: int) -> Tensor:
        """Equation 5: Z' = L + Softmax(L Z^T) Z.

        Args:
            latents: L (b, dim).
            tokens: Z (clips * segments, length, dim).
            segments: Time steps per clip.

        Returns:
            Z' (clips * segments, b, dim), or (clips, b, dim) where the summary spans the clip.
        """
        if self.config.summary_span == "clip":
            tokens = tokens.reshape(len(tokens) // segments, -1, tokens.shape[-1])
        return cross_modal_attention(latents.expand(len(tokens), -1, -1), tokens, tokens, None)

    def choose(self, latents: Tensor | None, entries: Tensor, tokens: Tensor, segments: int) -> Tensor:
        """Equations 5 to 7 for one stream: P (clips * segments, L_I, dim)."""
        if latents is None:
            return entries.expand(len(tokens), -1, -1)
        chosen = choose_prompts(
            self.summarise(latents, tokens, segments),
            entries,
            similarity=self.config.similarity,
            scale=1.0 if self.config.similarity_scale == "none" else tokens.shape[-1] ** -0.5,
        )
        return chosen.repeat_interleave(len(tokens) // len(chosen), dim=0)

    def forward(self, audio: Tensor, video: Tensor, segments: int) -> tuple[Tensor, Tensor]:
        """Equations 8 and 9: I_a = [P_a, F(P_v)], I_v = [P_v, F(P_a)].

        Args:
            audio: Z_a (clips * segments, audio length, audio dim).
            video: Z_v (clips * segments, video length, video dim).
            segments: Time steps per clip.

        Returns:
            I_a (clips * segments, 2 L_I, audio dim) and I_v (clips * segments, 2 L_I, video dim).
        """
        video_entries = self.entries if self.video_entries is None else self.video_entries
        video_entries = video_entries if self.widen is None else self.widen(video_entries)
        from_audio = self.choose(self.audio_latents, self.entries, audio, segments)
        from_video = self.choose(self.video_latents, video_entries, video, segments)
        mapping_back = self.mapping if self.mapping_back is None else self.mapping_back
        audio_prompts = torch.cat([from_audio, mapping_back(from_video)], dim=1)
        return audio_prompts, torch.cat([from_video, self.mapping(from_audio)], dim=1)
