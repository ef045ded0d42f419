"""Extra tokens that are keys and values only: exactly what carrying them and dropping their outputs gives, for less."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tower_cases import CASES, FLAT, SWIN, images_for, tower_of

from avtune.backbones.swin import SwinBlock
from avtune.backbones.swin_v2 import MAXIMAL_LOG_SCALE, SwinV2Block
from avtune.counting import saved_bytes

EXACT = {"atol": 1e-9, "rtol": 1e-9}
EXTRA = 5
DIFFERENTIAL = "vit_dlittle_patch16_reg1_gap_256"
CASES_BY_BLOCK = [(name, 1) for name in FLAT] + [(name, index) for name in SWIN for index in (0, 1, 7)]


def entered(name, index=1, dtype=torch.float64, batch=2):
    """A block in the given precision, tokens as they reach it, positions, and extra tokens for each sample."""
    tower = tower_of(name)
    with torch.no_grad():
        x, positions = tower.embed(images_for(tower, batch))
        for block in tower.blocks[:index]:
            x = block.plain(block.enter(x), positions)
        block = copy.deepcopy(tower.blocks[index]).to(dtype)
        x = block.enter(x.to(dtype))
        positions = None if positions is None else positions.to(dtype)
    generator = torch.Generator().manual_seed(3)
    extra = torch.randn(batch, EXTRA, block.dim, generator=generator).to(dtype)
    return SimpleNamespace(block=block, x=x, positions=positions, extra=extra)


def step_with_extra(block, x, positions, extra):
    x = x + block.attend(x, positions, extra=extra)
    return x + block.feed(x)


def carried_step(block, x, positions, extra, *, window_major=False):
    """The straightforward form: the extra tokens pass the whole block, and their outputs are thrown away."""
    length = x.shape[1]
    if isinstance(block, SwinBlock):
        attended, extra_attended = carried_windows(block, x, extra, window_major=window_major)
        joined = torch.cat([x + attended, extra + extra_attended], dim=1)
    else:
        joined = torch.cat([x, extra], dim=1)
        joined = joined + block.attend(joined, positions)
    return (joined + block.feed(joined))[:, :length]


def carried_windows(block, x, extra, *, window_major):
    """Both attention branches: prompts before each window's tokens, their outputs averaged over the windows."""
    attention, count = block.block.attn, extra.shape[1]
    windows = block.group(block._before(x))
    of_a_sample = len(windows) // len(x)
    repeat = extra.repeat(of_a_sample, 1, 1) if window_major else extra.repeat_interleave(of_a_sample, dim=0)
    joined = torch.cat([block._before(repeat), windows], dim=1)
    qkv = attention.qkv(joined)
    if isinstance(block, SwinV2Block) and attention.q_bias is not None:
        qkv = qkv + torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    query, key, value = qkv.reshape(*joined.shape[:2], 3, block.heads, -1).permute(2, 0, 3, 1, 4)
    if isinstance(block, SwinV2Block):
        query, key = nn.functional.normalize(query, dim=-1), nn.functional.normalize(key, dim=-1)
        query = query * attention.logit_scale.clamp(max=MAXIMAL_LOG_SCALE).exp()
        table = attention.cpb_mlp(attention.relative_coords_table).view(-1, block.heads)
        bias = 16 * torch.sigmoid(table[attention.relative_position_index]).permute(2, 0, 1)
    else:
        query = query * attention.scale
        bias = attention.relative_position_bias_table[attention.relative_position_index].permute(2, 0, 1)
    bias = nn.functional.pad(bias, (count, 0, count, 0))
    if block.block.attn_mask is not None:
        mask = nn.functional.pad(block.block.attn_mask, (count, 0, count, 0))
        bias = (bias + mask.unsqueeze(1)).repeat(len(x), 1, 1, 1)
    mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
    out = attention.proj(mixed.transpose(1, 2).flatten(2))
    averaged = out[:, :count].reshape(len(x), of_a_sample, count, -1).mean(dim=1)
    return block._after(block.ungroup(out[:, count:])), block._after(averaged)


@pytest.mark.parametrize(("name", "index"), CASES_BY_BLOCK)
def test_extra_tokens_equal_carried_tokens_whose_outputs_are_dropped(name, index):
    it = entered(name, index)
    with torch.no_grad():
        ours = step_with_extra(it.block, it.x, it.positions, it.extra)
        theirs = carried_step(it.block, it.x, it.positions, it.extra)
        without = it.block.plain(it.x, it.positions)
    assert ours.shape == it.x.shape
    torch.testing.assert_close(ours, theirs, **EXACT)
    assert not torch.allclose(ours, without, atol=1e-4)


@pytest.mark.parametrize("name", [FLAT[0], "eva02_tiny_patch14_224", *SWIN])
def test_gradients_equal_those_of_carried_tokens(name):
    gradients = []
    for step in (step_with_extra, carried_step):
        it = entered(name)
        it.x.requires_grad_()
        it.extra.requires_grad_()
        step(it.block, it.x, it.positions, it.extra).square().sum().backward()
        assert all(parameter.grad is None for parameter in it.block.parameters())
        gradients.append((it.x.grad, it.extra.grad))
    assert gradients[0][1].abs().sum() > 0
    torch.testing.assert_close(gradients[0], gradients[1], **EXACT)


@pytest.mark.parametrize("name", CASES)
def test_extra_tokens_of_one_sample_never_reach_another(name):
    it = entered(name)
    other = it.extra.clone()
    other[1] = -other[1]
    with torch.no_grad():
        before = step_with_extra(it.block, it.x, it.positions, it.extra)
        after = step_with_extra(it.block, it.x, it.positions, other)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1], atol=1e-6)


@pytest.mark.parametrize("name", SWIN)
def test_the_comparison_would_notice_prompts_that_are_handed_to_other_samples(name):
    it = entered(name)
    with torch.no_grad():
        ours = step_with_extra(it.block, it.x, it.positions, it.extra)
        mixed_up = carried_step(it.block, it.x, it.positions, it.extra, window_major=True)
    assert not torch.allclose(ours, mixed_up, atol=1e-4)


def flops(step, it):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        step(it.block.to("meta"), it.x.to("meta"), meta(it.positions), it.extra.to("meta"))
    return counter.get_total_flops()


def meta(tensor):
    return None if tensor is None else tensor.to("meta")


@pytest.mark.parametrize("name", CASES)
def test_extra_tokens_cost_fewer_operations_than_carried_ones(name):
    it = entered(name)
    batch, length, dim = it.x.shape
    ours, theirs = flops(step_with_extra, it), flops(carried_step, it)
    plain = flops(lambda block, x, positions, extra: block.plain(x, positions), it)
    assert plain < ours < theirs
    if name in SWIN:
        # Keys and values of each extra token once; every token of every window compares itself with it, and adds it.
        tokens = it.block.group(torch.zeros(1, length, dim)).shape[:2].numel()
        assert ours - plain == batch * EXTRA * (4 * dim * dim + 4 * tokens * dim)
    elif name.startswith(("vit_tiny_patch16_224", "eva02_tiny")):
        # One frozen projection, called whole, gives their queries too; nothing else is computed of those.
        assert ours - plain == batch * EXTRA * (6 * dim * dim + 4 * length * dim)


@pytest.mark.parametrize("name", CASES)
def test_extra_tokens_keep_fewer_bytes_for_the_backward_pass_than_carried_ones(name):
    kept = []
    for step in (step_with_extra, carried_step):
        it = entered(name, dtype=torch.float32)
        it.x.requires_grad_()
        it.extra.requires_grad_()
        with saved_bytes(it.block) as count:
            step(it.block, it.x, it.positions, it.extra)
        kept.append(count[0])
    assert kept[0] < kept[1]


class WithUpdate(nn.Module):
    """A frozen projection with something added to its output, as a low-rank update does."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        generator = torch.Generator().manual_seed(5)
        update = 0.02 * torch.randn(inner.weight.shape, generator=generator, dtype=inner.weight.dtype)
        self.update = nn.Parameter(update)

    def forward(self, x):
        return self.inner(x) + x @ self.update.T


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", SWIN[0], SWIN[2]])
def test_what_is_wrapped_around_a_projection_acts_on_extra_tokens(name):
    it = entered(name)
    attention = it.block.block.attn
    with torch.no_grad():
        before = step_with_extra(it.block, it.x, it.positions, it.extra)
        merged = copy.deepcopy(it.block)
        attention.qkv = WithUpdate(attention.qkv)
        merged.block.attn.qkv.weight += attention.qkv.update
        wrapped = it.block.attend(it.x, it.positions, extra=it.extra)
        torch.testing.assert_close(wrapped, merged.attend(it.x, it.positions, extra=it.extra), **EXACT)
        assert not torch.allclose(step_with_extra(it.block, it.x, it.positions, it.extra), before, atol=1e-4)


@pytest.mark.parametrize("name", [SWIN[0], SWIN[2]])
def test_windows_with_extra_tokens_keep_no_matrix_of_scores(name):
    it = entered(name, dtype=torch.float32, batch=8)
    it.x.requires_grad_()
    attention = it.block.block.attn
    with saved_bytes(it.block) as ours:
        it.block.attend(it.x, extra=it.extra)
    windows = it.block.group(it.x)
    scores = len(windows) * it.block.heads * windows.shape[1] * (windows.shape[1] + EXTRA) * 4
    with saved_bytes(it.block) as plain:
        attention(windows, mask=it.block.block.attn_mask)
    tokens = it.x.numel() * 4
    # Beside it, one mask for all samples and a handful of copies of the tokens.
    assert ours[0] < scores / 8 + 12 * tokens
    if isinstance(it.block, SwinV2Block):
        assert plain[0] > scores
        assert ours[0] < plain[0]
