import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avtune.backbones import BackboneError
from avtune.config import EncoderConfig
from avtune.encoder import DualEncoder, PlanError, create_encoder, pair_blocks


@given(audio=st.integers(1, 30), video=st.integers(1, 30))
def test_the_default_plan_walks_every_block_once_and_pairs_all_of_the_shallower_tower(
    audio: int, video: int
) -> None:
    plan = pair_blocks(audio, video)
    assert [i for i, _ in plan if i is not None] == list(range(audio))
    assert [j for _, j in plan if j is not None] == list(range(video))
    assert sum(None not in pair for pair in plan) == min(audio, video)
    assert plan[-1] == (audio - 1, video - 1)


def nano(**changes: object) -> DualEncoder:
    torch.manual_seed(0)
    return create_encoder(EncoderConfig(pretrained=False, **changes), depth=2)  # type: ignore[arg-type]


def test_plans_that_skip_repeat_or_do_not_match_are_refused() -> None:
    encoder = nano()
    tower, fusion = encoder.video_tower, encoder.fusion
    for plan in ([(0, 0)], [(0, 0), (0, 1)], [(1, 0), (0, 1)], [(0, 0), (1, 1), (2, 2)]):
        with pytest.raises(PlanError, match="must walk 0 to 1 once, in order"):
            DualEncoder(tower, tower, fusion, plan)
    with pytest.raises(PlanError, match="pairs 1 blocks, but the method has 2 layers"):
        DualEncoder(tower, tower, fusion, [(0, 0), (None, 1), (1, None)])


def test_a_shared_tower_counts_once_and_two_names_give_two_towers() -> None:
    shared, separate = nano(fusion="frozen"), nano(fusion="frozen", audio_tower="vit_tiny_patch16_224")
    assert shared.audio_tower is shared.video_tower
    assert separate.audio_tower is not separate.video_tower
    tower = sum(weight.numel() for weight in shared.video_tower.parameters())
    assert sum(weight.numel() for weight in shared.parameters()) == tower


def test_towers_stay_frozen_and_in_evaluation_mode() -> None:
    encoder = nano().train()
    assert not encoder.video_tower.training
    assert encoder.fusion.training
    assert not any(weight.requires_grad for weight in encoder.video_tower.parameters())


def test_random_towers_are_those_of_their_seed_whatever_was_drawn_before() -> None:
    torch.manual_seed(5)
    first = create_encoder(EncoderConfig(pretrained=False, tower_seed=3), depth=1)
    torch.manual_seed(6)
    second = create_encoder(EncoderConfig(pretrained=False, tower_seed=3), depth=1)
    other = create_encoder(EncoderConfig(pretrained=False, tower_seed=4), depth=1)
    weights = [e.video_tower.blocks[0].state_dict() for e in (first, second, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_recomputing_steps_changes_no_gradient_and_keeps_less() -> None:
    from avtune.counting import saved_bytes

    sound, frames = torch.randn(1, 2, 64, 64), torch.randn(1, 2, 3, 64, 64)
    gradients, kept = [], []
    for recompute in (False, True):
        encoder = nano().train()
        encoder.recompute = recompute
        with torch.no_grad():
            for name, weight in encoder.fusion.named_parameters():
                if "gate" in name:
                    weight.fill_(0.5)
        with saved_bytes(encoder) as count:
            encoded = encoder(sound, frames)
        encoded.video.square().sum().backward()
        gradients.append([weight.grad for weight in encoder.fusion.parameters()])
        kept.append(count[0])
    assert all(
        (a is None and b is None) or torch.equal(a, b)
        for a, b in zip(gradients[0], gradients[1], strict=True)
    )
    assert kept[1] < kept[0] / 3


def test_a_batch_is_independent_of_its_order() -> None:
    encoder = nano().eval()
    with torch.no_grad():
        for name, weight in encoder.fusion.named_parameters():
            if "gate" in name:
                weight.fill_(0.5)
        sound, frames = torch.randn(3, 2, 64, 64), torch.randn(3, 2, 3, 64, 64)
        order = torch.tensor([2, 0, 1])
        whole, turned = encoder(sound, frames), encoder(sound[order], frames[order])
    torch.testing.assert_close(turned.video_pooled, whole.video_pooled[order])
    torch.testing.assert_close(turned.audio_pooled, whole.audio_pooled[order])


def test_a_tower_for_sound_cannot_see_frames() -> None:
    with pytest.raises(BackboneError, match=r"set encoder.audio_tower=htsat and encoder.tower to a backbone"):
        create_encoder(EncoderConfig(tower="htsat", pretrained=False), device="meta")
