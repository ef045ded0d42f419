"""The frozen block as the authors' releases of timm ran it: every score of its attention is a tensor of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

from avtune.encoder import BoundBlock
from avtune.fusion import Notes
from avtune.tuning.tied import tied_copy

Module = TypeVar("Module", bound=nn.Module)
Walk = Callable[[Tensor, Tensor, BoundBlock, BoundBlock, Notes], tuple[Tensor, ...]]
"""A step: both streams, their blocks and the notes, to both streams behind the blocks and whatever losses read."""


def unfused(module: Module) -> Module:
    """The same modules over the same weights, with timm's own unfused attention, which its Swins have anyway."""
    copied = tied_copy(module)
    for part in copied.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
    return copied
