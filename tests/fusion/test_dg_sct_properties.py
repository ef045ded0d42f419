"""DG-SCT as a method: the order of its layer, its maps, what it may cost, what it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from avtune.backbones import as_tower, create_tower
from avtune.backbones.timm_loading import timm
from avtune.config import EncoderConfig
from avtune.counting import saved_bytes
from avtune.encoder import DualEncoder, create_encoder, pair_towers
from avtune.fusion import BlockSizes, Notes, OptionError, build_fusion
from avtune.fusion.dg_sct import (
    AUDIO_MAP,
    PRESETS,
    VIDEO_MAP,
    DgSctAdapter,
    DgSctConfig,
    DgSctLayer,
    Prompt,
    sum_up,
)

SWIN = timm.models.swin_transformer
SWIN_V2 = timm.models.swin_transformer_v2


def two_towers(image: int = 32) -> tuple[Any, Any]:
    """Sound and frames of differing width, depth and count, staged as HTS-AT and Swin-V2-L are."""
    torch.manual_seed(0)
    audio = SWIN.SwinTransformer(
        img_size=64, patch_size=4, window_size=4, embed_dim=32, depths=(1, 2), num_heads=(2, 2), num_classes=0
    )
    video = SWIN_V2.SwinTransformerV2(
        img_size=image,
        patch_size=4,
        window_size=4,
        embed_dim=64,
        depths=(1, 4),
        num_heads=(2, 4),
        num_classes=0,
    )
    return as_tower(audio, "small_swin"), as_tower(video, "small_swin_v2")


def encoder_of(preset: str = "paper", **options: Any) -> DualEncoder:
    towers = two_towers()
    config = EncoderConfig(tower="video", audio_tower="audio", fusion="dg_sct", preset=preset)
    return create_encoder(replace(config, options=options), towers=towers)


def clips(batch: int = 2, segments: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    sound = torch.randn(batch, segments, 64, 64, generator=generator)
    return sound, torch.randn(batch, segments, 3, 32, 32, generator=generator)


def open_gates(encoder: DualEncoder) -> DualEncoder:
    with torch.no_grad():
        for name, weight in encoder.fusion.named_parameters():
            if "gate" in name:
                weight.fill_(0.5)
    return encoder


def plain(tower: Any, pictures: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        whole: torch.Tensor = tower(pictures)
    return whole


@pytest.mark.parametrize("preset", ["paper", "official_ave"])
def test_closed_gates_leave_both_streams_exactly_the_frozen_towers(preset: str) -> None:
    encoder = encoder_of(preset).train()
    sound, frames = clips()
    encoded = encoder(sound, frames)
    pictures = sound.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)
    assert torch.equal(encoded.video, plain(encoder.video_tower, frames.flatten(0, 1)))
    # official_ave has taken the norm of the sound's tower away, from this walk too.
    assert torch.equal(encoded.audio, plain(encoder.audio_tower, pictures))
    assert isinstance(encoder.audio_tower.model.norm, nn.LayerNorm) == (preset == "paper")
    assert isinstance(encoder.video_tower.model.norm, nn.LayerNorm)


def test_a_shared_tower_keeps_its_norm() -> None:
    tower = create_tower("nano", pretrained=False, depth=1)
    config = EncoderConfig(tower="nano", pretrained=False, fusion="dg_sct", preset="official_ave")
    create_encoder(config, towers=(tower, tower))
    assert isinstance(tower.model.norm, nn.LayerNorm)


def test_towers_pair_stage_by_stage_as_the_authors_do() -> None:
    with torch.device("meta"):
        audio = create_tower("htsat", pretrained=False, device="meta")
        video = create_tower("swinv2_large_window12_192.ms_in22k", pretrained=False, device="meta")
    plan = pair_towers(audio, video)
    partners = {j: i for i, j in plan if i is not None}
    assert [j for _, j in plan] == list(range(24))
    assert {j: i for j, i in partners.items() if j < 4 or j > 21} == {0: 0, 1: 1, 2: 2, 3: 3, 22: 10, 23: 11}
    assert {j: i for j, i in partners.items() if 4 <= j <= 21} == {4 + 3 * k + 2: 4 + k for k in range(6)}


def test_weights_are_those_of_the_authors_code() -> None:
    encoder = create_encoder(
        EncoderConfig(
            tower="swinv2_large_window12_192.ms_in22k", audio_tower="htsat", pretrained=False, fusion="dg_sct"
        ),
        spectrogram_shape=(1001, 64),
        device="meta",
    )
    counts = {"prompt.count": 0, "prompt.width": 0, "guidance": 0, "lavish": 0}
    for name, weight in encoder.fusion.named_parameters():
        counts[next(part for part in counts if f".{part}." in name)] += weight.numel()
    # Millions as the reference states them; the authors' 48 scalars gate_tk, which nothing uses, are not here.
    assert {part: round(count / 1e6, 2) for part, count in counts.items()} == {
        "prompt.count": 81.16, "prompt.width": 17.28, "guidance": 86.39, "lavish": 3.71,
    }  # fmt: skip
    assert sum(counts.values()) == 188_538_816
    assert round((sum(counts.values()) + 48 + 12_621_783) / 461.3e6 * 100, 1) == 43.6


class Recorder:
    """A block that says when it is asked what."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.append(f"{self.name} attends")
        return 2 * x

    def feed(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.append(f"{self.name} feeds")
        return 3 * x


def test_a_layer_is_the_authors_order_of_steps() -> None:
    torch.manual_seed(0)
    sizes = BlockSizes(16, 32, audio_length=9, video_length=4)
    layer = DgSctLayer(sizes, DgSctConfig(latents=3)).eval()
    for name, weight in layer.named_parameters():
        if "gate" in name:
            nn.init.constant_(weight, 0.5)
    a, v = torch.randn(2, 9, 16), torch.randn(2, 4, 32)
    notes, calls = Notes(segments=1), []
    with torch.no_grad():
        audio, video = layer(a, v, Recorder("audio", calls), Recorder("video", calls), notes)

        to_a, to_v = layer.audio_first(a, v)[0], layer.video_first(v, a)[0]
        v1 = v + 2 * v + to_v
        a1 = 4 * (3 * a) + to_a
        (to_a, map_a), (to_v, map_v) = layer.audio_second(a1, v1), layer.video_second(v1, a1)
        assert sorted(calls) == ["audio attends", "audio feeds", "video attends", "video feeds"]
        torch.testing.assert_close(video, v1 + 3 * v1 + to_v)
        torch.testing.assert_close(audio, a1 + to_a)
        assert to_a.abs().sum() > 0
        torch.testing.assert_close(notes.records[AUDIO_MAP], [map_a])
        torch.testing.assert_close(notes.records[VIDEO_MAP], [map_v])
        pooled = sum_up(video, VIDEO_MAP, notes)
        expected = torch.stack(
            [sum(w * x for w, x in zip(map_v[b], video[b], strict=True)) for b in range(2)]
        )
        torch.testing.assert_close(pooled, expected)


@settings(max_examples=12)
@given(
    lengths=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    dims=st.sampled_from([(8, 16), (16, 8), (8, 8)]),
    weights=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    latents=st.integers(0, 3),
)
def test_an_adapter_is_its_equations_token_by_token(
    lengths: tuple[int, int], dims: tuple[int, int], weights: tuple[float, float], latents: int
) -> None:
    torch.manual_seed(0)
    (alpha, beta), (dim, other_dim) = weights, dims
    config = DgSctConfig(latents=latents, channel_weight=alpha, spatial_weight=beta, reduction=4)
    adapter = DgSctAdapter(dim, other_dim, lengths, config, hears_other=True, gate=True).double().eval()
    nn.init.constant_(adapter.lavish.fusion_gate, 0.4)
    nn.init.constant_(adapter.lavish.bottleneck.gate, 0.7)
    x, other = torch.randn(2, lengths[0], dim).double(), torch.randn(2, lengths[1], other_dim).double()
    with torch.no_grad():
        out, seen = adapter(x, other)
        order = torch.tensor([1, 0])
        torch.testing.assert_close(adapter(x[order], other[order])[0], out[order])
        for b in range(2):
            g, p = adapter.guidance, adapter.prompt
            counted = torch.stack(
                [sum(w * y for w, y in zip(row, other[b], strict=True)) + bias
                 for row, bias in zip(p.count.weight, p.count.bias, strict=True)]
            )  # fmt: skip
            prompt = p.width(counted)
            torch.testing.assert_close(p(other[b : b + 1])[0], prompt)
            u = sum(prompt) / len(prompt)
            tokens = adapter.lavish.fuse(x[b : b + 1], prompt[None])[0]
            q = sum(torch.relu(g.channel_prompt(u)) * torch.relu(g.channel_own(t)) for t in tokens) / len(
                tokens
            )
            c = torch.sigmoid(g.channel_up(torch.relu(g.channel_down(q))))
            s = torch.stack(
                [g.spatial_score(torch.relu(g.spatial_own(t * (1 + c))) * torch.relu(g.spatial_prompt(u)))[0]
                 for t in tokens]
            )  # fmt: skip
            guided = torch.stack(
                [
                    t * (alpha * c + beta * torch.sigmoid(k) + 1 - alpha)
                    for t, k in zip(tokens, s, strict=True)
                ]
            )
            torch.testing.assert_close(out[b], adapter.lavish.bottleneck(guided[None])[0])
            torch.testing.assert_close(seen[b], torch.tanh(s).exp() / torch.tanh(s).exp().sum())


@pytest.mark.parametrize("dims", [(8, 16), (16, 8)])
def test_prompts_keep_no_matrix_of_length_by_other_length_for_each_frame(dims: tuple[int, int]) -> None:
    prompt, frames, length, other = Prompt(*dims, 256, 400, "trained"), 6, 256, 400
    tokens = torch.randn(frames, other, dims[1], requires_grad=True)
    largest = [0]

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest[0] = max(largest[0], out.numel())
            return out

    with saved_bytes(prompt) as kept, Watch():
        prompt(tokens).sum().backward()
    assert kept[0] < length * other * 4
    assert length * other <= largest[0] <= length * other + 1, "the weight's own gradient is the largest"


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("direction", ["both", "audio_to_visual", "visual_to_audio", "none"])
def test_gradients_reach_every_trainable_weight_and_no_frozen_one(preset: str, direction: str) -> None:
    encoder = open_gates(encoder_of(preset, direction=direction)).train()
    encoded = encoder(*clips())
    heard = {
        AUDIO_MAP: direction in ("both", "visual_to_audio"),
        VIDEO_MAP: direction in ("both", "audio_to_visual"),
    }
    loss = torch.zeros(())
    for name, tokens in ((AUDIO_MAP, encoded.audio), (VIDEO_MAP, encoded.video)):
        pooled = sum_up(tokens, name, encoded.notes)
        assert (pooled is not None) == heard[name]
        loss = loss + (tokens.mean(1) if pooled is None else pooled).square().sum()
    loss.backward()
    for name, weight in encoder.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name
        else:
            assert weight.grad is None, name
    assert not any(weight.requires_grad for weight in encoder.video_tower.parameters())


def test_clips_in_another_order_or_alone_give_the_same() -> None:
    encoder = open_gates(encoder_of()).eval()
    sound, frames = clips(3)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        whole, turned = encoder(sound, frames), encoder(sound[order], frames[order])
        alone = encoder(sound[1:2], frames[1:2])
    close = {"atol": 1e-5, "rtol": 1e-4}
    for name in ("audio_pooled", "video_pooled"):
        torch.testing.assert_close(getattr(turned, name), getattr(whole, name)[order], **close)
        torch.testing.assert_close(getattr(alone, name), getattr(whole, name)[1:2], **close)
    for name in (AUDIO_MAP, VIDEO_MAP):
        last = [run.notes.records[name][-1] for run in (whole, turned, alone)]
        assert torch.allclose(last[0].sum(1), torch.ones(9))
        torch.testing.assert_close(last[1].view(3, 3, -1), last[0].view(3, 3, -1)[order], **close)
        torch.testing.assert_close(last[2], last[0][3:6], **close)


def test_recomputing_steps_changes_nothing() -> None:
    results = []
    for recompute in (False, True):
        encoder = open_gates(encoder_of()).train()
        encoder.recompute = recompute
        encoded = encoder(*clips())
        pooled = sum_up(encoded.video, VIDEO_MAP, encoded.notes)
        assert pooled is not None
        (pooled.square().sum() + encoded.audio.square().sum()).backward()
        results.append({name: weight.grad for name, weight in encoder.fusion.named_parameters()})
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, msg=name)


def test_one_graph_without_breaks() -> None:
    encoder = open_gates(encoder_of()).eval()
    explained = torch._dynamo.explain(lambda s, f: encoder(s, f).video_pooled)(*clips(1, 1))
    assert explained.graph_count == 1
    assert explained.graph_break_count == 0


def test_other_lengths_than_those_built_for_are_refused_in_one_line() -> None:
    layer = DgSctLayer(BlockSizes(8, 8, audio_length=9, video_length=4), DgSctConfig(reduction=4))
    with pytest.raises(
        OptionError, match="built for 9 tokens of sound and 4 of a frame and got 8 and 4"
    ) as caught:
        layer(torch.zeros(1, 8, 8), torch.zeros(1, 4, 8), Recorder("", []), Recorder("", []), Notes())
    assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match="build it with audio_length and video_length of each pair"):
        build_fusion("dg_sct", [BlockSizes(8, 8)])
    with pytest.raises(OptionError, match=r"no square grids; set encoder\.options\.token_count to trained"):
        build_fusion("dg_sct", [BlockSizes(32, 32, audio_length=9, video_length=5)], "official_avs")
    notes = Notes(records={VIDEO_MAP: [torch.ones(2, 16) / 16]})
    with pytest.raises(OptionError, match="weighs 16 tokens in its last layer, but the tower ends with 4"):
        sum_up(torch.zeros(2, 4, 8), VIDEO_MAP, notes)


def test_bicubic_prompts_resize_the_grid() -> None:
    prompt = Prompt(3, 3, 16, 64, "bicubic")
    nn.init.eye_(prompt.width.weight)
    nn.init.zeros_(prompt.width.bias)
    ramp = torch.arange(8.0)[:, None].expand(8, 8).reshape(1, 64, 1).expand(1, 64, 3)
    # Half the side: cell k lies between cells 2k and 2k + 1; at the rims the ramp ends.
    resized = prompt(ramp).view(4, 4, 3)
    torch.testing.assert_close(resized[1:3, 0, 0], torch.tensor([2.5, 4.5]))
    assert torch.equal(resized, resized[:, :1, :1].expand(4, 4, 3))
