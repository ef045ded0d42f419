"""MBT: against a plain implementation of its rules, and as a method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.config import EncoderConfig, HeadConfig, RunConfig
from avtune.counting import count_parameters
from avtune.encoder import DualEncoder, create_encoder
from avtune.errors import AvtuneError
from avtune.fusion import OptionError
from avtune.fusion.mbt import PRESETS
from avtune.heads.mbt import MbtHead, MbtHeadSettings, mbt_loss
from avtune.model import AudioVisualModel
from random_clips import clips

NANO, VIT = "nano", "vit_tiny_patch16_224"


def encoder_of(depth: int = 3, tower: str = NANO, *, separate: bool = True, **options: Any) -> DualEncoder:
    preset = options.pop("preset", None)
    torch.manual_seed(0)
    return create_encoder(
        EncoderConfig(
            tower=tower, separate=separate, pretrained=False, fusion="mbt", preset=preset, options=options
        ),
        depth=depth,
    )  # fmt: skip


def plain_mbt(encoder: DualEncoder, sound: Tensor, frames: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """The authors' rules over timm's own blocks: both streams read the same bottlenecks, the next are their mean."""
    bottlenecks = encoder.fusion.layers[first].bottlenecks
    x = {"audio": sound.flatten(0, 1)[:, None].expand(-1, 3, -1, -1), "video": frames.flatten(0, 1)}
    towers = {"audio": encoder.audio_tower, "video": encoder.video_tower}
    x = {name: towers[name].embed(pictures)[0] for name, pictures in x.items()}
    z = bottlenecks.expand(len(x["audio"]), -1, -1)
    for number in range(len(encoder.plan)):
        rewritten = []
        for name, tower in towers.items():
            block = tower.blocks[number].block
            if number < first:
                x[name] = block(x[name])
                continue
            length = x[name].shape[1]
            passed = block(torch.cat([x[name], z], dim=1))
            x[name] = passed[:, :length]
            rewritten.append(passed[:, length:])
        if rewritten:
            z = torch.stack(rewritten, dim=-1).mean(-1)
    return towers["audio"].finish(x["audio"]), towers["video"].finish(x["video"])


@pytest.mark.parametrize("tower", [NANO, VIT])
@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_walk_is_that_of_a_plain_implementation(tower: str, separate: bool, first: int) -> None:
    encoder = encoder_of(tower=tower, separate=separate, fusion_from=first, init="unit_normal").eval()
    sound, frames = clips(encoder, 1, 2)
    with torch.no_grad():
        encoded = encoder(sound, frames)
        audio, video = plain_mbt(encoder, sound, frames, first)
    torch.testing.assert_close(encoded.audio, audio, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoded.video, video, atol=1e-5, rtol=1e-5)
    assert encoder.shared != separate


def heard(encoder: DualEncoder) -> float:
    """How far changing the sound moves the stream of the frames."""
    encoder.eval()
    sound, frames = clips(encoder)
    with torch.no_grad():
        difference = encoder(sound, frames).video - encoder(sound.flip(0), frames).video
    return float(difference.abs().max())


def test_the_frames_hear_the_sound_two_layers_after_the_bottlenecks_enter() -> None:
    assert heard(encoder_of(fusion_from=0)) > 1e-6
    assert heard(encoder_of(fusion_from=1)) > 1e-6
    # Read, rewritten and averaged in the last layer, but read by no layer after it.
    assert heard(encoder_of(fusion_from=2)) == 0


def test_the_imitation_and_switched_off_bottlenecks_hear_nothing() -> None:
    assert heard(encoder_of(preset="imitation")) == 0
    off = encoder_of(fusion_from=0, bottlenecks_in_testing=False)
    assert heard(off) == 0
    sound, frames = clips(off)
    with torch.no_grad():
        assert torch.equal(off(sound, frames).video, off.video_tower(frames.flatten(0, 1)))
        assert off.train()(sound, frames).video.shape == off.video_tower(frames.flatten(0, 1)).shape


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("separate", [True, False])
def test_gradients_reach_every_weight_or_the_bottlenecks_alone(preset: str, separate: bool) -> None:
    encoder = encoder_of(preset=preset, separate=separate).train()
    encoded = encoder(*clips(encoder))
    (encoded.audio_pooled.square().sum() + encoded.video_pooled.square().sum()).backward()
    for name, weight in encoder.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name
        else:
            assert weight.grad is None, name
    frozen = [name for name, weight in encoder.named_parameters() if not weight.requires_grad]
    assert bool(frozen) == (preset == "frozen")
    if preset == "frozen":
        assert [n for n, w in encoder.named_parameters() if w.requires_grad] == [
            "fusion.layers.2.bottlenecks"
        ]


def test_the_order_of_clips_never_matters() -> None:
    encoder = encoder_of(fusion_from=0, init="unit_normal").eval()
    sound, frames = clips(encoder, 3, 2)
    with torch.no_grad():
        whole = encoder(sound, frames).video_pooled
        order = torch.tensor([2, 0, 1])
        torch.testing.assert_close(
            encoder(sound[order], frames[order]).video_pooled, whole[order], atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(
            encoder(sound[1:2], frames[1:2]).video_pooled, whole[1:2], atol=1e-5, rtol=1e-5
        )


def test_one_graph_without_breaks() -> None:
    encoder = encoder_of().eval()
    explained = torch._dynamo.explain(lambda s, f: encoder(s, f).video_pooled)(*clips(encoder, 1, 1))
    assert explained.graph_count == 1
    assert explained.graph_break_count == 0


def test_stochastic_depth_leaves_whole_branches_out_and_scales_nothing_up() -> None:
    encoder = encoder_of(1, stochastic_depth=0.0)
    encoder.fusion.layers[0].drop = 0.5
    encoder.fusion.layers[0].config = PRESETS["paper"]
    layer: Any = encoder.fusion.layers[0].train()
    x, branch = torch.zeros(400, 3, 2), torch.ones(400, 3, 2)
    kept = layer._kept(x, branch)
    rows = kept.flatten(1).unique(dim=1)
    assert set(rows.flatten().tolist()) == {0.0, 1.0}
    assert 0.4 < kept.mean() < 0.6
    assert all(len(row.unique()) == 1 for row in kept)
    assert torch.equal(layer.eval()._kept(x, branch), branch)


def test_stochastic_depth_rises_to_its_largest_at_the_last_layer() -> None:
    encoder = encoder_of(3, stochastic_depth=0.3)
    assert [layer.drop for layer in encoder.fusion.layers] == pytest.approx([0.0, 0.15, 0.3])
    sound, frames = clips(encoder, 2, 3)
    encoder.eval()
    assert torch.equal(encoder(sound, frames).video, encoder(sound, frames).video)
    encoder.train()
    assert not torch.equal(encoder(sound, frames).video, encoder(sound, frames).video)


def test_bottlenecks_start_from_the_corners_of_the_position_grid() -> None:
    encoder = encoder_of(1, VIT, init="positions")
    grid = encoder.video_tower.model.pos_embed[0, 1:].view(14, 14, -1)
    corners = torch.stack([grid[0, 0], grid[0, 13], grid[13, 0], grid[13, 13]])
    torch.testing.assert_close(encoder.fusion.layers[0].bottlenecks, corners, atol=1e-6, rtol=1e-5)


def test_two_thirds_of_the_layers_come_before_the_bottlenecks() -> None:
    for tower, first in (("vit_base_patch16_224", 8), ("vit_large_patch16_224", 16)):
        encoder = create_encoder(EncoderConfig(tower=tower, pretrained=False, fusion="mbt"), device="meta")
        assert encoder.fusion.first == first


# Published by MA-AVT (Table 1), the towers' unused 21,843-way heads counted, head 1536 -> 768 -> 28.
def test_counts_are_those_of_the_published_table() -> None:
    for tower, audio, hidden, published in (("vit_base_patch16_224.augreg_in21k", None, 768, 206.4),):
        config = RunConfig(
            encoder=EncoderConfig(
                tower=tower, audio_tower=audio, separate=True, pretrained=False, fusion="mbt"
            ),
            head=HeadConfig(hidden=hidden),
        )
        model = AudioVisualModel(config, tuple(f"label {k}" for k in range(27)), device="meta")
        counted = count_parameters(model.network)
        assert counted.frozen == 0
        assert round(counted.total_published / 1e6, 1) == published
        assert (
            counted.trainable == counted.total == 2 * 85_798_656 + 4 * 768 + 1536 * 768 + 768 + 768 * 28 + 28
        )


def test_wrong_settings_are_refused_in_one_line() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"fusion_from": 3}, r"'fusion_from' is 3; the towers have layers 0 to 2"),
        ({"bottlenecks": 0}, r"'bottlenecks' has to be at least 1"),
        ({"stochastic_depth": 1.0}, r"'stochastic_depth' is 1\.0; it has to be in \[0, 1\)"),
        ({"tower": "swinv2_tiny_window8_256"}, "need one width, not"),
        ({"bottlenecks": 5, "init": "positions"}, "cannot lay 5 bottlenecks out as a grid of 2 rows"),
        ({"tower": "vit_small_patch16_dinov3", "init": "positions"}, "has no position table"),
    ]
    for options, message in cases:
        with pytest.raises(OptionError, match=message) as caught:
            encoder_of(**options)
        assert "\n" not in str(caught.value)


def test_the_head_reads_the_mean_of_all_tokens_or_each_stream_for_itself() -> None:
    encoder = encoder_of().eval()
    encoded = encoder(*clips(encoder))
    target = torch.tensor([[0, 1, 4], [2, 2, 3]])
    valid = torch.tensor([[True, True, False], [True, True, True]])
    for read in ("mean", "class_token"):
        head = MbtHead(128, 128, 5, MbtHeadSettings(read=read))  # type: ignore[arg-type]
        assert not head(encoded).any()
        nn.init.normal_(head.classes.weight)
        logits = head(encoded)
        if read == "mean":
            every = torch.cat([encoded.video, encoded.audio], 1).mean(1).view(2, 3, -1)
            expected = head.classes(every)
            loss = F.cross_entropy(expected[valid], target[valid], reduction="sum")
        else:
            own = head.classes(encoded.audio_pooled), head.classes(encoded.video_pooled)
            expected = (own[0] + own[1]) / 2
            loss = sum(F.cross_entropy(part[valid], target[valid], reduction="sum") for part in own) / 2
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        config = HeadConfig(name="mbt", preset=read)
        torch.testing.assert_close(mbt_loss(logits, encoded.notes, target, valid, config), loss)
    with pytest.raises(AvtuneError, match="they have 64 and 128 channels"):
        MbtHead(64, 128, 5, MbtHeadSettings())


def test_a_saved_run_holds_the_trained_towers(tmp_path: Any) -> None:
    import avtune

    config = RunConfig(
        encoder=EncoderConfig(tower=NANO, separate=True, fusion="mbt"), head=HeadConfig(name="mbt")
    )
    model = AudioVisualModel(config, ("dog", "horn"), depth=None)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)
    model.save(tmp_path)
    loaded = avtune.load(tmp_path)
    for name, value in model.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value), name
