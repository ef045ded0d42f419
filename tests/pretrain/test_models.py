"""The objectives as a training loop meets them: presets, chance, gradients, precision, errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pretrain_cases import DEPTH, DIM, PATCH, SPECTROGRAM, clips, small_avsiam, small_cav_mae
from pretrain_golden import blank_backbone
from torch import nn

from avtune.backbones.tower import BackboneError
from avtune.errors import AvtuneError
from avtune.options import OptionError
from avtune.pretrain import OBJECTIVES, create_pretraining
from avtune.pretrain.avsiam import PRESETS, Avsiam
from avtune.pretrain.backbone import take_backbone
from avtune.pretrain.classifiers import AvsiamClassifier, CavMaeClassifier
from avtune.pretrain.objective import PretrainingModel
from avtune.pretrain.patches import Stem, cut, resampled, targets

CASES = [("avsiam", preset) for preset in PRESETS] + [("cav_mae", "paper"), ("cav_mae", "release")]


def build(objective: str, preset: str, **options: Any) -> Any:
    return {"avsiam": small_avsiam, "cav_mae": small_cav_mae}[objective](preset, **options)


@pytest.mark.parametrize(("objective", "preset"), CASES)
def test_every_trainable_weight_of_every_preset_learns(objective: str, preset: str) -> None:
    model = build(objective, preset)
    loss = model(*clips(7), model.draw(7, torch.Generator().manual_seed(0)))
    loss.total.backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    # Data-parallel training would stop at a weight that takes no part.
    assert without == []
    again = build(objective, preset)
    assert again(*clips(7), again.draw(7, torch.Generator().manual_seed(0))).total.equal(loss.total)


@pytest.mark.parametrize(("objective", "preset"), CASES)
def test_which_losses_there_are(objective: str, preset: str) -> None:
    model = build(objective, preset)
    loss = model(*clips(4), model.draw(4, torch.Generator().manual_seed(0)))
    reconstructs = preset not in ("contrastive", "fixed_ratio", "unmasked")
    assert (loss.audio_reconstruction is not None) == reconstructs
    weight = model.settings.contrastive_weight
    expected = weight * loss.contrastive
    if reconstructs:
        expected = expected + loss.audio_reconstruction + loss.video_reconstruction
    torch.testing.assert_close(loss.total, expected)


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("reconstruction", ["same_pass", "own_pass"])
def test_stop_gradient_keeps_the_reconstruction_out_of_the_encoder(stop: bool, reconstruction: str) -> None:
    model = small_avsiam(contrastive_weight=0.0, stop_gradient=stop, reconstruction=reconstruction)
    model(*clips(4), model.draw(4, torch.Generator().manual_seed(0))).total.backward()
    reached = {
        name.split(".")[1]
        for name, p in model.encoder.named_parameters("e")
        if p.grad is not None and p.grad.any()
    }
    assert reached == ({"joint"} if stop else {"joint", "trunks", "audio", "video"})


def test_a_permuted_batch_gives_permuted_features_and_the_same_losses() -> None:
    model = small_avsiam()
    spectrogram, frames = clips(6)
    masks = model.draw(6, torch.Generator().manual_seed(0))
    turn = torch.tensor([4, 0, 5, 2, 1, 3])
    turned = replace(
        masks,
        **{m: type(masks.audio).from_visible(getattr(masks, m).visible[turn]) for m in ("audio", "video")},
    )
    one, other = model(spectrogram, frames, masks), model(spectrogram[turn], frames[turn], turned)
    # Sums in another order, in single precision.
    torch.testing.assert_close(one.total, other.total, rtol=1e-5, atol=0)
    features = model.encoder.embed_audio(spectrogram)
    torch.testing.assert_close(
        model.encoder.embed_audio(spectrogram[turn]), features[turn], rtol=0, atol=1e-5
    )
    torch.testing.assert_close(model.encoder.embed_audio(spectrogram[2:3]), features[2:3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("objective", ["avsiam", "cav_mae"])
def test_half_precision_computes_nearly_the_same(objective: str) -> None:
    model = build(objective, "paper")
    masks = model.draw(6, torch.Generator().manual_seed(0))
    full = model(*clips(6), masks)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(*clips(6), masks)
    half.total.backward()
    assert half.total.dtype == torch.float32
    torch.testing.assert_close(half.audio_reconstruction, full.audio_reconstruction, rtol=0.05, atol=0)
    torch.testing.assert_close(half.video_reconstruction, full.video_reconstruction, rtol=0.05, atol=0)


def test_learning_lowers_every_loss() -> None:
    model = small_avsiam("published", directions="both")
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    batch, generator = clips(8), torch.Generator().manual_seed(0)
    losses = []
    for _ in range(60):
        loss = model(*batch, model.draw(8, generator))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append((float(loss.contrastive), float(loss.audio_reconstruction + loss.video_reconstruction)))
    first, last = torch.tensor(losses[:5]).mean(0), torch.tensor(losses[-5:]).mean(0)
    assert (last < 0.8 * first).all()


def test_nano_begins_from_its_weights() -> None:
    model = create_pretraining("avsiam", "nano", depth=2, spectrogram=(32, 64), options={"decoder_depth": 1})
    parts = take_backbone("nano", depth=2)
    trunk = model.encoder.trunks["shared"]
    for norm in ("audio", "video"):
        start = parts.blocks[1].norm1.weight
        assert trunk.blocks[1].attention_norm.of[norm].weight.equal(start)
    assert model.encoder.joint.blocks[0].mlp.fc1.weight.equal(parts.blocks[0].mlp.fc1.weight)
    assert model.encoder.video.positions.equal(parts.positions)
    assert model.encoder.audio.grid == (4, 8)
    copied = create_pretraining("avsiam", "nano", preset="release", depth=2, spectrogram=(32, 64))
    assert copied.encoder.joint.blocks[0].mlp.fc1.weight.equal(parts.blocks[1].mlp.fc1.weight)
    assert copied.encoder.trunks["shared"].blocks[0].mlp_norm.of["audio"].eps == 1e-5


def test_unmasked_vision_features_are_those_of_the_backbone() -> None:
    from avtune.backbones.nano import create_nano

    frames = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = create_pretraining("avsiam", "nano", spectrogram=(16, 16))
    with torch.no_grad():
        theirs = create_nano().eval().forward_features(frames).mean(1)
        torch.testing.assert_close(model.encoder.embed_video(frames), theirs, atol=1e-5, rtol=0)


def test_ast_as_the_shared_transformer() -> None:
    model = create_pretraining(
        "avsiam", "ast_tiny224_imagenet", pretrained=False, depth=2, spectrogram=(32, 64)
    )
    assert model.encoder.audio.weight.shape == (192, 1, 16, 16)
    # A grey picture acts as the spectrogram of its values.
    torch.testing.assert_close(model.encoder.video.weight.sum(1, keepdim=True), model.encoder.audio.weight)
    assert model.encoder.audio.grid == (2, 4)
    assert model.encoder.video.grid == (14, 14)
    loss = model(
        torch.randn(2, 32, 64), torch.randn(2, 3, 224, 224), model.draw(2, torch.Generator().manual_seed(0))
    )
    assert loss.total.isfinite()


def test_cav_mae_sums_over_colours() -> None:
    parts = take_backbone("nano", depth=2)
    model = create_pretraining("cav_mae", "nano", depth=2, spectrogram=(32, 64), options={"decoder_depth": 1})
    torch.testing.assert_close(model.encoder.audio.weight, parts.kernel.sum(1, keepdim=True))
    assert not model.encoder.audio.positions.requires_grad
    assert CavMaeClassifier(model.encoder, 3).encoder.audio.positions.requires_grad


def test_classifiers_take_what_there_is() -> None:
    spectrogram, frames = clips(3)
    avsiam = AvsiamClassifier(small_avsiam("contrastive").encoder, 5)
    assert all(p.requires_grad for p in avsiam.parameters())
    for classifier in (avsiam, CavMaeClassifier(small_cav_mae().encoder, 5)):
        both = classifier(spectrogram, frames)
        heard, seen = classifier(spectrogram=spectrogram), classifier(frames=frames)
        assert both.shape == heard.shape == seen.shape == (3, 5)
        assert not both.allclose(heard)
        assert classifier(spectrogram[1:2], frames[1:2])[0].allclose(both[1], atol=1e-5)
        with pytest.raises(AvtuneError, match="at least one"):
            classifier()


def test_a_joint_classification_pools_each_modality_by_itself() -> None:
    classifier = AvsiamClassifier(small_avsiam().encoder, 5)
    classifier.head["joint"] = nn.Identity()
    spectrogram, frames = clips(2)
    pooled = classifier(spectrogram, frames)
    assert pooled.shape == (2, 2 * DIM)
    louder = classifier(spectrogram, frames * 2)
    # The multimodal layers mix: other frames change the sound's half too.
    assert not pooled[:, :DIM].allclose(louder[:, :DIM])


def test_targets_are_patches_by_row_column_channel() -> None:
    pictures = torch.randn(2, 3, 20, 19, generator=torch.Generator().manual_seed(0))
    assert cut(pictures, 8).shape == (2, 2, 2, 3, 8, 8)
    clip, position = torch.tensor([1, 0]), torch.tensor([2, 1])
    raw = targets(pictures, 8, clip, position, normalized=False)
    wanted = torch.stack([pictures[1, :, 8:16, :8], pictures[0, :, :8, 8:16]]).permute(0, 2, 3, 1).flatten(1)
    assert raw.equal(wanted)
    normalized = targets(pictures, 8, clip, position, normalized=True)
    expected = (wanted - wanted.mean(1, keepdim=True)) / (wanted.var(1, keepdim=True) + 1e-6) ** 0.5
    torch.testing.assert_close(normalized, expected)


def test_resampling_keeps_a_table_that_fits_and_its_axes() -> None:
    table = torch.arange(12.0).reshape(12, 1)
    assert resampled(table, (3, 4), (3, 4)).equal(table)
    rows = torch.arange(3.0).repeat_interleave(4).reshape(12, 1)
    taller = resampled(rows, (3, 4), (6, 4)).reshape(6, 4)
    assert (taller == taller[:, :1]).all()
    assert (taller[1:, 0] >= taller[:-1, 0]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audio_ratios": [1.0]}, "each must lie in"),
        ({"video_ratios": []}, "each modality needs one"),
        ({"audio_ratios": ["half"]}, "each must lie in"),
        ({"reconstruction_encoder": "copy"}, "reconstruction_encoder copy needs"),
        ({"contrast": "none", "reconstruction": "none"}, "nothing to learn"),
        ({"contrast": "none"}, "teaches its encoder nothing"),
        (
            {
                "contrast": "none",
                "reconstruction": "own_pass",
                "reconstruction_encoder": "copy",
                "stop_gradient": False,
            },
            "a contrast and no stop_gradient",
        ),
        ({"joint_blocks": 4}, "set joint_blocks from 1 to 3"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(AvtuneError, match=message) as caught:
        small_avsiam(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0; set it to a number above 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"decoder_width": 30}, "decoder_width is 30; set it to a multiple of 4"),
        ({"decoder_width": 0}, "decoder_width is 0"),
        ({"decoder_heads": 0}, "decoder_heads 0; set each to 1 or more"),
        ({"decoder_depth": -1}, "decoder_depth is -1"),
        ({"block_epsilon": -1.0}, "block_epsilon is -1; set it to a number above 0"),
    ],
)
@pytest.mark.parametrize("small", [small_avsiam, small_cav_mae])
def test_numbers_that_make_no_sense_are_refused(
    small: Callable[..., PretrainingModel], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(AvtuneError, match=message) as caught:
        small(**options)
    assert "\n" not in str(caught.value)


def test_wrong_names_and_pictures_are_refused() -> None:
    with pytest.raises(OptionError, match="did you mean 'release'"):
        create_pretraining("avsiam", "nano", preset="relase")
    with pytest.raises(OptionError, match="did you mean 'audio_ratios'"):
        create_pretraining("avsiam", "nano", options={"audio_ratio": (0.5,)})
    with pytest.raises(BackboneError, match="no plain vision transformer"):
        take_backbone("swinv2_tiny_window8_256", pretrained=False, device="meta")
    with pytest.raises(AvtuneError, match="joint_blocks"):
        small_cav_mae(joint_blocks=DEPTH + 1)
    with pytest.raises(AvtuneError, match="must lie in"):
        small_cav_mae(audio_ratio=1.0)
    with pytest.raises(AvtuneError, match="the position table 5"):
        Stem(torch.zeros(4, 1, 8, 8), torch.zeros(4), torch.zeros(5, 4), (16, 16), "audio")
    model = small_avsiam()
    with pytest.raises(AvtuneError, match="create the model for their size"):
        model.encoder.embed_audio(torch.zeros(1, SPECTROGRAM[0], SPECTROGRAM[1] + PATCH))


def test_objectives_are_listed_with_their_presets() -> None:
    for name, objective in OBJECTIVES.items():
        first = next(iter(objective.presets))
        assert first == "paper"
        model = create_pretraining(name, "nano", depth=1, spectrogram=(16, 16), options={"joint_blocks": 1})
        assert callable(model.draw)


def test_a_backbone_is_not_changed_by_the_models_made_of_it() -> None:
    backbone = blank_backbone(DIM, DEPTH, PATCH, 32)
    before = backbone.blocks[0].attn.qkv.weight.clone()
    settings = replace(PRESETS["contrastive"], decoder_width=16, decoder_heads=4)
    one, two = (Avsiam(backbone, settings, SPECTROGRAM) for _ in range(2))
    with torch.no_grad():
        for weight in one.parameters():
            weight += 1
    assert backbone.blocks[0].attn.qkv.weight.equal(before)
    assert two.encoder.trunks["shared"].blocks[0].attention.qkv.weight.equal(before)
