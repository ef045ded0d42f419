"""Where a module stands that is trained at a block: beside a frozen branch, or behind it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor, nn

from avtune.backbones import FrozenBlock
from avtune.backbones.tower import Positions
from avtune.tuning.base import BlockTuning, Hear

Placement: TypeAlias = Literal["parallel", "serial"]
Sites: TypeAlias = Literal["both", "attention", "mlp"]


class ModuleBeside(BlockTuning):
    """A module A at the attention branch, one at the MLP branch, or both.

    ``parallel`` (He et al., 2022): ``F'(x) = F(x) + s A(x)``. ``serial`` (Houlsby et al., 2019): ``F'(x) = h + s A(h)``
    with ``h = F(x)``. Adding the branch to the stream is the walk's, here as everywhere.

    Args:
        attention: The module at the attention branch; ``None``: nothing there.
        mlp: The module at the MLP branch; ``None``: nothing there.
        placement: ``parallel`` or ``serial``.
        scale: The factor s.
    """

    def __init__(
        self, attention: nn.Module | None, mlp: nn.Module | None, placement: Placement, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.serial, self.scale = placement == "serial", scale

    def attend(
        self, block: FrozenBlock, x: Tensor, positions: Positions, extra: Tensor | None, hear: Hear
    ) -> Tensor:
        """See :meth:`BlockTuning.attend`."""
        if self.attention is None:
            return super().attend(block, x, positions, extra, hear)
        branch = block.attend(x, positions, extra=extra)
        adapted: Tensor = self.attention(hear(branch if self.serial else x))
        return branch + self.scale * adapted

    def feed(self, block: FrozenBlock, x: Tensor, hear: Hear) -> Tensor:
        """See :meth:`BlockTuning.feed`."""
        if self.mlp is None:
            return super().feed(block, x, hear)
        branch = block.feed(x)
        adapted: Tensor = self.mlp(hear(branch if self.serial else x))
        return branch + self.scale * adapted
