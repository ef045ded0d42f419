"""Small models and clips of this folder's tests, and the model computed clip by clip without packing."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from pretrain_golden import blank_backbone
from torch import Tensor, nn

from avtune.options import settle
from avtune.pretrain.avsiam import PRESETS, Avsiam
from avtune.pretrain.cav_mae import PRESETS as CAV_MAE_PRESETS
from avtune.pretrain.cav_mae import CavMae
from avtune.pretrain.masking import Kept
from avtune.pretrain.packing import Norm

Model = TypeVar("Model", bound=nn.Module)
DIM, DEPTH, PATCH, IMAGE, SPECTROGRAM = 16, 3, 8, 32, (16, 48)
DECODER = {"decoder_depth": 1, "decoder_width": 16, "decoder_heads": 4}


def small_avsiam(preset: str = "paper", seed: int = 0, dim: int = DIM, **options: Any) -> Avsiam:
    torch.manual_seed(seed)
    settings = settle("avsiam", PRESETS[preset], {**DECODER, **options})
    return shaken(Avsiam(blank_backbone(dim, DEPTH, PATCH, IMAGE), settings, SPECTROGRAM))


def small_cav_mae(preset: str = "paper", seed: int = 0, dim: int = DIM, **options: Any) -> CavMae:
    torch.manual_seed(seed)
    settings = settle("cav_mae", CAV_MAE_PRESETS[preset], {**DECODER, **options})
    return shaken(CavMae(blank_backbone(dim, DEPTH, PATCH, IMAGE), settings, SPECTROGRAM))


def shaken(model: Model) -> Model:
    """Every weight moved, so that no two norms, biases or positions are alike."""
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn_like(weight)
    return model


def clips(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, *SPECTROGRAM, generator=generator),
        torch.randn(count, 3, IMAGE, IMAGE, generator=generator),
    )


def alone(model: Any, modality: str, picture: Tensor, seen: Tensor, trunk: Any, norm: Norm) -> Tensor:
    """One clip's seen patches behind one transformer, by the textbook: all patches convolved, then chosen."""
    stem = getattr(model, modality)
    embedded = F.conv2d(picture[None], stem.weight, stem.bias, stride=PATCH).flatten(2)[0].T + stem.positions
    if stem.modality is not None:
        embedded = embedded + stem.modality
    x = embedded[seen] * (2 if stem.doubled else 1)
    return through(trunk, x, norm)


def through(trunk: Any, x: Tensor, norm: Norm) -> Tensor:
    """One sequence (tokens, dim) through blocks with timm's own attention, under norms of one kind."""
    for block in trunk.blocks:
        x = x + block.attention(layer_norm(block.attention_norm.of[norm], x)[None])[0]
        x = x + block.mlp(layer_norm(block.mlp_norm.of[norm], x))
    return x if trunk.norm is None else layer_norm(trunk.norm.of[norm], x)


def layer_norm(norm: nn.Module, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias  # type: ignore[operator]


def random_kept(length: int, counts: list[int], seed: int) -> Kept:
    noise = torch.rand(len(counts), length, generator=torch.Generator().manual_seed(seed))
    return Kept.from_visible(noise.argsort(1).argsort(1) < torch.tensor(counts)[:, None])
