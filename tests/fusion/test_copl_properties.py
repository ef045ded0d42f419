"""CoPL as a method: whose prompts go where, what reaches what, its switches."""

import functools
from typing import Any

import pytest
import torch
from copl_cases import SEGMENTS, SMALL, TOWERS, clips, encoder_of, tower_of
from torch import Tensor

from avtune.config import EncoderConfig
from avtune.encoder import create_encoder
from avtune.fusion import BlockSizes, Notes, OptionError, build_fusion
from avtune.fusion.copl import PRESETS, CoplConfig, CoplLayer, SpecificPrompts

OPTIONS: list[dict[str, Any]] = [
    {},
    {"frame_prompts": "all", "similarity": "entry"},
    {"frame_prompts": "none", "bank": "vectors", "summary_tokens": "all"},
    {"global_prompts": 0, "bank": "none", "mapping_sharing": "separate"},
    {"global_prompts": 0, "frame_prompts": "none", "interaction_blocks": 1, "summary_span": "clip"},
    {"interaction_prompts": 0, "consistency": 0.0},
    {"bank_sharing": "projected", "consistency_width": "projected", "consistency_over": "mean"},
    {"bank_sharing": "separate", "similarity_scale": "root_width", "consistency_reduction": "sum"},
]


@pytest.mark.parametrize("towers", list(TOWERS))
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "+".join(map(str, o.values())) or "paper")
def test_gradients_reach_every_trainable_weight_and_no_frozen_one(
    towers: str, options: dict[str, Any]
) -> None:
    # The last frame-level prompt of a shorter batch would get none: all segments are there.
    encoder = encoder_of(towers, **options).train()
    encoded = encoder(*clips(encoder, batch=1))
    losses = encoder.fusion.losses(encoded.notes, torch.ones(SEGMENTS, dtype=torch.bool))
    assert set(losses) == (set() if options.get("consistency") == 0 else {"consistency"})
    (
        encoded.audio_pooled.square().sum() + encoded.video_pooled.square().sum() + sum(losses.values())
    ).backward()
    trained = 0
    for name, weight in encoder.named_parameters():
        if weight.requires_grad:
            assert name.startswith("fusion."), name
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name
            trained += weight.numel()
        else:
            assert weight.grad is None, name
    assert trained > 0


@pytest.mark.parametrize("towers", list(TOWERS))
@pytest.mark.parametrize(
    "options", [{}, {"summary_span": "clip", "frame_prompts": "all"}], ids=["paper", "clip"]
)
def test_clips_never_mix_and_their_order_never_matters(towers: str, options: dict[str, Any]) -> None:
    encoder = encoder_of(towers, **options)
    sound, frames = clips(encoder, batch=3)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        whole = encoder(sound, frames)
        permuted = encoder(sound[order], frames[order])
        alone = encoder(sound[1:2], frames[1:2])
        sound[2], frames[2] = -sound[2], 2 * frames[2]
        disturbed = encoder(sound, frames)
    close = functools.partial(torch.testing.assert_close, atol=1e-5, rtol=1e-4)
    for stream in ("audio_pooled", "video_pooled"):
        of_all = getattr(whole, stream)
        close(getattr(permuted, stream), of_all[order])
        close(getattr(alone, stream), of_all[1:2])
        assert torch.equal(getattr(disturbed, stream)[:2], of_all[:2])
        assert not torch.allclose(getattr(disturbed, stream)[2], of_all[2], atol=1e-4)


@pytest.mark.parametrize("towers", list(TOWERS))
@pytest.mark.parametrize("interaction", [2, 0])
def test_streams_hear_each_other_through_interaction_prompts_alone(towers: str, interaction: int) -> None:
    encoder = encoder_of(towers, interaction_prompts=interaction)
    sound, frames = clips(encoder, batch=1)
    sound.requires_grad_()
    frames.requires_grad_()
    encoder(sound, frames).video_pooled.square().sum().backward()
    assert frames.grad is not None
    assert (sound.grad is not None and bool(sound.grad.abs().sum() > 0)) == (interaction > 0)
    sound.grad = frames.grad = None
    encoder(sound, frames).audio_pooled.square().sum().backward()
    assert sound.grad is not None
    assert (frames.grad is not None and bool(frames.grad.abs().sum() > 0)) == (interaction > 0)


def test_each_frame_gets_the_video_level_prompts_and_its_own_frame_level_prompt() -> None:
    config = CoplConfig(global_prompts=2)
    prompts = SpecificPrompts(5, 4, config)
    assert prompts.whole_clip is not None
    assert prompts.per_frame is not None
    for segments in (4, 3, 1):
        joined = prompts(2, segments)
        assert joined.shape == (2 * segments, 3, 5)
        for clip in range(2):
            for step in range(segments):
                frame = joined[clip * segments + step]
                assert torch.equal(frame[:2], prompts.whole_clip)
                assert torch.equal(frame[2], prompts.per_frame[step])


def test_with_all_frame_level_prompts_every_frame_gets_every_one() -> None:
    prompts = SpecificPrompts(5, 4, CoplConfig(global_prompts=0, frame_prompts="all"))
    assert prompts.per_frame is not None
    joined = prompts(2, 3)
    assert torch.equal(joined, prompts.per_frame[:3].expand(6, -1, -1))


def test_a_shorter_clip_takes_the_first_frame_level_prompts_and_a_longer_one_is_refused() -> None:
    encoder = encoder_of(interaction_prompts=0)
    sound, frames = clips(encoder)
    with torch.no_grad():
        whole, cropped = encoder(sound, frames), encoder(sound[:, :2], frames[:, :2])
        torch.testing.assert_close(cropped.video_pooled, whole.video_pooled[:, :2], atol=1e-5, rtol=1e-4)
        with pytest.raises(
            OptionError, match=r"prompts for 3 segments, a clip has 4; set input\.segments=4"
        ) as e:
            encoder(*clips(encoder, segments=4))
        assert "\n" not in str(e.value)
        without = encoder_of(frame_prompts="none")
        assert without(*clips(without, segments=4)).audio_pooled.shape[1] == 4


@pytest.mark.parametrize(
    ("towers", "options", "interacting"),
    [
        ("swin", {}, [False] * 6 + [True] * 2),
        ("unshared", {}, [False, True, True]),
        ("vit", {}, [True, True]),
        ("vit", {"interaction_blocks": 1}, [False, True]),
        ("vit", {"interaction_blocks": 0}, [False, False]),
        ("swin", {"interaction_blocks": 4}, [False] * 4 + [True] * 4),
        ("swin", {"interaction_prompts": 0}, [False] * 8),
    ],
)
def test_the_last_blocks_get_interaction_prompts(
    towers: str, options: dict[str, Any], interacting: list[bool]
) -> None:
    layers = encoder_of(towers, **options).fusion.layers
    assert [layer.coupling is not None for layer in layers] == interacting


def test_towers_without_stages_interact_in_four_blocks() -> None:
    fusion = build_fusion("copl", [BlockSizes(8, 8)] * 6, options=SMALL)
    assert [layer.coupling is not None for layer in fusion.layers] == [False] * 2 + [True] * 4


def test_blocks_without_a_partner_run_without_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of("unshared")
    seen: dict[str, list[int | None]] = {"audio": [], "video": []}
    for name, tower in (("audio", encoder.audio_tower), ("video", encoder.video_tower)):
        for block in tower.blocks:

            def attend(
                x: Tensor,
                positions: Any = None,
                *,
                extra: Any = None,
                name: Any = name,
                right: Any = block.attend,
            ) -> Tensor:
                seen[name].append(None if extra is None else extra.shape[1])
                return right(x, positions, extra=extra)  # type: ignore[no-any-return]

            monkeypatch.setattr(block, "attend", attend)
    with torch.no_grad():
        encoder(*clips(encoder, 1))
    specific, all_of_them = (
        SMALL["global_prompts"] + 1,
        SMALL["global_prompts"] + 1 + 2 * SMALL["interaction_prompts"],
    )
    assert seen["audio"] == [specific, all_of_them, all_of_them]
    partners = [j for i, j in encoder.plan if i is not None]
    assert len(partners) == 3
    expected: list[int | None] = [None] * 8
    for place, count in zip(partners, seen["audio"], strict=True):
        assert place is not None
        expected[place] = count
    assert seen["video"] == expected


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"])
def test_prompts_as_keys_and_values_equal_carried_prompts_through_a_whole_tower(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = tower_of(name, 3)
    encoder = create_encoder(
        EncoderConfig(pretrained=False, fusion="copl", options=SMALL),
        towers=(tower, tower),
        segments=SEGMENTS,
    ).eval()

    def carried(self: CoplLayer, x: Tensor, block: Any, prompts: Tensor | None) -> Tensor:
        assert prompts is not None
        joined = torch.cat([x, prompts], dim=1)
        joined = joined + block.attend(joined)
        return (joined + block.feed(joined))[:, : x.shape[1]]

    with torch.no_grad():
        ours = encoder(*clips(encoder))
        monkeypatch.setattr(CoplLayer, "transform", carried)
        theirs = encoder(*clips(encoder))
    torch.testing.assert_close(ours.audio, theirs.audio, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(ours.video, theirs.video, atol=2e-5, rtol=1e-4)


def test_kept_outputs_pass_the_further_blocks_and_are_cut_off_at_the_end() -> None:
    kept, dropped = encoder_of(prompt_outputs="kept"), encoder_of()
    kept.fusion.load_state_dict(dropped.fusion.state_dict())
    lengths = []
    with torch.no_grad():
        sound, frames = clips(kept)
        x, positions = kept.video_tower.embed(frames.flatten(0, 1))
        y, _ = kept.audio_tower.embed(sound.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1))
        length = x.shape[1]
        for layer, block in zip(kept.fusion.layers, kept.video_tower.blocks, strict=True):
            assert isinstance(layer, CoplLayer)
            to_audio, to_video = layer.collaborate(y, x, SEGMENTS)
            assert to_audio is not None
            assert to_video is not None
            x = block.plain(torch.cat([x, to_video], 1), positions)
            y = block.plain(torch.cat([y, to_audio], 1), positions)
            lengths.append(x.shape[1])
        encoded = kept(sound, frames)
        torch.testing.assert_close(
            encoded.video, kept.video_tower.finish(x)[:, :length], atol=1e-5, rtol=1e-4
        )
        assert lengths == [length + 8, length + 16]
        assert not torch.allclose(encoded.video, dropped(sound, frames).video, atol=1e-4)
    with pytest.raises(OptionError, match=r"cannot be 'kept' with swinv2_tiny_window8_256.*; use 'dropped'"):
        encoder_of("swin", prompt_outputs="kept")


def test_the_summary_reads_patches_and_not_the_class_token() -> None:
    def depends(**options: Any) -> bool:
        tower = tower_of("vit_tiny_patch16_224")
        config = EncoderConfig(pretrained=False, fusion="copl", options={**SMALL, **options})
        layer = create_encoder(config, towers=(tower, tower), segments=SEGMENTS).fusion.layers[-1]
        assert isinstance(layer, CoplLayer)
        tokens = torch.randn(SEGMENTS, 17, 48, requires_grad=True)
        to_audio, _ = layer.collaborate(tokens, tokens.detach(), SEGMENTS)
        assert to_audio is not None
        to_audio.square().sum().backward()
        assert tokens.grad is not None
        assert bool(tokens.grad[:, 1:].abs().sum() > 0)
        return bool(tokens.grad[:, 0].abs().sum() > 0)

    assert not depends()
    assert depends(summary_tokens="all")


@pytest.mark.parametrize("towers", ["vit", "unshared"])
def test_one_graph_without_breaks(towers: str) -> None:
    torch._dynamo.reset()
    encoder = encoder_of(towers)
    explained = torch._dynamo.explain(lambda s, f: encoder(s, f).video_pooled)(*clips(encoder, 1))
    assert explained.graph_count == 1
    assert explained.graph_break_count == 0


def test_recomputed_steps_give_the_same_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        encoder = encoder_of().train()
        encoder.recompute = recompute
        encoded = encoder(*clips(encoder, 1))
        loss = encoder.fusion.losses(encoded.notes, torch.ones(3, dtype=torch.bool))["consistency"]
        (encoded.video_pooled.square().sum() + loss).backward()
        gradients.append([weight.grad for weight in encoder.fusion.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_state_dict_names_each_weight_once() -> None:
    state = encoder_of("swin").fusion.state_dict()
    stored = [tensor.data_ptr() for tensor in state.values()]
    assert len(stored) == len(set(stored))
    assert not any("tower" in name for name in state)


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("global_prompts", -1, 0), ("bank_size", 0, 1), ("latents", 0, 1), ("interaction_blocks", -2, 0),
     ("consistency", -0.5, 0), ("mapping_width", 0, 1), ("init_patch", 0, 1), ("interaction_prompts", -1, 0)],
)  # fmt: skip
def test_numbers_out_of_range_name_the_mend(option: str, value: float, least: int) -> None:
    with pytest.raises(OptionError, match=f"'{option}' cannot be {value}; set it to {least} or more"):
        encoder_of(**{option: value})


def test_presets_have_the_lengths_of_the_paper() -> None:
    lengths = {name: (c.global_prompts, c.interaction_prompts) for name, c in PRESETS.items()}
    assert lengths == {"paper": (20, 20), "paper_avs": (30, 30), "paper_avqa": (30, 30)}
    assert {config.bank_size for config in PRESETS.values()} == {10}
    assert {config.consistency for config in PRESETS.values()} == {0.005}


def test_a_layer_can_be_called_without_towers() -> None:
    fusion = build_fusion("copl", [BlockSizes(8, 8, segments=2)], options=SMALL)
    layer = fusion.layers[0]
    assert isinstance(layer, CoplLayer)
    to_audio, to_video = layer.collaborate(torch.randn(4, 5, 8), torch.randn(4, 6, 8), Notes(2).segments)
    assert to_audio is not None
    assert to_video is not None
    assert to_audio.shape == to_video.shape == (4, 3 + 1 + 4, 8)
