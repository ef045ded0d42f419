"""Compacter: sums of Kronecker products, against the definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tuning_cases import tuned

from avtune.options import OptionError
from avtune.tuning.compacter import CompacterConfig, HyperComplexAdapter, HyperComplexLinear


@given(
    terms=st.integers(1, 5), high=st.integers(1, 4), wide=st.integers(1, 4), factored=st.booleans(),
    length=st.integers(1, 6),
)  # fmt: skip
def test_a_hypercomplex_map_is_the_sum_of_kronecker_products(
    terms: int, high: int, wide: int, factored: bool, length: int
) -> None:
    linear = HyperComplexLinear(terms * high, terms * wide, terms, factored=factored, rules=None).double()
    with torch.no_grad():
        linear.rules.normal_()
        linear.bias.normal_()
    factors = linear.left @ linear.right if factored else linear.factors
    if factored:
        assert all(torch.linalg.matrix_rank(factor) <= 1 for factor in factors)
    matrix = sum(torch.kron(rule, factor) for rule, factor in zip(linear.rules, factors, strict=True))
    x = torch.randn(2, length, terms * high, dtype=torch.float64)
    torch.testing.assert_close(linear(x), x @ matrix + linear.bias)


@pytest.mark.parametrize(
    ("dim", "reduction", "width"), [(768, 32, 24), (192, 32, 4), (128, 64, 4), (768, 8, 96)]
)
def test_weights_are_three_of_each_width_and_the_common_rules(dim: int, reduction: int, width: int) -> None:
    rules = torch.nn.Parameter(torch.zeros(4, 4, 4))
    adapter = HyperComplexAdapter(dim, CompacterConfig(reduction=reduction), rules)
    own = sum(weight.numel() for weight in adapter.parameters() if weight is not rules)
    assert own == 3 * width + 3 * dim


def test_rules_are_common_to_all_blocks_and_streams_unless_told_otherwise() -> None:
    common = [n for n, _ in tuned("compacter").tuning.named_parameters() if n.endswith("rules")]
    apart = [
        n for n, _ in tuned("compacter", shared_rules=False).tuning.named_parameters() if n.endswith("rules")
    ]
    assert len(common) == 1
    # Two streams, two blocks, two sites, two projections.
    assert len(apart) == 16


def test_terms_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(OptionError, match="compacter's 3 terms do not divide a projection of 128 -> "):
        tuned("compacter", terms=3)
