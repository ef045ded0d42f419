"""The norms of a tower, which many methods train beside their own weights."""

from __future__ import annotations

from torch import nn

from avtune.backbones import Tower
from avtune.backbones.timm_loading import timm

NORMS = (nn.LayerNorm, nn.RMSNorm, timm.layers.RmsNorm, timm.layers.SimpleNorm)


def is_norm(module: nn.Module) -> bool:
    """Whether a module of a tower is a norm over channels."""
    return isinstance(module, NORMS)


def free_norms(tower: Tower) -> None:
    """Let the norms of a tower be trained: those of its blocks, its patch embedding and mergings, the last one."""
    for module in tower.modules():
        if is_norm(module):
            module.requires_grad_(True)
