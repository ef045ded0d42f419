"""Towers against timm's own features, and what freezing promises."""

import copy

import pytest
import torch
from tower_cases import CASES, FLAT, SWIN, compare, images_for, tower_of

from avtune.backbones import create_tower


@pytest.mark.parametrize("name", CASES)
def test_features_and_pooling_are_bit_identical_to_timm(name):
    tower = tower_of(name)  # Raises where they differ.
    assert tower.dim == tower.dims[-1] == tower.blocks[-1].dim
    assert [index for stage in tower.stages for index in stage] == list(range(len(tower.blocks)))
    assert len(tower.stages) == (4 if name in SWIN else 1)


@pytest.mark.parametrize("branch", ["attend", "feed", "enter"])
def test_the_comparison_notices_a_branch_that_is_off(monkeypatch, branch):
    from avtune.backbones.swin_v2 import SwinV2Block

    right = getattr(SwinV2Block, branch)

    def wrong(self, x, *arguments):
        return right(self, x, *arguments) * (1 + 1e-6)

    monkeypatch.setattr(SwinV2Block, branch, wrong)
    with pytest.raises(ArithmeticError, match="differ"):
        compare("swinv2_tiny_window8_256", depth=1, image_size=128)


def test_the_walk_is_the_forward():
    tower = tower_of("swinv2_tiny_window8_256")
    images = images_for(tower)
    with torch.no_grad():
        x, positions = tower.embed(images)
        for index, block in enumerate(tower.blocks):
            assert block.enters_stage == (index in (2, 4, 6))
            x = block.enter(x)
            assert x.shape[-1] == tower.dims[index]
            x = x + block.attend(x, positions)
            x = x + block.feed(x)
        assert torch.equal(tower.finish(x), tower(images))


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_trained_but_gradients_pass_through(name):
    tower = tower_of(name)
    images = images_for(tower).requires_grad_()
    tower.pool(tower(images)).square().sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert images.grad.abs().max() > 0
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in tower.parameters())


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "swinv2_tiny_window8_256"]
)
def test_training_mode_changes_nothing(name):
    arguments = {**CASES[name], "drop_path_rate": 0.9, "proj_drop_rate": 0.5, "pos_drop_rate": 0.5}
    if name.startswith("swin"):
        del arguments["pos_drop_rate"]
    tower = create_tower(name, pretrained=False, depth=2, **arguments)
    images = images_for(tower)
    before = tower(images)
    parent = torch.nn.Sequential(tower)
    parent.train()
    assert parent.training
    assert not any(module.training for module in tower.modules())
    assert torch.equal(tower(images), before)
    assert torch.equal(tower.train(True)(images), before)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_every_weight_is_there_once(name):
    tower = tower_of(name)
    stored = [tensor.data_ptr() for tensor in tower.state_dict().values()]
    assert len(stored) == len(set(stored))
    shared = torch.nn.ModuleDict({"audio": tower, "video": tower})
    assert sum(p.numel() for p in shared.parameters()) == sum(p.numel() for p in tower.parameters())
    other = copy.deepcopy(tower)
    images = images_for(tower)
    assert torch.equal(other(images), tower(images))


@pytest.mark.parametrize("name", FLAT)
def test_two_streams_can_share_a_tower(name):
    tower = tower_of(name)
    frames = images_for(tower)
    if tower.any_size:
        spectrograms = images_for(tower, 3, 4 * tower.patch_size + 5, 3 * tower.patch_size)
    else:
        spectrograms = images_for(tower, 3)
    with torch.no_grad():
        alone_video, alone_audio = tower(frames), tower(spectrograms)
        video, video_positions = tower.embed(frames)
        audio, audio_positions = tower.embed(spectrograms)
        for block in tower.blocks:
            audio = block.plain(audio, audio_positions)
            video = block.plain(video, video_positions)
        assert torch.equal(tower.finish(video), alone_video)
        assert torch.equal(tower.finish(audio), alone_audio)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_rope_mixed_ape_224"])
def test_a_tower_compiles_to_one_graph(name):
    torch._dynamo.reset()
    tower = tower_of(name)
    images = images_for(tower)
    compiled = torch.compile(tower, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(images), tower(images))
