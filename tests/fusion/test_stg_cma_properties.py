"""STG-CMA as a method: identity before training, gradient reach, time, windows, its switches."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avtune.backbones import BackboneError, as_tower, create_tower
from avtune.backbones.head_count import split_into_heads
from avtune.backbones.timm_loading import timm
from avtune.config import EncoderConfig
from avtune.encoder import DualEncoder, create_encoder, pair_blocks
from avtune.fusion import BlockSizes, OptionError, build_fusion
from avtune.fusion.stg_cma import PRESETS, StgCma, StgCmaLayer
from avtune.fusion.stg_cma_adapters import TemporalAdaptation, hear
from random_clips import clips

NANO = "nano"
CLIP = "vit_tiny_patch16_224"
SWIN = "swin_tiny_patch4_window7_224"


def encoder_of(tower: str = NANO, depth: int = 2, segments: int = 3, **options: Any) -> DualEncoder:
    preset, options["ratios"] = options.pop("preset", None), options.get("ratios", [0.125])
    torch.manual_seed(0)
    config = EncoderConfig(tower=tower, pretrained=False, fusion="stg_cma", preset=preset, options=options)
    return create_encoder(config, depth=depth, segments=segments)


def small_swin(options: dict[str, Any] | None = None, segments: int = 3) -> DualEncoder:
    """Two stages of 16x16 and 8x8 tokens in windows of 7: the last row and column of windows are padded."""
    torch.manual_seed(0)
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=64, patch_size=4, window_size=7, embed_dim=32, depths=(2, 2), num_heads=(2, 4), num_classes=0
    )
    tower = as_tower(model, "small")
    pairs = [BlockSizes(b.dim, b.dim, b.heads, b.heads, segments=segments) for b in tower.blocks]
    options = {"ratios": [0.25, 0.125], **(options or {})}
    fusion = build_fusion("stg_cma", pairs, options=options)
    return DualEncoder(tower, tower, fusion, pair_blocks(len(pairs), len(pairs)))


def trained(encoder: DualEncoder) -> DualEncoder:
    """As after some training: nothing is at its initial zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in encoder.fusion.named_parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.5 if "gates" in name else 0.2))
    return encoder


def layers(encoder: DualEncoder) -> list[StgCmaLayer]:
    found = [layer for layer in encoder.fusion.layers if isinstance(layer, StgCmaLayer)]
    assert len(found) == len(encoder.fusion.layers)
    return found


@pytest.mark.parametrize(
    "tower", [NANO, "vit_base_patch16_clip_quickgelu_224", SWIN, "vit_small_patch16_dinov3"]
)
@pytest.mark.parametrize("training", [False, True])
def test_before_training_both_streams_are_exactly_the_frozen_towers(tower: str, training: bool) -> None:
    encoder = encoder_of(tower, depth=1).train(training)
    sound, frames = clips(encoder, batch=1, segments=2)
    with torch.no_grad():
        encoded = encoder(sound, frames)
        pictures = sound.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)
        assert torch.equal(encoded.audio, encoder.audio_tower(pictures))
        assert torch.equal(encoded.video, encoder.video_tower(frames.flatten(0, 1)))


@pytest.mark.parametrize("make", [encoder_of, small_swin])
def test_at_the_first_step_up_projections_alone_learn_and_gates_later(make: Any) -> None:
    encoder = make()
    encoded = encoder.eval()(*clips(encoder))
    (encoded.audio_pooled.square().sum() + encoded.video_pooled.square().sum()).backward()
    for name, weight in encoder.fusion.named_parameters():
        moves = ".up." in name or name.endswith("_time")
        assert (weight.grad is not None and weight.grad.abs().sum() > 0) == moves, name


@pytest.mark.parametrize("direction", ["both", "audio_to_visual", "visual_to_audio", "none"])
@pytest.mark.parametrize("swin", [False, True])
def test_gradients_reach_every_trainable_weight_and_no_frozen_one(direction: str, swin: bool) -> None:
    options: dict[str, Any] = {"direction": direction, "drop_path": 0.0}
    encoder = trained(small_swin(options) if swin else encoder_of(**options)).train()
    encoded = encoder(*clips(encoder))
    # Unequal weights: behind a LayerNorm a plain sum would hide what reaches it.
    for pooled in (encoded.audio_pooled, encoded.video_pooled):
        (pooled * torch.linspace(-1, 1, pooled.shape[-1])).square().sum().backward(retain_graph=True)
    norms = []
    for name, weight in encoder.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name
            norms += [] if name.startswith("fusion.") else [name]
        else:
            assert weight.grad is None, name
    assert norms == ([] if swin else ["video_tower.model.norm.weight", "video_tower.model.norm.bias"])


@pytest.mark.parametrize("direction", ["both", "audio_to_visual", "visual_to_audio", "none"])
@pytest.mark.parametrize("swin", [False, True])
def test_direction_decides_who_hears_whom(direction: str, swin: bool) -> None:
    encoder = trained(
        small_swin({"direction": direction}) if swin else encoder_of(direction=direction)
    ).eval()
    sound, frames = (x.requires_grad_() for x in clips(encoder))
    (to_frames,) = torch.autograd.grad(encoder(sound, frames).video.square().sum(), sound, allow_unused=True)
    (to_sound,) = torch.autograd.grad(encoder(sound, frames).audio.square().sum(), frames, allow_unused=True)
    assert (to_frames is not None) == (direction in ("both", "audio_to_visual"))
    assert (to_sound is not None) == (direction in ("both", "visual_to_audio"))


@pytest.mark.parametrize("make", [encoder_of, small_swin])
def test_the_order_of_clips_does_not_matter_and_that_of_segments_does(make: Any) -> None:
    encoder = trained(make()).eval()
    sound, frames = clips(encoder, batch=3)
    with torch.no_grad():
        whole, order = encoder(sound, frames), torch.tensor([2, 0, 1])
        permuted, alone = encoder(sound[order], frames[order]), encoder(sound[1:2], frames[1:2])
        backwards = encoder(sound.flip(1), frames.flip(1))
    for name in ("audio_pooled", "video_pooled"):
        expected = getattr(whole, name)
        torch.testing.assert_close(getattr(permuted, name), expected[order], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(getattr(alone, name), expected[1:2], atol=2e-5, rtol=1e-4)
        assert not torch.allclose(getattr(backwards, name).flip(1), expected, atol=1e-3)


@pytest.mark.parametrize("make", [encoder_of, small_swin])
def test_fewer_segments_take_the_first_embeddings_and_the_offsets_in_reach(make: Any) -> None:
    long, short = trained(make(segments=5)).eval(), trained(make(segments=3)).eval()
    state = long.fusion.state_dict()
    for name, value in state.items():
        if name.endswith("bias_table"):
            state[name] = value[2:-2]
        elif name.endswith("_time"):
            state[name] = value[:, :3]
    short.fusion.load_state_dict(state)
    with torch.no_grad():
        ours, expected = long(*clips(long)), short(*clips(short))
    assert torch.equal(ours.audio, expected.audio)
    assert torch.equal(ours.video, expected.video)
    with pytest.raises(
        OptionError, match=r"built for 3 segments a clip and got 4; build it with input.segments=4"
    ):
        short(*clips(short, segments=4))


def test_each_stream_keeps_its_own_clips_when_temporal_branches_are_dropped() -> None:
    torch.manual_seed(0)
    temporal = TemporalAdaptation(8, 4, 1, 3, tables=False, drop_path=0.5).train()
    nn.init.normal_(temporal.adapter.up.weight)

    class Plain:
        def attend_along(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
            return x

    x, block = torch.randn(24, 5, 8), Plain()
    torch.manual_seed(3)
    first = temporal(x, block, 3).reshape(8, 3, 5, 8)  # type: ignore[arg-type]
    torch.manual_seed(3)
    again = temporal(x, block, 3).reshape(8, 3, 5, 8)  # type: ignore[arg-type]
    assert torch.equal(first, again)
    kept = temporal.eval()(x, block, 3).reshape(8, 3, 5, 8)  # type: ignore[arg-type]
    dropped = first.flatten(1).abs().sum(1) == 0
    assert 0 < int(dropped.sum()) < 8
    torch.testing.assert_close(first[~dropped], 2 * kept[~dropped])


def test_temporal_branches_are_dropped_more_often_with_depth() -> None:
    encoder = encoder_of(depth=5)
    chances = [layer.video_temporal.drop_path.drop_prob for layer in layers(encoder) if layer.video_temporal]
    assert chances == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_swin_attends_along_time_in_every_other_block_unless_told_otherwise() -> None:
    def places(encoder: DualEncoder) -> list[bool]:
        return [layer.video_temporal is not None for layer in layers(encoder)]

    assert places(small_swin()) == [True, False, True, False]
    assert places(small_swin()) == [not block.shifted for block in small_swin().video_tower.blocks]
    assert places(small_swin({"temporal": "all"})) == [True] * 4
    assert places(small_swin({"temporal": "none"})) == [False] * 4
    assert places(encoder_of()) == [True, True]
    assert places(encoder_of(temporal="alternate")) == [True, False]


def test_fusion_stays_within_windows_and_leaves_their_padding_out() -> None:
    encoder = trained(small_swin()).eval()
    for number in (0, 1):
        block, layer = encoder.video_tower.blocks[number], layers(encoder)[number]
        audio, video = torch.randn(2, 256, block.dim), torch.randn(2, 256, block.dim)
        with torch.no_grad():
            to_audio, to_video = layer.spatial_adapter(audio, video, layer.gates, (block, block))
            a, v = layer.spatial_adapter.audio.squeeze(audio), layer.spatial_adapter.video.squeeze(video)
            places = block.group(torch.arange(1.0, 257)[None, :, None]).long().squeeze(-1)
            assert (places == 0).any(), "this grid should need padding"
            for window in places:
                inside = window[window > 0] - 1
                for hidden, other, gate, up, ours in (
                    (a, v, layer.gates.audio, layer.spatial_adapter.audio.up, to_audio),
                    (v, a, layer.gates.video, layer.spatial_adapter.video.up, to_video),
                ):
                    mine, theirs = hidden[:, inside], other[:, inside]
                    heard = mine + gate * torch.softmax(mine @ theirs.transpose(1, 2), -1) @ theirs
                    torch.testing.assert_close(ours[:, inside], up(heard), atol=1e-5, rtol=1e-4)


def test_whole_frames_can_be_compared_in_space_too() -> None:
    windows, frames = trained(small_swin()).eval(), trained(small_swin({"spatial": "frame"})).eval()
    with torch.no_grad():
        given = clips(windows)
        assert not torch.allclose(windows(*given).video, frames(*given).video, atol=1e-3)
    flat = [trained(encoder_of(spatial=spatial)).eval() for spatial in ("window", "frame")]
    with torch.no_grad():
        given = clips(flat[0])
        assert torch.equal(flat[0](*given).video, flat[1](*given).video)


def test_a_stream_that_does_not_hear_is_left_alone() -> None:
    hidden, other, gate = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.tensor([0.5])
    assert hear(hidden, other, None) is hidden
    expected = hidden + 0.5 * torch.softmax(hidden @ other.transpose(1, 2), -1) @ other
    torch.testing.assert_close(hear(hidden, other, gate), expected)


def test_another_head_count_runs_the_same_weights_in_other_heads() -> None:
    encoder = encoder_of("vit_small_patch16_224", depth=1, heads=3)
    block = encoder.video_tower.blocks[0]
    assert block.heads == 3
    x, frozen = torch.randn(2, 7, 384), block.block
    query, key, value = frozen.attn.qkv(frozen.norm1(x)).reshape(2, 7, 3, 3, 128).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-1, -2) / 128**0.5).softmax(-1)
    expected = frozen.attn.proj((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(block.attend(x), expected, atol=1e-5, rtol=1e-5)
    assert create_tower("vit_small_patch16_224", pretrained=False, depth=1).blocks[0].heads == 6


@pytest.mark.parametrize(
    ("tower", "heads", "message"),
    [
        ("vit_tiny_patch16_224", 5, "5 heads do not divide the 192 channels of vit_tiny_patch16_224"),
        (SWIN, 3, f"the attention of {SWIN} is bound to its 3 heads"),
        ("vit_small_patch16_dinov3", 3, "the attention of vit_small_patch16_dinov3 is bound to its 6 heads"),
    ],
)
def test_head_counts_that_cannot_be_are_refused(tower: str, heads: int, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        split_into_heads(create_tower(tower, pretrained=False, depth=1), heads)


@pytest.mark.parametrize(("make", "training"), [(encoder_of, True), (small_swin, False)])
def test_one_graph_without_breaks(make: Any, training: bool) -> None:
    encoder = trained(make()).train(training)
    explained = torch._dynamo.explain(lambda s, f: encoder(s, f).video_pooled)(*clips(encoder, 1, 2))
    assert explained.graph_count == 1
    assert explained.graph_break_count == 0


def test_recomputing_a_step_gives_the_same_gradients() -> None:
    encoder = trained(encoder_of()).train()
    gradients = []
    for recompute in (False, True):
        encoder.recompute = recompute
        torch.manual_seed(5)
        encoder.zero_grad()
        encoder(*clips(encoder)).video.square().sum().backward()
        gradients.append([w.grad for w in encoder.fusion.parameters()])
    assert any(gradient is not None for gradient in gradients[0])
    for kept, recomputed in zip(*gradients, strict=True):
        assert (kept is None) == (recomputed is None)
        assert kept is None or torch.equal(kept, recomputed)


def test_towers_of_differing_width_and_depth_walk_together() -> None:
    video, audio = (
        create_tower(CLIP, pretrained=False, depth=4),
        create_tower(NANO, pretrained=False, depth=2),
    )
    pairs = [BlockSizes(audio.dim, video.dim, 4, 3, segments=2)] * 2
    fusion = build_fusion("stg_cma", pairs, options={"drop_path": 0.0})
    encoder = trained(DualEncoder(audio, video, fusion, pair_blocks(2, 4)))
    encoded = encoder(torch.randn(1, 2, 64, 64), torch.randn(1, 2, 3, 224, 224))
    assert encoded.audio_pooled.shape == (1, 2, audio.dim)
    assert encoded.video_pooled.shape == (1, 2, video.dim)
    (encoded.audio.square().sum() + encoded.video.square().sum()).backward()
    assert all(weight.grad is not None for weight in fusion.parameters())


def test_windows_that_do_not_match_are_refused_with_the_mend() -> None:
    audio = create_tower(NANO, pretrained=False, depth=1)
    video = create_tower(SWIN, pretrained=False, depth=1, image_size=64)
    pairs = [BlockSizes(audio.dim, video.dims[0], 4, 3)]

    def encode(spatial: str) -> Tensor:
        fusion = build_fusion("stg_cma", pairs, options={"spatial": spatial, "time_positions": "none"})
        plan = [(0, 0), *((None, j) for j in range(1, len(video.blocks)))]
        encoder = DualEncoder(audio, video, fusion, plan)
        return encoder(torch.randn(1, 1, 64, 64), torch.randn(1, 1, 3, 64, 64)).video_pooled

    with pytest.raises(OptionError, match=r"has 1 and a picture 9; set encoder.options.spatial to frame"):
        encode("window")
    assert encode("frame").isfinite().all()


def test_sizes_follow_the_widths_of_the_tower() -> None:
    def widths(dims: list[int], **options: Any) -> list[int]:
        fusion = build_fusion(
            "stg_cma", [BlockSizes(dim, dim) for dim in dims], options.pop("preset", None), options
        )
        return [layer.global_adapter.video.down.out_features for layer in fusion.layers]  # type: ignore[union-attr]

    assert widths([768] * 2) == [96] * 2
    assert widths([768] * 2, preset="tiny") == [24] * 2
    assert widths([1024] * 2) == [64] * 2
    assert widths([1024] * 2, preset="tiny") == [32] * 2
    assert widths([128, 256, 512, 1024]) == [32, 64, 64, 128]
    assert widths([192, 384, 768, 1536]) == [96] * 4
    assert widths([192, 384, 768, 1536], preset="tiny") == [24, 48, 48, 96]
    assert widths([192, 384, 768, 1536], ratios=[0.25]) == [48, 96, 192, 384]
    with pytest.raises(OptionError, match="has 2 ratios for the 1 widths 768 of the tower"):
        widths([768], ratios=[0.5, 0.25])
    with pytest.raises(OptionError, match=r"ratio 0\.001 leaves no channel of 64 and 64"):
        widths([64], ratios=[0.001])


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_fit_the_towers_that_they_are_named_for(preset: str) -> None:
    dims = {
        "clip_b": [768],
        "clip_l": [1024],
        "swin_b": [128, 256, 512, 1024],
        "swin_l": [192, 384, 768, 1536],
    }
    named = [name for name in dims if preset.startswith(name)] or list(dims)
    for name in named:
        fusion = build_fusion("stg_cma", [BlockSizes(dim, dim) for dim in dims[name]], preset)
        assert isinstance(fusion, StgCma)
        swin = name.startswith("swin")
        assert fusion.train_final_norm is not swin
        assert (fusion.audio_time is None) is swin
        assert all((layer.audio_temporal.bias_table is not None) is swin for layer in fusion.layers)
        if fusion.heads is None:
            size = "tiny" if "tiny" in preset else "base"
            chosen = build_fusion("stg_cma", [BlockSizes(dim, dim) for dim in dims[name]], size)
            assert sum(w.numel() for w in chosen.parameters()) == sum(w.numel() for w in fusion.parameters())
