"""What a frozen block can do beyond the plain walk: extra keys, windows, attention along another axis."""

import copy
import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tower_cases import FLAT, LEARNED_ONLY, ROTARY, SWIN, images_for, tower_of

from avtune.backbones import BackboneError
from avtune.backbones.swin import SwinBlock
from avtune.backbones.swin_v2 import SwinV2Block
from avtune.backbones.timm_loading import timm

TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}


def entered(name, index=0):
    """A block, tokens as they reach it, and the positions."""
    tower = tower_of(name)
    with torch.no_grad():
        x, positions = tower.embed(images_for(tower))
        for block in tower.blocks[:index]:
            x = block.plain(block.enter(x), positions)
        block = tower.blocks[index]
        return SimpleNamespace(block=block, x=block.enter(x), positions=positions, tower=tower)


def some(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", ROTARY)
def test_appended_tokens_are_rotated_as_timm_rotates_prefix_tokens(name, monkeypatch):
    it = entered(name, index=1)
    length, appended = it.x.shape[1], some(len(it.x), 3, it.block.dim)
    with torch.no_grad():
        behind = it.block.attend(torch.cat([it.x, appended], 1), it.positions)
        attention = it.block.block.attn
        monkeypatch.setattr(attention, "num_prefix_tokens", attention.num_prefix_tokens + 3)
        before = it.block.attend(torch.cat([appended, it.x], 1), it.positions)
    torch.testing.assert_close(behind[:, :length], before[:, 3:], **TOLERANCE)
    torch.testing.assert_close(behind[:, length:], before[:, :3], **TOLERANCE)


@pytest.mark.parametrize("name", LEARNED_ONLY)
def test_attention_along_equals_attention_where_nothing_is_rotated(name):
    it = entered(name)
    assert it.positions is None
    with torch.no_grad():
        torch.testing.assert_close(it.block.attend_along(it.x), it.block.attend(it.x), **TOLERANCE)


@pytest.mark.parametrize("name", ROTARY)
def test_attention_along_rotates_nothing(name):
    it = entered(name)
    with torch.no_grad():
        along = it.block.attend_along(it.x)
        torch.testing.assert_close(along, it.block.attend(it.x, None), **TOLERANCE)
        assert not torch.allclose(along, it.block.attend(it.x, it.positions), **TOLERANCE)


@pytest.mark.parametrize("name", [*FLAT, *SWIN])
def test_a_bias_that_forbids_all_others_leaves_each_token_alone(name):
    it = entered(name, index=len(tower_of(name).blocks) - 1)
    x = some(4, 6, it.block.dim)
    bias = torch.full((it.block.heads, 6, 6), -1e6)
    bias.diagonal(dim1=1, dim2=2).fill_(0.25)
    with torch.no_grad():
        alone = it.block.attend_along(x.reshape(24, 1, -1)).reshape(4, 6, -1)
        torch.testing.assert_close(it.block.attend_along(x, bias), alone, **TOLERANCE)
        assert not torch.allclose(it.block.attend_along(x), alone, **TOLERANCE)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", *SWIN[:1], SWIN[2]])
def test_a_bias_can_be_trained_head_by_head(name):
    it = entered(name)
    x = some(4, 6, it.block.dim)
    bias = torch.zeros(it.block.heads, 6, 6, requires_grad=True)
    it.block.attend_along(x, bias).square().sum().backward()
    assert (bias.grad.abs().amax((1, 2)) > 0).all()


@pytest.mark.parametrize("name", [SWIN[0], "swinv2_tiny_window8_256"])
def test_attention_along_a_window_is_window_attention_without_its_position_table(name):
    block = copy.deepcopy(entered(name).block)
    attention = block.block.attn
    if isinstance(block, SwinV2Block):
        attention.cpb_mlp[2].weight.zero_()  # The same bias everywhere, which a softmax does not see.
    else:
        attention.relative_position_bias_table.zero_()
    x = entered(name).x
    with torch.no_grad():
        torch.testing.assert_close(
            block.attend_along(block.group(x)), block.group(block.attend(x)), **TOLERANCE
        )


@pytest.mark.parametrize("name", FLAT)
def test_global_attention_has_one_window(name):
    it = entered(name)
    assert it.block.group(it.x) is it.x
    assert it.block.ungroup(it.x) is it.x


@pytest.mark.parametrize("name", SWIN)
def test_grouped_attention_is_the_output_within_the_windows(name):
    tower = tower_of(name)
    with torch.no_grad():
        x, _ = tower.embed(images_for(tower))
        for block in tower.blocks:
            x = block.enter(x)
            inside = []
            handle = block.block.attn.register_forward_hook(
                lambda *call, inside=inside: inside.append(call[2])
            )
            grouped = block.group(block.attend(x))
            handle.remove()
            window = block.window[0] * block.window[1]
            assert grouped.shape == inside[0].shape == (grouped.shape[0], window, block.dim)
            expected = block.block.norm1(inside[0]) if block.norm_after else inside[0]
            real = block.group(torch.ones_like(x)) > 0  # Cells that only pad the grid hold zeros.
            assert torch.equal(grouped[real], expected[real])
            assert (grouped[~real] == 0).all()
            assert torch.equal(block.ungroup(block.group(x)), x)
            x = block.plain(x)


@pytest.mark.parametrize("name", [*FLAT, *SWIN])
def test_lengths_are_those_of_the_walk(name):
    tower = tower_of(name)
    sizes = [(tower.image_size, tower.image_size)]
    if name in FLAT and tower.any_size:
        sizes += [(3 * tower.patch_size + 1, 2 * tower.patch_size), (tower.image_size, 5 * tower.patch_size)]
    for height, width in sizes:
        walked = []
        with torch.no_grad():
            x, positions = tower.embed(images_for(tower, 1, height, width))
            for block in tower.blocks:
                x = block.enter(x)
                walked.append(x.shape[1])
                x = block.plain(x, positions)
        assert tower.lengths(height, width) == tuple(walked)


@pytest.mark.parametrize(
    ("name", "side"), [("swin_tiny_patch4_window7_224", 224), ("vit_tiny_patch16_224", 15)]
)
def test_lengths_of_a_picture_that_cannot_be_embedded_are_refused(name, side):
    tower = tower_of(name)
    with pytest.raises(BackboneError) as said:
        tower.embed(images_for(tower, 1, side, side))
    with pytest.raises(BackboneError, match="^" + re.escape(str(said.value)) + "$"):
        tower.lengths(side, side)


@pytest.mark.parametrize("name", [*FLAT, *SWIN])
def test_shifted_blocks_are_those_whose_windows_cross_the_border(name):
    tower = tower_of(name)
    for block in tower.blocks:
        if name in FLAT:
            assert not block.shifted
            continue
        places = torch.arange(block.grid[0] * block.grid[1], dtype=torch.float32).reshape(1, -1, 1)
        first = block.group(places.expand(-1, -1, block.dim))[0, 0, 0]
        assert block.shifted == (first != 0) == any(block.block.shift_size)
    assert any(block.shifted for block in tower.blocks) == (name in SWIN)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 13),
    columns=st.integers(1, 13),
    window=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    shifted=st.booleans(),
    batch=st.integers(1, 3),
    version=st.sampled_from([1, 2]),
)
def test_windows_of_any_grid(rows, columns, window, shifted, batch, version):
    shift = (window[0] // 2, window[1] // 2) if shifted else (0, 0)
    module = timm.models.swin_transformer if version == 1 else timm.models.swin_transformer_v2
    kind = module.SwinTransformerBlock if version == 1 else module.SwinTransformerV2Block
    inner = kind(8, (rows, columns), num_heads=2, window_size=window, shift_size=shift).eval()
    block = (SwinBlock if version == 1 else SwinV2Block)(inner)
    x = some(batch, rows * columns, 8)
    with torch.no_grad():
        grouped = block.group(x)
        assert grouped.shape[1] == block.window[0] * block.window[1]
        assert torch.equal(block.ungroup(grouped), x)
        # The windows of one sample lie side by side: each sample alone gives its part.
        assert torch.equal(torch.cat([block.group(one) for one in x.split(1)]), grouped)
        theirs = inner(x.reshape(batch, rows, columns, 8)).flatten(1, 2)
        assert torch.equal(block.plain(x), theirs)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "swinv2_tiny_window8_256"]
)
def test_a_block_compiles_to_one_graph(name):
    torch._dynamo.reset()
    it = entered(name)
    extra = some(len(it.x), 2, it.block.dim)

    def step(x, positions):
        return x + it.block.attend(x, positions, extra=extra) + it.block.feed(x)

    with torch.no_grad():
        compiled = torch.compile(step, backend="eager", fullgraph=True)
        assert torch.equal(compiled(it.x, it.positions), step(it.x, it.positions))


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "swinv2_tiny_window8_256"]
)
def test_branches_work_in_half_precision(name):
    it = entered(name)
    bias = some(it.block.heads, 8, 8)
    extra = some(len(it.x), 2, it.block.dim)

    def branches():
        attended = it.block.attend(it.x, it.positions, extra=extra)
        return attended, it.block.attend_along(it.x[:, :8], bias), it.block.feed(it.x)

    with torch.no_grad():
        exact = branches()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = branches()
    for whole, half in zip(exact, rounded, strict=True):
        assert (half.float() - whole).norm() < 0.02 * whole.norm()
