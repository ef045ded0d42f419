"""A second tree of modules over the same weights, so that two streams can differ around what they share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def tied_copy(module: Module, own: Callable[[nn.Module], bool] = lambda part: False) -> Module:
    """Copy modules, not tensors.

    Args:
        module: What is copied.
        own: Modules whose own weights the copy does not share but starts from.

    Returns:
        The copy; weights and buffers of all other modules are the same objects as the original's.
    """
    memo: dict[int, object] = {}
    for part in module.modules():
        if not own(part):
            tensors: list[Tensor] = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
            memo.update({id(tensor): tensor for tensor in tensors})
    return copy.deepcopy(module, memo)
