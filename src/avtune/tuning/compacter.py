"""Compacter: adapters whose projections are sums of Kronecker products (Karimi Mahabadi et al., NeurIPS 2021).

Symbols of the paper and names here: A_i ``rules``; B_i ``factors``, or their halves s_i t_i ``left`` and ``right``;
n ``terms``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.backbones import FrozenBlock, Tower
from avtune.options import OptionError
from avtune.tuning.base import Tuning, by_stream
from avtune.tuning.beside import ModuleBeside, Placement, Sites


@dataclass(frozen=True)
class CompacterConfig:
    """Settings of Compacter.

    Attributes:
        reduction: Ratio of the bottleneck; its width is rounded down to a multiple of ``terms``, at least ``terms``.
        terms: Kronecker products n that are summed; n must divide the towers' widths.
        factored_down: Whether the down-projection's B_i are of rank one (else full: PHM).
        factored_up: Whether the up-projection's are.
        shared_rules: One set of A_i for all adapters of all blocks and streams, else one for each projection.
        placement: ``serial``: behind the branch; ``parallel``: beside it.
        sites: At which branches: ``both``, ``attention`` or ``mlp``.
        train_norms: Train the towers' norms too, as the paper does.
        shared: Both streams, over one tower, train the same adapters.
    """

    reduction: int = 32
    terms: int = 4
    factored_down: bool = True
    factored_up: bool = True
    shared_rules: bool = True
    placement: Placement = "serial"
    sites: Sites = "both"
    train_norms: bool = True
    shared: bool = False


PRESETS = {
    "paper": CompacterConfig(),
    "lavish_table_5": CompacterConfig(
        reduction=8, factored_down=False, shared_rules=False, placement="parallel", train_norms=False
    ),
}


class HyperComplexLinear(nn.Module):
    """A parametrised hypercomplex map: ``y = x W + b`` with ``W = sum_i A_i (x) B_i``, (x) the Kronecker product.

    Args:
        in_features: Width of ``x``, divisible by n.
        out_features: Width of ``y``, divisible by n.
        terms: n; A_i is n x n, B_i (in/n) x (out/n).
        factored: ``B_i = s_i t_i`` with s_i (in/n) x 1 and t_i 1 x (out/n), instead of full matrices.
        rules: The A_i (n, n, n) where they are shared with others; ``None``: own ones.

    Raises:
        OptionError: If n does not divide both widths.
    """

    def __init__(
        self, in_features: int, out_features: int, terms: int, *, factored: bool, rules: nn.Parameter | None
    ) -> None:
        super().__init__()
        if in_features % terms or out_features % terms:
            raise OptionError(
                f"compacter's {terms} terms do not divide a projection of {in_features} -> {out_features} channels; "
                "choose a number of terms that divides both"
            )
        high, wide = in_features // terms, out_features // terms
        self.rules = _rules(terms) if rules is None else rules
        self.factored = factored
        if factored:
            self.left = nn.Parameter(torch.empty(terms, high, 1))
            self.right = nn.Parameter(torch.empty(terms, 1, wide))
            matrices = [*self.left, *self.right]
        else:
            self.factors = nn.Parameter(torch.empty(terms, high, wide))
            matrices = [*self.factors]
        for matrix in matrices:
            nn.init.xavier_uniform_(matrix)
        self.bias = nn.Parameter(torch.zeros(out_features))

    @property
    def matrix(self) -> Tensor:
        """W (in, out)."""
        factors = self.left @ self.right if self.factored else self.factors
        product = torch.einsum("iab,ipq->apbq", self.rules, factors)
        return product.flatten(2).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (..., in) to (..., out)."""
        return F.linear(x, self.matrix.T, self.bias)


class HyperComplexAdapter(nn.Module):
    """``A(x) = PHM_up(gelu(PHM_down(x)))``: a bottleneck of hypercomplex maps.

    Args:
        dim: Channels of the tokens.
        config: Settings.
        rules: The A_i that all adapters share; ``None``: own ones in each projection.

    Raises:
        OptionError: If n does not divide ``dim``.
    """

    def __init__(self, dim: int, config: CompacterConfig, rules: nn.Parameter | None) -> None:
        super().__init__()
        width = max(1, dim // config.reduction // config.terms) * config.terms
        self.down = HyperComplexLinear(dim, width, config.terms, factored=config.factored_down, rules=rules)
        self.up = HyperComplexLinear(width, dim, config.terms, factored=config.factored_up, rules=rules)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, length, dim) to what is added to the branch, of the same shape."""
        adapted: Tensor = self.up(F.gelu(self.down(x)))
        return adapted


def build_compacter(audio_tower: Tower, video_tower: Tower, config: CompacterConfig) -> Tuning:
    """Hypercomplex adapters for each block of each stream.

    Args:
        audio_tower: Tower of the sound.
        video_tower: Tower of the frames; may be the same.
        config: Settings.

    Raises:
        OptionError: If the number of terms does not divide the towers' widths.
        TuningError: Streams of two towers are to share their adapters.
    """
    rules = _rules(config.terms) if config.shared_rules else None

    def make(block: FrozenBlock) -> ModuleBeside:
        attention = HyperComplexAdapter(block.dim, config, rules) if config.sites != "mlp" else None
        mlp = HyperComplexAdapter(block.dim, config, rules) if config.sites != "attention" else None
        return ModuleBeside(attention, mlp, config.placement)

    return Tuning(by_stream(audio_tower, video_tower, config.shared, make), train_norms=config.train_norms)


def _rules(terms: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(terms, terms, terms) * 0.01)
