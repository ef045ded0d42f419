"""Images of other sizes: spectrograms in a tower that was trained on squares."""

import copy

import numpy as np
import pytest
import torch
from tower_cases import CASES, FLAT, ROTARY, SWIN, compare, images_for, timm_state, tower_of

from avtune.backbones import BackboneError, create_tower
from avtune.backbones.timm_loading import timm

ANY_SIZE = [name for name in FLAT if "_r_s16" not in name]


@pytest.mark.parametrize("name", ANY_SIZE)
@pytest.mark.parametrize("grid", [(3, 5), (9, 2)])
def test_another_size_gives_what_timm_gives_after_set_input_size(name, grid):
    tower = tower_of(name)
    size = (grid[0] * tower.patch_size, grid[1] * tower.patch_size)
    arguments = dict(CASES[name])
    arguments["img_size"] = arguments.pop("image_size", 224)
    whole = timm.create_model(name, device="meta", num_classes=0, **arguments)
    arguments |= type(tower).reduced(whole, 2)
    reference = timm.create_model(name, num_classes=0, **arguments)
    reference.load_state_dict(timm_state(tower))
    reference.eval().requires_grad_(False)
    reference.set_input_size(img_size=size)
    images = images_for(tower, 2, *size)
    assert tower.grid(*size) == grid
    torch.testing.assert_close(tower(images), reference.forward_features(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ANY_SIZE)
@pytest.mark.parametrize("resampling", ["grid", "sequence"])
def test_patches_beyond_a_whole_multiple_are_dropped(name, resampling):
    tower = tower_of(name)
    side = tower.patch_size
    images = images_for(tower, 2, 3 * side + side // 2, 4 * side + 1)
    tokens, positions = tower.embed(images, resampling=resampling)
    cropped, cropped_positions = tower.embed(images[..., : 3 * side, : 4 * side], resampling=resampling)
    assert tokens.shape == (2, tower.prefix_tokens + 12, tower.dim)
    assert torch.equal(tokens, cropped)
    assert (positions is None) == (cropped_positions is None) == (name not in ROTARY)


@pytest.mark.parametrize("name", ANY_SIZE)
def test_the_tower_s_own_size_is_not_resampled(name):
    tower = tower_of(name)
    images = images_for(tower)
    by_grid, _ = tower.embed(images)
    by_sequence, _ = tower.embed(images, resampling="sequence")
    assert torch.equal(by_grid, by_sequence)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit3_small_patch16_224", "eva02_tiny_patch14_224"]
)
def test_sequence_resampling_interpolates_the_table_along_its_length(name):
    tower = copy.deepcopy(tower_of(name))
    # Without patches and class token, what is embedded is the table alone.
    for parameter in (
        tower.model.patch_embed.proj.weight,
        tower.model.patch_embed.proj.bias,
        tower.model.cls_token,
    ):
        parameter.zero_()
    side = tower.patch_size
    # 102 steps of 128 bands on patches of 16: 6 x 8 patches, and with the class token 197 rows become 49.
    images = images_for(tower, 1, 6 * side + 6, 8 * side)
    embedded, _ = tower.embed(images, resampling="sequence")
    table = tower.model.pos_embed[0].numpy()
    kept = tower.prefix_tokens if tower.model.no_embed_class else 0
    length = 48 + tower.prefix_tokens - kept
    places = np.clip((np.arange(length) + 0.5) * len(table) / length - 0.5, 0, len(table) - 1)
    expected = np.stack([np.interp(places, np.arange(len(table)), column) for column in table.T], axis=1)
    # torch finds the place among some 200 rows in single precision, and the table is steep.
    np.testing.assert_allclose(embedded[0, kept:].numpy(), expected, atol=1e-4)
    assert (embedded[0, :kept] == 0).all()
    by_grid, _ = tower.embed(images)
    assert not torch.allclose(by_grid, embedded, atol=1e-3)


@pytest.mark.parametrize("name", SWIN)
def test_windows_need_the_tower_s_own_size(name):
    tower = tower_of(name)
    with pytest.raises(
        BackboneError, match=f"{tower.image_size}x{tower.image_size} images only.*image_size=96"
    ):
        tower.embed(torch.zeros(1, 3, 96, 64))


def test_a_convolutional_stem_needs_the_tower_s_own_size():
    tower = tower_of("vit_tiny_r_s16_p8_224")
    with pytest.raises(BackboneError, match=r"64x64 images only, not 64x96; .* image_size=96"):
        tower.embed(torch.zeros(1, 3, 64, 96))


@pytest.mark.parametrize("size", [(15, 64), (64, 3)])
def test_an_image_without_a_whole_patch_is_refused(size):
    with pytest.raises(BackboneError, match="holds no whole patch"):
        tower_of("vit_tiny_patch16_224").embed(torch.zeros(1, 3, *size))


def test_a_tower_can_be_made_for_another_size():
    tower = compare("vit_tiny_patch16_224", depth=1, image_size=96)
    assert tower.image_size == 96
    assert tower.embed(torch.zeros(1, 3, 96, 96))[0].shape[1] == 37


def test_a_rectangular_backbone_asks_for_a_side():
    with pytest.raises(BackboneError, match=r"1024x768.*image_size=768"):
        create_tower("vit_base_patch16_sapiens2", pretrained=False, device="meta")


def test_nano_takes_spectrograms_of_any_size():
    tower = create_tower("nano", pretrained=False, depth=2)
    assert (tower.image_size, tower.patch_size, len(tower.blocks)) == (64, 8, 2)
    assert tower(torch.zeros(2, 3, 64, 64)).shape == (2, 64, 128)
    assert tower(torch.zeros(2, 3, 100, 64)).shape == (2, 96, 128)
    assert create_tower("nano", pretrained=False, image_size=96).image_size == 96
