import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from avtune.tuning import Bottleneck, GroupedLinear, TokenBatchNorm, statistics_kept


@given(
    groups=st.integers(1, 4), inputs=st.integers(1, 5), outputs=st.integers(1, 5), length=st.integers(1, 7)
)
def test_a_grouped_linear_map_is_a_grouped_convolution(
    groups: int, inputs: int, outputs: int, length: int
) -> None:
    linear = GroupedLinear(groups * inputs, groups * outputs, groups)
    x = torch.randn(2, length, groups * inputs)
    convolved = F.conv1d(x.transpose(1, 2), linear.weight[..., None], groups=groups).transpose(1, 2)
    torch.testing.assert_close(linear(x), convolved, atol=1e-6, rtol=1e-5)


def test_groups_that_do_not_divide_are_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match="3 groups do not divide 16 -> 4 channels; choose groups"):
        GroupedLinear(16, 4, 3)
    with pytest.raises(ValueError, match="reduction 32 leaves no channel of 16"):
        Bottleneck(16, reduction=32)


def test_batch_norm_over_tokens_has_the_gradients_of_its_formula() -> None:
    norm = TokenBatchNorm(4).double().train()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    # Strides of the input and of the incoming gradient differ on purpose.
    turned = x.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    plain = x.clone().requires_grad_()
    mean = plain.flatten(0, 1).mean(0)
    variance = plain.flatten(0, 1).var(0, unbiased=False)
    expected = (plain - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
    out = norm(turned)
    torch.testing.assert_close(out, expected)
    weights = torch.randn(5, 3, 4, dtype=torch.float64).transpose(0, 1)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(turned.grad, plain.grad)


def test_statistics_stay_within_the_block_that_keeps_them() -> None:
    part = Bottleneck(16, reduction=4, batch_norm=True, gate=False).train()
    before = {name: value.clone() for name, value in part.named_buffers()}
    x = torch.randn(2, 9, 16)
    with statistics_kept(part):
        kept = part(x)
    assert all(torch.equal(value, before[name]) for name, value in part.named_buffers())
    assert torch.equal(part(x), kept)
    assert not all(torch.equal(value, before[name]) for name, value in part.named_buffers())


def test_a_closed_gate_gives_exactly_nothing_in_either_order() -> None:
    x = torch.randn(2, 5, 16)
    assert torch.count_nonzero(Bottleneck(16, norm_after=True)(x)) == 0
    gated_first = Bottleneck(16, norm_after=True, gate_order="gate_then_norm")
    # LayerNorm of zeros is its bias: zero at the start.
    assert torch.count_nonzero(gated_first(x)) == 0
