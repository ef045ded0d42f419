"""LoRA through peft: the formula, the projections it must not miss, and what it leaves alone."""

import copy
import sys
from unittest.mock import patch

import pytest
import torch
from torch import nn
from tuning_cases import away_from_start, clips, living_norms, tuned, tuned_weights

from avtune.backbones import create_tower
from avtune.options import OptionError
from avtune.tuning import TuningError
from avtune.tuning.lora import JoinedBias, LoraBlock, LoraConfig

# Their attention multiplies by the weight of its projection instead of calling it, so that a wrapper is passed by.
PASSING_BY = ["swinv2_tiny_window8_256", "vit_tiny_patch16_dinov3_qkvb"]
ALL = ("qkv", "proj", "fc1", "fc2")


@pytest.mark.parametrize("tower", [*PASSING_BY, "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_every_update_acts_and_learns_and_the_start_is_timm_bit_for_bit(tower: str) -> None:
    encoder = living_norms(tuned("lora", tower=tower, depth=1, targets=list(ALL))).train()
    sound, frames = clips(encoder, 1, 1)
    start = encoder(sound, frames)
    assert torch.equal(start.video, encoder.video_tower(frames.flatten(0, 1)))
    weights = tuned_weights(away_from_start(encoder))
    # Two streams, four projections, two matrices each.
    assert len(weights) == 2 * 4 * 2 * len(encoder.video_tower.blocks)
    moved = encoder(sound, frames)
    assert not torch.equal(moved.video, start.video)
    (moved.audio.square().mean() + moved.video.square().mean()).backward()
    dead = [name for name, weight in weights.items() if weight.grad is None or not weight.grad.any()]
    assert not dead
    assert all(weight.grad is None for weight in encoder.video_tower.parameters())


@pytest.mark.parametrize("tower", PASSING_BY)
def test_without_the_joined_bias_the_wrapper_would_be_passed_by(tower: str) -> None:
    with patch("avtune.tuning.lora._join_bias"):
        encoder = living_norms(tuned("lora", tower=tower, depth=1)).train()
    encoder(*clips(encoder, 1, 1)).video.square().mean().backward()
    weights = tuned_weights(encoder)
    reached = [name for name, weight in weights.items() if weight.grad is not None]
    assert reached
    assert not any(".qkv." in name for name in reached)


@pytest.mark.parametrize("tower", ["swinv2_tiny_window8_256", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("way", ["attend", "attend with extra", "attend_along", "feed"])
def test_an_update_equals_the_tower_with_that_update_in_its_weights(tower: str, way: str) -> None:
    torch.manual_seed(0)
    block = create_tower(tower, pretrained=False, depth=1).blocks[0]
    for part in block.modules():
        if isinstance(part, nn.LayerNorm):
            nn.init.normal_(part.weight, 1, 0.1)
    config = LoraConfig(rank=3, alpha=5.0, targets=ALL)
    tuning = LoraBlock(block, config)
    merged = copy.deepcopy(block)
    for name, wrapped in tuning.block.named_modules():
        if hasattr(wrapped, "lora_A"):
            nn.init.normal_(wrapped.lora_B["default"].weight, std=0.2)
            update = wrapped.lora_B["default"].weight @ wrapped.lora_A["default"].weight
            merged.get_submodule(name).weight.data += 5.0 / 3 * update.detach()
    length = 64 * 64 if tower.startswith("swin") else 9
    x, extra = torch.randn(2, length, block.dim), torch.randn(2, 4, block.dim)

    def as_it_is(tokens: torch.Tensor) -> torch.Tensor:
        return tokens

    with torch.no_grad():
        found, expected = {
            "attend": lambda: (tuning.attend(block, x, None, None, as_it_is), merged.attend(x)),
            "attend with extra": lambda: (
                tuning.attend(block, x, None, extra, as_it_is), merged.attend(x, extra=extra)
            ),
            "attend_along": lambda: (tuning.attend_along(block, x[:, :7], None), merged.attend_along(x[:, :7])),
            "feed": lambda: (tuning.feed(block, x, as_it_is), merged.feed(x)),
        }[way]()  # fmt: skip
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_the_tower_itself_is_not_touched() -> None:
    encoder = away_from_start(tuned("lora", targets=list(ALL)))
    names = {name for name, _ in tuned(None).video_tower.named_parameters()}
    assert {name for name, _ in encoder.video_tower.named_parameters()} == names
    frames = clips(encoder)[1].flatten(0, 1)
    assert torch.equal(encoder.video_tower(frames), tuned(None).video_tower(frames))
    # Both trees of modules hold the tower's own tensors, so the frozen weights are there once.
    plain = sum(weight.numel() for weight in tuned(None).parameters())
    assert sum(weight.numel() for weight in encoder.parameters() if not weight.requires_grad) == plain
    for part in encoder.tuning.modules():
        if isinstance(part, LoraBlock):
            assert not part.block.block.attn.training


def test_peft_freezes_no_weight_that_was_free_before() -> None:
    tower = create_tower("nano", pretrained=False, depth=1)
    tower.blocks[0].block.norm1.requires_grad_(True)
    LoraBlock(tower.blocks[0], LoraConfig())
    assert tower.blocks[0].block.norm1.weight.requires_grad
    assert not tower.blocks[0].block.norm2.weight.requires_grad


def test_dropout_acts_in_training_only() -> None:
    encoder = away_from_start(tuned("lora", dropout=0.5))
    sound, frames = clips(encoder)
    with torch.no_grad():
        encoder.train()
        assert not torch.equal(encoder(sound, frames).video, encoder(sound, frames).video)
        encoder.eval()
        assert torch.equal(encoder(sound, frames).video, encoder(sound, frames).video)


def test_a_joined_bias_computes_what_timm_computes_at_every_width() -> None:
    for width in (96, 768, 1536):
        projection = nn.Linear(width, 3 * width, bias=False)
        parts = (nn.Parameter(torch.randn(width)), torch.zeros(width), nn.Parameter(torch.randn(width)))
        x = torch.randn(2, 64, width)
        expected = torch.nn.functional.linear(x, projection.weight, torch.cat(parts))
        assert torch.equal(JoinedBias(projection, parts)(x), expected)


def test_targets_that_a_block_lacks_are_refused_with_those_it_has() -> None:
    with pytest.raises(OptionError, match=r"no projection 'query'; choose among qkv, proj, fc1, fc2"):
        tuned("lora", targets=["qkv", "query"])
    with pytest.raises(OptionError, match="needs one target at least"):
        tuned("lora", targets=[])
    with pytest.raises(OptionError, match="choose among q_proj, k_proj, v_proj, proj"):
        tuned("lora", tower="eva02_base_patch14_224", depth=1)


def test_a_missing_peft_is_one_line_that_tells_what_to_install() -> None:
    with (
        patch.dict(sys.modules, {"peft": None}),
        pytest.raises(TuningError, match=r"avtune\[lora\]") as caught,
    ):
        tuned("lora")
    assert "\n" not in str(caught.value)
