"""Prompts: deep ones equal visual prompt tuning to the letter; shallow ones walk on."""

import pytest
import torch
from tuning_cases import away_from_start, clips, living_norms, tuned

from avtune.tuning import TuningError


@pytest.mark.parametrize(
    "tower", ["nano", "vit_tiny_patch16_224", "vit_small_patch16_dinov3", "deit3_small_patch16_224"]
)
def test_deep_prompts_are_tokens_that_are_replaced_behind_each_block(tower: str) -> None:
    """Visual prompt tuning, deep: (Z_i, _) = L_i([Z_(i-1), P_i]), with queries, MLP and all."""
    encoder = tuned("prompts", tower=tower).eval()
    sound, frames = clips(encoder, 1, 2)
    video = encoder.video_tower
    with torch.no_grad():
        found = encoder(sound, frames).video
        x, positions = video.embed(frames.flatten(0, 1))
        length = x.shape[1]
        for index, block in enumerate(video.blocks):
            prompts = encoder.tuning.at("video", index).prompts.expand(len(x), -1, -1)
            x = block.plain(torch.cat([x, prompts], dim=1), positions)[:, :length]
        torch.testing.assert_close(found, video.finish(x), atol=2e-5, rtol=1e-4)


def test_shallow_prompts_enter_once_and_walk_to_the_end() -> None:
    encoder = tuned("prompts", "shallow", length=7).eval()
    sound, frames = clips(encoder)
    video = encoder.video_tower
    with torch.no_grad():
        found = encoder(sound, frames)
        x, positions = video.embed(frames.flatten(0, 1))
        x = torch.cat([x, encoder.tuning.prompts["video"].expand(len(x), -1, -1)], dim=1)
        for block in video.blocks:
            x = block.plain(x, positions)
    torch.testing.assert_close(found.video, video.finish(x)[:, :-7], atol=2e-5, rtol=1e-4)
    assert found.video.shape[1] == video.lengths(64, 64)[0]


@pytest.mark.parametrize("tower", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_deep_prompts_reach_every_window_and_never_another_sample(tower: str) -> None:
    encoder = living_norms(tuned("prompts", tower=tower, depth=1)).eval()
    plain = living_norms(tuned(None, tower=tower, depth=1)).eval()
    sound, frames = clips(encoder, 1, 2)
    with torch.no_grad():
        found = encoder(sound, frames).video
        assert ((found - plain(sound, frames).video).abs().amax(-1) > 0).all()
        torch.testing.assert_close(
            encoder(sound[:, :1], frames[:, :1]).video, found[:1], atol=2e-5, rtol=1e-4
        )


def test_prompts_stand_beside_the_extra_tokens_of_a_fusion() -> None:
    encoder = tuned("prompts", length=3).eval()
    block, tuning = encoder.video_tower.blocks[0], encoder.tuning.at("video", 0)
    x, extra = torch.randn(2, 9, 128), torch.randn(2, 4, 128)
    with torch.no_grad():
        found = tuning.attend(block, x, None, extra, lambda tokens: tokens)
        whole = torch.cat([x, extra, tuning.prompts.expand(2, -1, -1)], dim=1)
        torch.testing.assert_close(found, block.attend(whole)[:, :9], atol=1e-5, rtol=1e-4)


def test_cross_modal_attention_enters_the_prompts() -> None:
    encoder = away_from_start(tuned("prompts", fusion="cma", depth=1)).eval()
    sound, frames = clips(encoder)
    with torch.no_grad():
        assert not torch.equal(encoder(sound, frames).video, encoder(torch.zeros_like(sound), frames).video)


@pytest.mark.parametrize("tower", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_shallow_prompts_are_refused_where_a_prompt_has_no_cell(tower: str) -> None:
    with pytest.raises(TuningError, match=f"but {tower} cuts tokens into windows .* choose deep prompts"):
        tuned("prompts", "shallow", tower=tower, depth=1)


def test_no_prompt_is_refused() -> None:
    with pytest.raises(TuningError, match="a length of at least 1, not 0"):
        tuned("prompts", length=0)
