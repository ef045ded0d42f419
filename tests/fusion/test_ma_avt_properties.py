"""MA-AVT as a method: what it leaves alone, gradient reach, its switches and its counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from ma_avt_cases import NANO, VIT, encoder_of, head_of, whole_loss
from torch import Tensor

from avtune.config import EncoderConfig, HeadConfig, InputConfig, RunConfig
from avtune.counting import count_parameters, example_batch
from avtune.encoder import DualEncoder, create_encoder
from avtune.fusion import OptionError
from avtune.fusion.contrastive import Feature
from avtune.fusion.ma_avt import PRESETS, MaAvtConfig
from avtune.model import AudioVisualModel, load
from random_clips import clips


def test_without_tokens_both_streams_are_exactly_the_frozen_towers() -> None:
    nothing = {
        "audio_tokens": 0,
        "video_tokens": 0,
        "shared_tokens": 0,
        "background": "none",
        "contrast": "none",
    }
    encoder = encoder_of(1, VIT, **nothing).eval()
    sound, frames = clips(encoder, batch=1, segments=1)
    with torch.no_grad():
        encoded = encoder(sound, frames)
        pictures = sound.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)
        assert torch.equal(encoded.audio, encoder.audio_tower(pictures))
        assert torch.equal(encoded.video, encoder.video_tower(frames.flatten(0, 1)))


@pytest.mark.parametrize("tower", [NANO, VIT])
def test_tokens_are_taken_out_again_and_patches_keep_their_number(tower: str) -> None:
    encoder = encoder_of(1, tower).eval()
    sound, frames = clips(encoder, 1, 2)
    encoded = encoder(sound, frames)
    assert encoded.video.shape == encoder.video_tower(frames.flatten(0, 1)).shape
    assert encoded.audio.shape[1:] == encoded.video.shape[1:]
    assert encoded.notes.records["video_foreground"][0].shape == (2, encoder.video_tower.dim)


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("prompts", ["shallow", "reinserted", "deep"])
def test_gradients_reach_every_trainable_weight_and_no_frozen_one(preset: str, prompts: str) -> None:
    encoder = encoder_of(tower=VIT, preset=preset, prompts=prompts).train()
    check_reach(encoder, freed={"model.cls_token"} if preset == "official" else set())


@pytest.mark.parametrize("contrast", [*get_args(Feature), "none"])
@pytest.mark.parametrize("projection", ["none", "per_block", "shared"])
def test_gradients_reach_every_weight_of_every_contrast(contrast: str, projection: str) -> None:
    check_reach(encoder_of(contrast=contrast, projection=projection).train(), freed=set())


def check_reach(encoder: DualEncoder, freed: set[str]) -> None:
    head = head_of(encoder)
    whole_loss(encoder, head, encoder(*clips(encoder))).backward()
    for name, weight in [*encoder.named_parameters(), *head.named_parameters()]:
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name
        else:
            assert weight.grad is None, name
    assert {n for n, w in encoder.video_tower.named_parameters() if w.requires_grad} == freed


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("prompts", ["shallow", "reinserted", "deep"])
def test_the_order_of_clips_never_matters(preset: str, prompts: str) -> None:
    encoder = encoder_of(tower=VIT, preset=preset, prompts=prompts).eval()
    head = head_of(encoder).eval()
    sound, frames = clips(encoder, batch=3, segments=2)
    with torch.no_grad():
        whole = head(encoder(sound, frames))
        order = torch.tensor([2, 0, 1])
        torch.testing.assert_close(
            head(encoder(sound[order], frames[order])), whole[order], atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(head(encoder(sound[1:2], frames[1:2])), whole[1:2], atol=1e-5, rtol=1e-5)


def test_streams_meet_in_the_shared_weights_only() -> None:
    encoder = encoder_of().eval()
    sound, frames = clips(encoder)
    frames.requires_grad_()
    encoder(sound, frames).audio.sum().backward()
    assert frames.grad is None or not frames.grad.abs().sum()


@pytest.mark.parametrize("prompts", ["reinserted", "deep"])
def test_each_block_gets_its_prompts(prompts: str) -> None:
    encoder = encoder_of(3, prompts=prompts)
    fusion: Any = encoder.fusion
    tails: list[Tensor] = []
    sizes: list[int] = []
    for block in encoder.video_tower.blocks:
        block.block.norm1.register_forward_pre_hook(lambda _module, given: tails.append(given[0]))
    encoder(*clips(encoder, 1, 1))
    for number in range(3):
        prompts_of = (
            fusion.prompts if prompts == "reinserted" or not number else fusion.layers[number].prompts
        )
        # Both streams pass the shared tower, sound first.
        for_audio, for_video = prompts_of()
        for tokens, x in zip((for_audio, for_video), tails[2 * number : 2 * number + 2], strict=True):
            assert torch.equal(x[0, -len(tokens) :], tokens)
            sizes.append(x.shape[1])
    assert len(set(sizes)) == 1


def test_one_graph_without_breaks() -> None:
    for preset in PRESETS:
        encoder = encoder_of(tower=VIT, preset=preset)
        for training in (False, True):
            encoder.train(training)
            torch._dynamo.reset()
            explained = torch._dynamo.explain(lambda s, f, e=encoder: e(s, f).video_pooled)(
                *clips(encoder, 1, 1)
            )
            assert explained.graph_count == 1
            assert explained.graph_break_count == 0


def test_recomputing_a_step_changes_neither_loss_nor_gradient() -> None:
    gradients = []
    for recompute in (False, True):
        encoder = encoder_of().train()
        encoder.recompute = recompute
        loss = whole_loss(encoder, head_of(encoder), encoder(*clips(encoder)))
        loss.backward()
        gradients.append({n: w.grad for n, w in encoder.fusion.named_parameters()} | {"loss": loss.detach()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


# (tower, options, trained weights of the method, total with the unused class head), millions: the authors' code.
COUNTS = [
    ("vit_base_patch16_224.augreg_in21k", {}, 16.594, 119.189),
    ("vit_base_patch16_224.augreg_in21k", {"projection": "none"}, 7.145, 109.740),
    ("vit_large_patch16_224.augreg_in21k", {}, 37.863, 363.552),
    ("vit_large_patch16_224.augreg_in21k", {"projection": "none"}, 12.672, 338.362),
]


@pytest.mark.parametrize(("tower", "options", "trained", "total"), COUNTS)
def test_counts_are_those_of_the_authors_code(
    tower: str, options: dict[str, Any], trained: float, total: float
) -> None:
    config = RunConfig(
        encoder=EncoderConfig(
            tower=tower, pretrained=False, fusion="ma_avt", preset="official", options=options
        ),
        head=HeadConfig(name="ma_avt"),
    )
    model = AudioVisualModel(config, tuple(f"label {k}" for k in range(28)), device="meta")
    counted = count_parameters(model.network)
    # Their logit_scale, a scalar per block that nothing reads, is in no third digit.
    assert counted.trainable / 1e6 == pytest.approx(trained, abs=6e-4)
    assert counted.total_published / 1e6 == pytest.approx(total, abs=6e-4)


@pytest.mark.parametrize(
    ("tower", "published", "exact"),
    [("vit_base_patch16_224", 7.1, 7.099), ("vit_large_patch16_224", 12.6, 12.611)],
)
def test_tokens_and_self_attention_are_the_published_count(
    tower: str, published: float, exact: float
) -> None:
    encoder = create_encoder(
        EncoderConfig(tower=tower, pretrained=False, fusion="ma_avt", preset="official"), device="meta"
    )
    fusion: Any = encoder.fusion
    count = sum(weight.numel() for weight in fusion.prompts.parameters()) / 1e6
    assert count == pytest.approx(exact, abs=6e-4)
    assert round(count, 1) == published


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"tower": "swinv2_tiny_window8_256"}, "has to keep one width; take a ViT"),
        ({"preset": "official"}, "nano has no class token; choose --encoder.options.foreground per_modality"),
        ({"attention_heads": 3}, "'attention_heads' is 3; it has to divide the width 128"),
        ({"shared_tokens": 0}, "no shared tokens to contrast"),
        ({"tower": VIT, "audio_tower": NANO}, "shared_tokens above 0 needs towers of one width, not 128 and 192"),
        ({"tower": "vit_small_patch16_dinov3", "positions": "slot"}, "has no position table"),
        ({"tower": "vit_small_patch16_dinov3", "contrast": "attended_patches"}, "attention cannot be read from"),
        ({"contrast": "patches"}, "'contrast' cannot be 'patches'"),
    ]  # fmt: skip
    for options, message in cases:
        with pytest.raises(OptionError, match=message) as caught:
            encoder_of(1, **options)
        assert "\n" not in str(caught.value)


def test_towers_of_differing_width_share_nothing_but_the_loss() -> None:
    encoder = encoder_of(
        1, VIT, NANO, attention_heads=1, shared_tokens=0, contrast="class_tokens", projection="per_block"
    )  # fmt: skip
    check_reach(encoder.train(), freed=set())


def test_presets_differ_as_documented() -> None:
    paper, official = PRESETS["paper"], PRESETS["official"]
    assert paper == MaAvtConfig()
    assert replace(
        official, residual=True, foreground="per_modality", background="per_modality", positions="pretrained",
        contrast_sound="mean_patches", projection="none", contrast_reduce="sum",
    ) == paper  # fmt: skip


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_saved_run_answers_as_before(preset: str, tmp_path: Path) -> None:
    encoder = EncoderConfig(
        tower=VIT, pretrained=False, fusion="ma_avt", preset=preset, options={"attention_heads": 3}
    )
    config = RunConfig(encoder=encoder, head=HeadConfig(name="ma_avt"), input=InputConfig(segments=2))
    model = AudioVisualModel(config, ("dog", "horn"))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight), alpha=0.1)
    model.save(tmp_path)
    batch = example_batch(model.preprocessing)
    batch.spectrogram.normal_()
    batch.frames.random_(0, 255)
    with torch.no_grad():
        assert torch.equal(load(tmp_path).network(batch)[0], model.network(batch)[0])
