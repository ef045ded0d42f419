"""Recorded models of the authors' code, rebuilt from the shapes of their state dicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avtune.backbones.timm_loading import timm
from avtune.pretrain.backbone import Backbone
from avtune.pretrain.masking import Kept

Arrays = dict[str, Tensor]
HEADS = 4
"""Attention heads of every recorded encoder and decoder, which shapes do not tell."""


def recorded(folder: Path, marker: str) -> Iterator[tuple[Path, Arrays]]:
    """Every file below ``folder`` that holds the array ``marker``: its path and its arrays."""
    for path in sorted(folder.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            if marker in file.files:
                names = [name for name in file.files if name != "config_json"]
                yield path, {name: torch.from_numpy(np.array(file[name])) for name in names}


def part(arrays: Arrays, prefix: str) -> Arrays:
    return {n.removeprefix(f"{prefix}/"): v for n, v in arrays.items() if n.startswith(f"{prefix}/")}


def inputs(arrays: Arrays) -> tuple[Tensor, Tensor]:
    """Sound as (clips, mels, steps), where the authors have time first, and frames."""
    return arrays["audio"].float().transpose(1, 2), arrays["image"].float()


def blank_backbone(dim: int, depth: int, patch: int = 16, image: int = 224) -> Backbone:
    """A transformer of the recorded shape, whose weights the state dict replaces."""
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=image, patch_size=patch, embed_dim=dim, depth=depth, num_heads=HEADS, num_classes=0
    )
    side = image // patch
    return Backbone(
        "recorded", tuple(model.blocks), model.norm, model.norm_pre, model.patch_embed.proj.weight,
        model.patch_embed.proj.bias, model.pos_embed[0, 1:], (side, side), image, prefix=1,
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip


def kept_from_restore(restore: Tensor, counts: list[int]) -> Kept:
    """From the place of each patch in the authors' shuffled order, (clips, patches); the first ``counts`` are seen."""
    return Kept.from_visible(restore.long() < torch.tensor(counts)[:, None])
