"""Towers for sound: AST and HTS-AT against plain forwards over timm's modules."""

import copy
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from avtune.backbones import BackboneError, create_tower, unused_head_parameters
from avtune.backbones.ast import AST_VARIANTS, ASTTower, fit_positions, hear
from avtune.backbones.htsat import HTSATTower, fold
from avtune.backbones.timm_loading import timm
from avtune.transforms import AUDIO_PRESETS


def some(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def million(modules):
    return round(sum(parameter.numel() for parameter in modules.parameters()) / 1e6, 3)


@functools.cache
def small_ast(audioset=True, **options):
    """A tower of AST, and an untouched copy of the DeiT that it was made from."""
    torch.manual_seed(1)
    arguments = {"num_classes": 0, "depth": 2, "embed_dim": 96, "num_heads": 3}
    body, deit = (timm.create_model("deit_tiny_distilled_patch16_224", **arguments) for _ in range(2))
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.05)
    deit.load_state_dict(body.state_dict())
    table_grid = hear(body, audioset=audioset)
    return ASTTower(body, name="small", table_grid=table_grid, **options), deit.eval()


@functools.cache
def small_htsat():
    """A tower of HTS-AT with five blocks, and timm's own Swin with the same weights."""
    two = [
        timm.models.swin_transformer.SwinTransformer(
            img_size=256,
            in_chans=1,
            num_classes=0,
            depths=(2, 1, 1, 1),
            num_heads=(4, 8, 16, 32),
            window_size=8,
        )
        for _ in range(2)
    ]
    weights = {key: some(*value.shape) * 0.05 for key, value in two[0].state_dict().items()}
    for swin in two:
        swin.load_state_dict(weights)
    model, reference = two
    model.mel_norm = norm = nn.BatchNorm2d(64)
    norm.weight.data, norm.bias.data = some(64).abs() + 0.5, some(64, seed=4)
    norm.running_mean.copy_(some(64, seed=5) - 30)
    norm.running_var.copy_(some(64, seed=6).abs() + 1)
    return HTSATTower(model, name="htsat"), reference.eval()


class TestAST:
    @pytest.mark.parametrize("audioset", [True, False])
    def test_the_walk_is_the_plain_forward_bit_for_bit(self, audioset):
        tower, deit = small_ast(audioset)
        sound = some(2, 1, 128, 1024)
        with torch.no_grad():
            weight = deit.patch_embed.proj.weight.sum(1, keepdim=True)
            patches = nn.functional.conv2d(sound, weight, deit.patch_embed.proj.bias, stride=10)
            assert patches.shape[2:] == (12, 101)
            x = patches.flatten(2).transpose(1, 2)
            x = torch.cat([deit.cls_token.expand(2, -1, -1), deit.dist_token.expand(2, -1, -1), x], dim=1)
            if audioset:
                table = tower.model.pos_embed
            else:
                # Twelve rows from the middle of ImageNet's table, its columns stretched (14 to 101).
                grid = deit.pos_embed[:, 2:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
                grid = nn.functional.interpolate(grid, size=(14, 101), mode="bilinear")[:, :, 1:13]
                table = torch.cat([deit.pos_embed[:, :2], grid.flatten(2).transpose(1, 2)], dim=1)
            x = x + table
            for block in deit.blocks:
                x = block(x)
            x = deit.norm(x)
            ours = tower(sound)
            torch.testing.assert_close(ours, x, atol=0 if audioset else 1e-5, rtol=0)
            torch.testing.assert_close(tower.pool(ours), (ours[:, 0] + ours[:, 1]) / 2, atol=0, rtol=0)

    def test_a_colour_weight_is_heard_as_its_sum(self):
        tower, deit = small_ast()
        colours = deit.patch_embed.proj.weight
        heard = tower.model.patch_embed.proj.weight
        assert heard.shape == (96, 1, 16, 16)
        torch.testing.assert_close(heard[:, 0], colours[:, 0] + colours[:, 1] + colours[:, 2])
        assert torch.equal(tower.model.patch_embed.proj.bias, deit.patch_embed.proj.bias)

    @pytest.mark.parametrize("size", [(128, 1024), (128, 102), (64, 300), (224, 224), (16, 16), (26, 1040)])
    @pytest.mark.parametrize("fit", ["cut", "bilinear"])
    @pytest.mark.parametrize("resampling", ["grid", "sequence"])
    def test_lengths_are_those_of_the_walk(self, size, fit, resampling):
        tower, _ = small_ast(position_fit=fit)
        x, positions = tower.embed(some(2, 1, *size), resampling=resampling)
        assert positions is None
        assert tower.lengths(*size) == (x.shape[1],) * len(tower.blocks)
        assert (
            tower.lengths(*size)[0] == len(range(0, size[0] - 15, 10)) * len(range(0, size[1] - 15, 10)) + 2
        )

    @pytest.mark.parametrize("size", [(15, 1024), (128, 3)])
    def test_a_spectrogram_without_a_whole_patch_is_refused(self, size):
        tower, _ = small_ast()
        for refused in (tower.lengths, lambda *size: tower.embed(some(1, 1, *size))):
            with pytest.raises(BackboneError, match="holds no whole patch"):
                refused(*size)

    @settings(max_examples=60, deadline=None)
    @given(rows=st.integers(1, 15), columns=st.integers(1, 120), imagenet=st.booleans())
    def test_cutting_takes_the_middle_of_the_table(self, rows, columns, imagenet):
        present = (24, 24) if imagenet else (12, 101)
        places = torch.stack(torch.meshgrid(*map(torch.arange, present), indexing="ij"))[None].float()
        fitted = fit_positions(places, (rows, columns), "cut")[0].numpy()
        for axis, (wanted, there) in enumerate(zip((rows, columns), present, strict=True)):
            along = fitted[axis, :, 0] if axis == 0 else fitted[axis, 0]
            if wanted <= there:
                expected = np.arange(wanted) + there // 2 - wanted // 2
            else:
                expected = np.clip((np.arange(wanted) + 0.5) * there / wanted - 0.5, 0, there - 1)
            np.testing.assert_allclose(along, expected, atol=1e-4)

    @settings(max_examples=30, deadline=None)
    @given(rows=st.integers(1, 15), columns=st.integers(1, 120))
    def test_bilinear_fit_spreads_over_the_whole_table(self, rows, columns):
        places = torch.stack(torch.meshgrid(torch.arange(12), torch.arange(101), indexing="ij"))[None].float()
        fitted = fit_positions(places, (rows, columns), "bilinear")[0].numpy()
        for axis, (wanted, there) in enumerate(((rows, 12), (columns, 101))):
            along = fitted[axis, :, 0] if axis == 0 else fitted[axis, 0]
            expected = np.clip((np.arange(wanted) + 0.5) * there / wanted - 0.5, 0, there - 1)
            np.testing.assert_allclose(along, expected, atol=1e-4)

    def test_positions_are_cut_or_spread_as_asked(self):
        sound = some(1, 1, 128, 102)
        cut, spread = (small_ast(position_fit=fit)[0] for fit in ("cut", "bilinear"))
        spread.load_state_dict(cut.state_dict())
        table = cut.model.pos_embed[:, 2:].unflatten(1, (12, 101))
        with torch.no_grad():
            patches = cut.model.patch_embed.proj(sound).flatten(2).transpose(1, 2)
            expected = patches + table[:, :, 46:55].flatten(1, 2)
            assert torch.equal(cut.embed(sound)[0][:, 2:], expected)
            assert not torch.allclose(spread.embed(sound)[0], cut.embed(sound)[0], atol=1e-3)

    def test_sizes_are_the_published_ones(self):
        tower = create_tower("ast", device="meta")
        assert million(tower) == 86.187
        assert million(create_tower("ast_base384", device="meta")) == 86.187
        assert unused_head_parameters("ast") == 2 * 768 + 768 * 527 + 527
        assert unused_head_parameters("ast_tiny224_imagenet") == 2 * (192 * 1000 + 1000)
        assert (tower.channels, tower.picture_size, tower.prefix_tokens) == (1, (128, 1024), 2)
        assert tower.lengths(128, 1024) == (1214,) * 12
        assert AUDIO_PRESETS["ast"].shape == tower.picture_size
        assert tower.lengths(*AUDIO_PRESETS[tower.audio_preset].shape) == (12 * 9 + 2,) * 12

    @pytest.mark.parametrize("name", AST_VARIANTS)
    def test_every_name_is_built(self, name):
        tower = create_tower(name, pretrained=False, depth=1, device="meta")
        assert isinstance(tower, ASTTower)
        assert tower.name == name
        assert tower.channels == 1
        side = 384 if "384" in name or name == "ast" else 224
        assert tower.table_grid == ((12, 101) if AST_VARIANTS[name].audioset else (side // 16,) * 2)
        assert tower.model.pos_embed.shape[1] == tower.table_grid[0] * tower.table_grid[1] + 2


class TestHTSAT:
    def test_the_walk_is_timm_s_swin_over_the_folded_picture_bit_for_bit(self):
        tower, swin = small_htsat()
        sound = some(2, 1, 1001, 64) * 20 - 30
        norm = tower.model.mel_norm
        with torch.no_grad():
            scale = norm.weight / (norm.running_var + 1e-5).sqrt()
            by_hand = (sound - norm.running_mean) * scale + norm.bias
            normalised = norm(sound.transpose(1, 3)).transpose(1, 3)
            torch.testing.assert_close(normalised, by_hand, atol=1e-4, rtol=1e-4)
            theirs = swin.forward_features(fold(normalised))
            ours = tower(sound)
            assert torch.equal(ours, theirs.flatten(1, 2))
            assert torch.equal(tower.pool(ours), swin.forward_head(theirs, pre_logits=True))
            torch.testing.assert_close(tower.pool(ours), ours.mean(1))

    def test_the_square_holds_band_m_of_frame_t_where_it_should(self):
        spectrogram = torch.arange(2 * 1024 * 64, dtype=torch.float64).reshape(2, 1, 1024, 64)
        square = fold(spectrogram)
        assert square.shape == (2, 1, 256, 256)
        source = spectrogram.numpy()
        for row in range(256):
            stretch, band = divmod(row, 64)
            expected = source[:, 0, 256 * stretch : 256 * (stretch + 1), band]
            np.testing.assert_array_equal(square[:, 0, row].numpy(), expected)

    @pytest.mark.parametrize("frames", [1001, 998, 512, 101, 2])
    def test_shorter_sound_is_stretched_by_cubic_convolution_with_its_ends_kept(self, frames):
        spectrogram = some(frames, 64).double()
        by_time = fold(spectrogram[None, None])[0, 0].reshape(4, 64, 256).transpose(1, 2).reshape(1024, 64)
        assert torch.equal(by_time[0], spectrogram[0])
        places = np.arange(1024) * (frames - 1) / 1023
        whole = np.floor(places).astype(int)
        expected = np.zeros((1024, 64))
        for neighbour in range(-1, 3):
            distance = np.abs(places - whole - neighbour)
            near = 1.25 * distance**3 - 2.25 * distance**2 + 1
            far = -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4)
            weight = np.where(distance <= 1, near, far)
            expected += weight[:, None] * spectrogram.numpy()[np.clip(whole + neighbour, 0, frames - 1)]
        np.testing.assert_allclose(by_time.numpy(), expected, atol=1e-9)

    def test_patches_are_merged_in_the_order_of_the_authors_code(self):
        """Left column first: above, below; then right column. Their weights expect their channels so."""
        tower, _ = small_htsat()
        block = copy.deepcopy(tower.blocks[2])
        block.merge.norm = block.merge.reduction = nn.Identity()
        cells = torch.arange(64 * 64 * 2.0).reshape(1, 64, 64, 2)
        merged = block.enter(cells.flatten(1, 2)).reshape(1, 32, 32, 8)
        for place, (row, column) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
            part = merged[..., 2 * place : 2 * place + 2]
            assert torch.equal(part, cells[:, row::2, column::2])

    def test_windows_come_apart_and_together(self):
        tower, _ = small_htsat()
        with torch.no_grad():
            x, _ = tower.embed(some(2, 1, 1001, 64))
            lengths = []
            for block in tower.blocks:
                x = block.enter(x)
                lengths.append(x.shape[1])
                windows = block.group(x)
                assert windows.shape == (2 * x.shape[1] // 64, 64, block.dim)
                assert torch.equal(block.ungroup(windows), x)
                x = block.plain(x)
        assert tower.lengths(1001, 64) == tuple(lengths)
        assert [block.shifted for block in tower.blocks] == [False, True, False, False, False]
        assert {block.block.attn.num_heads * 24 for block in tower.blocks} == {96, 192, 384, 768}

    @pytest.mark.parametrize("size", [(1025, 64), (1001, 128), (64, 1001), (0, 64)])
    def test_other_spectrograms_are_refused_with_the_preset_to_set(self, size):
        tower, _ = small_htsat()
        for refused in (tower.lengths, lambda *size: tower.embed(torch.zeros(1, 1, *size))):
            with pytest.raises(BackboneError, match=r"not \d+x\d+; set input\.audio\.preset=dg_sct"):
                refused(*size)

    def test_sizes_are_the_published_ones(self):
        tower = create_tower("htsat", device="meta")
        assert million(tower.model.mel_norm) == round(128e-6, 3)
        assert million(tower) == 27.534
        assert round((27_534_488 + unused_head_parameters("htsat")) / 1e6, 3) == 31.325
        assert unused_head_parameters("htsat") == 2_428_943 + 278_256 + 2 * 513 * 1024 + 513 * 64
        assert tower.dims == (96,) * 2 + (192,) * 2 + (384,) * 6 + (768,) * 2
        assert sum(tower.dims) == 4416
        assert [block.heads for block in tower.blocks] == [4, 4, 8, 8, *[16] * 6, 32, 32]
        assert tower.lengths(1001, 64) == (4096,) * 2 + (1024,) * 2 + (256,) * 6 + (64,) * 2
        # Grids of eight cells are one window: nothing is shifted in the last stage.
        assert [block.shifted for block in tower.blocks] == [False, True] * 5 + [False, False]
        assert (tower.channels, tower.picture_size, tower.grid(1001, 64)) == (1, (1024, 64), (64, 64))
        assert tower.lengths(*AUDIO_PRESETS[tower.audio_preset].shape) == tower.lengths(*tower.picture_size)


@pytest.mark.parametrize(("made", "size"), [(small_ast, (128, 64)), (small_htsat, (1001, 64))])
def test_sound_passes_gradients_and_trains_nothing(made, size):
    tower = made()[0]
    sound = some(2, 1, *size).requires_grad_()
    buffers = {name: value.clone() for name, value in tower.named_buffers()}
    tower.train()
    assert not any(module.training for module in tower.modules())
    tower.pool(tower(sound)).square().sum().backward()
    assert torch.isfinite(sound.grad).all()
    assert (sound.grad.abs().amax((1, 2, 3)) > 0).all()
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in tower.parameters())
    assert all(torch.equal(value, buffers[name]) for name, value in tower.named_buffers())


@pytest.mark.parametrize(("made", "size"), [(small_ast, (128, 64)), (small_htsat, (600, 64))])
def test_a_sound_s_tokens_do_not_depend_on_its_neighbours(made, size):
    tower = made()[0]
    sound = some(3, 1, *size)
    with torch.no_grad():
        together = tower(sound)
        for place, alone in enumerate(sound.split(1)):
            torch.testing.assert_close(tower(alone)[0], together[place], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("astt", {}, "no backbone named astt; the nearest are ast"),
        ("ast_base", {}, "the nearest are ast_base384"),
        ("hts_at", {}, "the nearest are htsat"),
        ("nan0", {}, "the nearest are nano"),
        ("ast", {"image_size": 384}, "ast has no option image_size"),
        ("htsat", {"in_chans": 3}, "htsat has no option in_chans"),
        ("ast", {"position_fit": "nearest"}, "position_fit is 'nearest'; choose cut or bilinear"),
        ("htsat", {"depth": 0}, "depth must be at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(name, arguments, words):
    with pytest.raises(BackboneError, match=words) as error:
        create_tower(name, pretrained=False, device="meta", **arguments)
    assert "\n" not in str(error.value)
