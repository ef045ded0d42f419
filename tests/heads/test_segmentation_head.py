"""The segmentation head: necks, the sound's way to the mask, padding, the matching loss, the published weights."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from encoded_streams import clips_of, streams

from avtune.backbones import create_tower
from avtune.config import EncoderConfig, HeadConfig, InputConfig, RunConfig
from avtune.counting import count_parameters
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.heads.mask_neck import GridNeck, StageNeck
from avtune.heads.segmentation import (
    PIXELS,
    PRESETS,
    SOUNDS,
    MaskHead,
    SegmentationSettings,
    build_mask_head,
    matching_divergence,
)
from avtune.heads.tpavi import Tpavi
from avtune.model import AudioVisualModel
from avtune.recipes import parse_config, recipe_path

SMALL = SegmentationSettings(size=32, channels=(4, 4, 6, 6), width=8, matching=1.0)


def head(outputs: int = 1, **changes: object) -> MaskHead:
    """A head with a neck for 3 x 3 tokens, whose TPAVI is open."""
    torch.manual_seed(0)
    settings = replace(SMALL, **changes)
    neck = GridNeck(20, 3, settings.channels, [8, 4, 2, 1])
    built = MaskHead(neck, 12, outputs, settings).eval()
    for hearing in built.decoder.hear.values():
        if isinstance(hearing, Tpavi):
            torch.nn.init.normal_(hearing.norm_out.weight)
    return built


def with_stages(encoded: Encoded) -> Encoded:
    return replace(encoded, video_stages=(encoded.video,))


def test_stages_pass_a_linear_layer_and_are_resampled_to_their_scales() -> None:
    torch.manual_seed(0)
    neck = StageNeck((6, 8), (3, 5), (4, 4))
    stages = [torch.randn(2, 16, 6), torch.randn(2, 4, 8)]
    fine, coarse = neck(stages)
    linear = stages[0] @ neck.project[0].weight.T + neck.project[0].bias
    torch.testing.assert_close(fine, linear.transpose(1, 2).reshape(2, 3, 4, 4))
    linear = stages[1] @ neck.project[1].weight.T + neck.project[1].bias
    pictures = linear.transpose(1, 2).reshape(2, 5, 2, 2)
    torch.testing.assert_close(coarse, F.interpolate(pictures, size=(4, 4), mode="bicubic"))


def test_tokens_of_one_grid_spell_the_cells_of_finer_scales_and_are_averaged_for_coarser_ones() -> None:
    torch.manual_seed(0)
    neck = GridNeck(6, 4, (3, 3, 3, 3), (16, 8, 4, 2))
    tokens = torch.randn(2, 16, 6)
    scales = neck([torch.randn(2, 16, 6), tokens])
    assert [scale.shape for scale in scales] == [(2, 3, side, side) for side in (16, 8, 4, 2)]
    grid = tokens.transpose(1, 2).reshape(2, 6, 4, 4)
    for scale, spell, factor in zip(scales[:3], neck.spell[:3], (4, 2, 1), strict=True):
        # Cell (i, j) of a token's own factor x factor cells is a linear map of that token.
        cells = torch.einsum("ncyx,cdij->ndyixj", grid, spell.weight).reshape(scale.shape)
        torch.testing.assert_close(scale, cells + spell.bias.view(-1, 1, 1))
        assert spell.kernel_size == (factor, factor)
    torch.testing.assert_close(
        scales[3], neck.spell[3](F.avg_pool2d(grid, 2)),
    )  # fmt: skip


def test_the_sound_reaches_the_mask_where_a_scale_hears_and_only_there() -> None:
    encoded = with_stages(streams())
    other = replace(encoded, audio_pooled=encoded.audio_pooled + 1)
    for scales in ((0,), (3,), (0, 1, 2, 3)):
        hearing = head(hearing_scales=scales)
        assert not torch.allclose(hearing(encoded), hearing(other), atol=1e-4), scales
    deaf = head(hearing_scales=(), matching=0.0)
    assert deaf.sound is None
    assert torch.equal(deaf(encoded), deaf(other))


def test_pixels_hear_the_whole_clip_or_their_own_second() -> None:
    encoded = with_stages(streams(valid=torch.tensor([[True] * 5, [True] * 5, [True] * 3 + [False] * 2])))
    sound = encoded.audio_pooled.clone()
    sound[:, 1] += 1
    other = replace(encoded, audio_pooled=sound)
    for hearing, changed in (("clip", [True] * 5), ("second", [False, True, False, False, False])):
        built = head(hearing=hearing)
        difference = (built(encoded) - built(other)).abs().amax(dim=(0, 2, 3, 4))
        assert (difference > 1e-4).tolist() == changed, hearing
        assert encoded.notes.records[SOUNDS][-1].shape == (3, 5, 8)
        assert encoded.notes.records[PIXELS][-1].shape == (3, 5, 8, 1, 1)


@pytest.mark.parametrize("prefix", [0, 2])
def test_prefix_tokens_are_no_pixels(prefix: int) -> None:
    encoded = with_stages(streams(prefix=prefix))
    logits = head()(encoded)
    assert logits.shape == (3, 5, 1, 32, 32)
    changed = encoded.video.clone()
    changed[:, :prefix] += 1
    assert torch.equal(head()(replace(encoded, video_stages=(changed,))), logits)


@pytest.mark.parametrize("hearing", ["clip", "second"])
def test_padding_and_other_clips_never_change_a_mask(hearing: str) -> None:
    valid = torch.ones(3, 5, dtype=torch.bool)
    valid[1, 3:] = False
    encoded = with_stages(streams(valid=valid))
    logits = head(hearing=hearing)(encoded)
    video = encoded.video.clone().view(3, 5, *encoded.video.shape[1:])
    video[1, 3:] = 7
    sound = encoded.audio_pooled.clone()
    sound[1, 3:] = -7
    padded = replace(encoded, video_stages=(video.flatten(0, 1),), audio_pooled=sound)
    torch.testing.assert_close(head(hearing=hearing)(padded)[valid], logits[valid], atol=1e-5, rtol=1e-5)
    order = torch.tensor([2, 1])
    some = with_stages(clips_of(encoded, order))
    torch.testing.assert_close(head(hearing=hearing)(some), logits[order], atol=1e-5, rtol=1e-5)
    # A clip without any second is answered too: nobody reads it, but nothing may turn into no number.
    none = replace(encoded, valid=torch.zeros(3, 5, dtype=torch.bool))
    assert head(hearing=hearing)(none).isfinite().all()


def test_the_notes_hold_what_the_matching_loss_compares_and_only_if_it_does() -> None:
    encoded = with_stages(streams())
    head(hearing_scales=(0, 2))(encoded)
    records = encoded.notes.records
    assert [x.shape for x in records[PIXELS]] == [(3, 5, 8, 8, 8), (3, 5, 8, 2, 2)]
    assert [x.shape for x in records[SOUNDS]] == [(3, 5, 8)] * 2
    silent = with_stages(streams())
    head(matching=0.0)(silent)
    assert not silent.notes.records


@pytest.mark.parametrize("outputs", [1, 3])
def test_matching_is_the_divergence_of_the_sound_from_the_selected_pixels(outputs: int) -> None:
    torch.manual_seed(1)
    logits = torch.randn(2, 3, outputs, 8, 8)
    pixels = [torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 4, 2, 2)]
    sounds = [torch.randn(2, 3, 4), torch.randn(2, 3, 4)]
    found = matching_divergence(logits, pixels, sounds)
    for b in range(2):
        for t in range(3):
            total = 0.0
            for places, sound in zip(pixels, sounds, strict=True):
                step = 8 // places.shape[-1]
                picture = logits[b, t, 0] if outputs == 1 else (logits[b, t].argmax(0) != 0).float()
                local = picture.view(8 // step, step, 8 // step, step).mean(dim=(1, 3))
                weights = local.sigmoid() if outputs == 1 else local
                seen = (places[b, t] * weights).mean(dim=(1, 2))
                p = (sound[b, t] / sound[b, t].norm()).softmax(0)
                q = (seen / seen.norm()).softmax(0)
                total += float((p * (p / q).log()).sum())
            assert float(found[b, t]) == pytest.approx(total / 2, abs=1e-5)


def test_gradients_reach_every_weight() -> None:
    built = head().train()
    encoded = with_stages(streams())
    logits = built(encoded)
    divergence = matching_divergence(logits, encoded.notes.records[PIXELS], encoded.notes.records[SOUNDS])
    (logits.square().mean() + divergence.sum()).backward()
    for name, weight in built.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.any(), name


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"size": 100}, r"size is 100; set it to a multiple of 32"),
        ({"size": 0}, r"size is 0"),
        ({"hearing_scales": (0, 4)}, r"hearing_scales is \[0, 4\]; list some of \[0, 1, 2, 3\]"),
        ({"hearing_scales": (1, 1)}, r"hearing_scales is \[1, 1\]"),
        ({"matching": -1.0}, r"matching is -1; set it to 0 or more"),
        ({"hearing_scales": ()}, r"matching is 1; set it to 0 or more, and above 0 only with hearing_scales"),
        ({"channels": (1, 2, 3)}, r"channels is \[1, 2, 3\]; give 4 whole numbers"),
        ({"channels": (1, 2, 3, 0)}, r"channels is \[1, 2, 3, 0\]"),
        ({"width": 7}, r"width is 7; set it to an even number"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(AvtuneError, match=problem) as caught:
        replace(SMALL, **changes)
    assert "\n" not in str(caught.value)


def test_a_tower_without_four_stages_is_refused() -> None:
    tower = create_tower("nano", pretrained=False)
    tower.stages = (range(0, 3), range(3, 6))
    with pytest.raises(AvtuneError, match="nano has 2 stages; masks need 4, or a plain vision transformer"):
        build_mask_head(tower, tower, 64, 1, SMALL)


def counted(encoder: EncoderConfig, head: HeadConfig) -> tuple[AudioVisualModel, int]:
    model = AudioVisualModel(
        RunConfig(input=InputConfig(segments=5), encoder=encoder, head=head), ("a", "b"), device="meta"
    )
    return model, model.network.head.unused_parameters  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("recipe", "head_millions", "trainable"),
    [
        # LAVISH's classes hold 37.654 M; 0.144 M of these are norms in the adapters that nothing passes.
        ("avs/lavish_swinv2_l_s4", 20.506, 37.510),
        ("avs/stg_cma_swin_b_base_s4", 20.739, 29.740),
        ("avs/stg_cma_swin_l_base_s4", 21.169, 38.602),
    ],
)
def test_weights_are_those_of_the_authors_classes(
    recipe: str, head_millions: float, trainable: float
) -> None:
    config = parse_config(base=recipe_path(recipe))
    model, unused = counted(config.encoder, config.head)
    parameters = count_parameters(model.network)
    assert round((parameters.parts["head"] + unused) / 1e6, 3) == head_millions
    assert round((parameters.trainable + unused) / 1e6, 3) == trainable


def test_the_semantic_preset_has_an_output_for_silence_and_each_class() -> None:
    for name, outputs in (("s4", 1), ("ms3", 1), ("semantic", 3)):
        model, _ = counted(EncoderConfig(), HeadConfig(task="segmentation", preset=name))
        assert model.network.head.decoder.mask.out_channels == outputs  # type: ignore[union-attr]
        assert PRESETS[name].size == 224
