"""LAVISH as a method: identity at closed gates, gradient reach, its switches."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtune.backbones import Tower, create_tower
from avtune.config import EncoderConfig
from avtune.counting import saved_bytes
from avtune.encoder import DualEncoder, create_encoder
from avtune.fusion import OptionError
from avtune.fusion.lavish import PRESETS, LavishAdapter, LavishConfig
from random_clips import clips

NANO = "nano"


def encoder_of(depth: int = 2, tower: str = NANO, **options: Any) -> DualEncoder:
    preset = options.pop("preset", None)
    torch.manual_seed(0)
    return create_encoder(
        EncoderConfig(tower=tower, pretrained=False, preset=preset, options=options), depth=depth
    )


def open_gates(encoder: DualEncoder) -> DualEncoder:
    with torch.no_grad():
        for name, weight in encoder.fusion.named_parameters():
            if "gate" in name:
                weight.fill_(0.5)
    return encoder


@pytest.mark.parametrize(
    "tower", [NANO, "swinv2_tiny_window8_256", "vit_tiny_patch16_224", "vit_small_patch16_dinov3"]
)
def test_closed_gates_leave_both_streams_exactly_the_frozen_towers(tower: str) -> None:
    encoder = encoder_of(1, tower, batch_norm=False).eval()
    sound, frames = clips(encoder, batch=1, segments=1)
    with torch.no_grad():
        encoded = encoder(sound, frames)
        pictures = sound.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)
        assert torch.equal(encoded.audio, encoder.audio_tower(pictures))
        assert torch.equal(encoded.video, encoder.video_tower(frames.flatten(0, 1)))


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "official_avs"])
def test_every_gated_preset_is_the_identity_at_the_start_also_in_training(preset: str) -> None:
    encoder = encoder_of(preset=preset).train()
    sound, frames = clips(encoder)
    encoded = encoder(sound, frames)
    assert torch.equal(encoded.video, encoder.video_tower(frames.flatten(0, 1)))


def test_the_ungated_audio_adapters_of_the_avs_preset_act_from_the_start() -> None:
    encoder = encoder_of(preset="official_avs").train()
    sound, frames = clips(encoder)
    pictures = sound.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)
    assert not torch.equal(encoder(sound, frames).audio, encoder.audio_tower(pictures))


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("direction", ["both", "audio_to_visual", "visual_to_audio", "none"])
@pytest.mark.parametrize("latents", [2, 0])
def test_gradients_reach_every_trainable_weight_and_no_frozen_one(
    preset: str, direction: str, latents: int
) -> None:
    encoder = open_gates(encoder_of(preset=preset, direction=direction, latents=latents)).train()
    encoded = encoder(*clips(encoder))
    (encoded.audio_pooled.square().sum() + encoded.video_pooled.square().sum()).backward()
    for name, weight in encoder.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            # A latent that started at zero and a norm behind a batch norm may get little, but not nothing.
            assert weight.grad.abs().sum() > 0, name
        else:
            assert weight.grad is None, name
    trained_tower = [n for n, w in encoder.video_tower.named_parameters() if w.requires_grad]
    assert bool(trained_tower) == PRESETS[preset].train_norms


def test_direction_decides_who_hears_whom() -> None:
    for direction in ("both", "audio_to_visual", "visual_to_audio", "none"):
        encoder = open_gates(encoder_of(direction=direction)).eval()
        sound, frames = clips(encoder)
        sound.requires_grad_()
        frames.requires_grad_()
        encoder(sound, frames).video.sum().backward()
        assert bool(sound.grad is not None and sound.grad.abs().sum() > 0) == (
            direction in ("both", "audio_to_visual")
        )
        sound.grad = frames.grad = None
        encoder(sound, frames).audio.sum().backward()
        assert bool(frames.grad is not None and frames.grad.abs().sum() > 0) == (
            direction in ("both", "visual_to_audio")
        )


@settings(deadline=None, max_examples=12)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 17),
    other=st.integers(1, 23),
    latents=st.integers(0, 5),
    dims=st.tuples(st.sampled_from([16, 32]), st.sampled_from([16, 32])),
    values=st.sampled_from(["other", "own"]),
)
def test_adapter_shapes_and_independence_of_clips(
    batch: int, length: int, other: int, latents: int, dims: tuple[int, int], values: Any
) -> None:
    config = LavishConfig(latents=latents, values=values, batch_norm=False)
    adapter = LavishAdapter(*dims, config, hears_other=True, gate=True).eval()
    with torch.no_grad():
        for name, weight in adapter.named_parameters():
            if "gate" in name:
                weight.fill_(0.7)
        x, y = torch.randn(batch, length, dims[0]), torch.randn(batch, other, dims[1])
        whole = adapter(x, y)
        assert whole.shape == x.shape
        assert whole.isfinite().all()
        order = torch.randperm(batch)
        torch.testing.assert_close(adapter(x[order], y[order]), whole[order], atol=1e-5, rtol=1e-4)


def test_avish_equals_attention_over_all_tokens_and_keeps_no_quadratic_matrix() -> None:
    torch.manual_seed(0)
    dim, length, other = 32, 512, 768
    adapter = LavishAdapter(dim, dim, LavishConfig(latents=0, batch_norm=False), hears_other=True, gate=True)
    torch.nn.init.constant_(adapter.fusion_gate, 0.5)
    x, y = torch.randn(2, length, dim, requires_grad=True), torch.randn(2, other, dim, requires_grad=True)
    with saved_bytes(adapter) as kept:
        fused = adapter.fuse(x, y)
    expected = x + 0.5 * torch.softmax(x @ y.transpose(1, 2), -1) @ y
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=1e-5)
    assert kept[0] < 2 * length * other * 4, "a length x other matrix is kept"


def test_zero_latents_never_break_symmetry_and_random_ones_do() -> None:
    def after_training(init: str) -> torch.Tensor:
        torch.manual_seed(0)
        config = LavishConfig(latents=4, latent_init=init, batch_norm=False)  # type: ignore[arg-type]
        adapter = LavishAdapter(16, 16, config, hears_other=True, gate=True)
        x, y, goal = torch.randn(4, 9, 16), torch.randn(4, 9, 16), torch.randn(4, 9, 16)
        optimizer = torch.optim.Adam(adapter.parameters(), lr=0.02)
        for _ in range(30):
            optimizer.zero_grad()
            (adapter(x, y) - goal).square().sum().backward()
            optimizer.step()
        assert adapter.latents is not None
        return adapter.latents.detach()

    zeros, normal = after_training("zeros"), after_training("normal")
    assert zeros.abs().sum() > 0
    assert torch.allclose(zeros, zeros[:1].expand_as(zeros), atol=1e-6)
    assert not torch.allclose(normal, normal[:1].expand_as(normal), atol=1e-3)


def test_one_graph_without_breaks() -> None:
    encoder = open_gates(encoder_of(batch_norm=True)).eval()
    explained = torch._dynamo.explain(lambda s, f: encoder(s, f).video_pooled)(*clips(encoder, 1, 1))
    assert explained.graph_count == 1
    assert explained.graph_break_count == 0


def test_unknown_options_and_values_name_the_mend() -> None:
    with pytest.raises(OptionError, match=r"no option 'latent'; did you mean 'latents'\?"):
        encoder_of(latent=3)
    with pytest.raises(OptionError, match="'direction' cannot be 'left'; it takes 'both'"):
        encoder_of(direction="left")
    with pytest.raises(OptionError, match=r"'latents' cannot be 2\.5; it takes int"):
        encoder_of(latents=2.5)
    with pytest.raises(OptionError, match=r"unknown preset of lavish 'papre'; did you mean 'paper'\?"):
        encoder_of(preset="papre")
    with pytest.raises(OptionError, match=r"unknown method 'lavsh'; did you mean 'lavish'\?"):
        create_encoder(EncoderConfig(pretrained=False, fusion="lavsh"), depth=1)


def test_towers_of_differing_width_and_depth_walk_together() -> None:
    video: Tower = create_tower("vit_tiny_patch16_224", pretrained=False, depth=4)
    audio = create_tower(NANO, pretrained=False, depth=2)
    from avtune.encoder import pair_blocks
    from avtune.fusion import BlockSizes, build_fusion

    plan = pair_blocks(2, 4)
    assert plan == [(None, 0), (0, 1), (None, 2), (1, 3)]
    fusion = build_fusion("lavish", [BlockSizes(audio.dim, video.dim)] * 2, options={"batch_norm": False})
    encoder = open_gates(DualEncoder(audio, video, fusion, plan))
    encoded = encoder(torch.randn(1, 2, 64, 64), torch.randn(1, 2, 3, 224, 224))
    assert encoded.audio_pooled.shape == (1, 2, audio.dim)
    assert encoded.video_pooled.shape == (1, 2, video.dim)
    encoded.audio.sum().backward()
    assert all(w.grad is not None for n, w in fusion.named_parameters() if "match" in n and "layers.0" in n)
