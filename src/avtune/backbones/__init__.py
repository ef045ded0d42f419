"""Frozen image backbones, seen as towers of blocks with open residual branches."""

from avtune.backbones.create import as_tower, create_tower, unused_head_parameters
from avtune.backbones.tower import BackboneError, FrozenBlock, Positions, Resampling, Tower

__all__ = [
    "BackboneError",
    "FrozenBlock",
    "Positions",
    "Resampling",
    "Tower",
    "as_tower",
    "create_tower",
    "unused_head_parameters",
]
