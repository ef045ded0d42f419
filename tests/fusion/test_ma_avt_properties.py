"""MA-AVT as a method: what it leaves alone, gradient reach, its switches, its contrast and its head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avtune.config import EncoderConfig, HeadConfig, InputConfig, RunConfig
from avtune.counting import count_parameters, example_batch
from avtune.encoder import DualEncoder, Encoded, create_encoder
from avtune.errors import AvtuneError
from avtune.fusion import Notes, OptionError
from avtune.fusion.contrastive import BlockwiseContrast, Feature, contrastive_loss
from avtune.fusion.ma_avt import PRESETS, MaAvtConfig
from avtune.heads.ma_avt import PRESETS as HEAD_PRESETS
from avtune.heads.ma_avt import MaAvtHead, MaAvtHeadSettings, ma_avt_loss
from avtune.model import AudioVisualModel, load

NANO, VIT = "nano", "vit_tiny_patch16_224"
CLASSES = 4


def encoder_of(
    depth: int = 2, tower: str = NANO, audio_tower: str | None = None, **options: Any
) -> DualEncoder:
    preset = options.pop("preset", None)
    if tower == VIT:
        options = {"attention_heads": 3, **options}
    torch.manual_seed(0)
    return create_encoder(
        EncoderConfig(
            tower=tower, audio_tower=audio_tower, pretrained=False, fusion="ma_avt", preset=preset, options=options
        ),
        depth=depth,
    )  # fmt: skip


def clips(encoder: DualEncoder, batch: int = 2, segments: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    sound = torch.randn(batch, segments, *(encoder.audio_tower.image_size,) * 2, generator=generator)
    size = encoder.video_tower.image_size
    return sound, torch.randn(batch, segments, 3, size, size, generator=generator)


def head_of(encoder: DualEncoder, **settings: Any) -> MaAvtHead:
    torch.manual_seed(2)
    dims = encoder.audio_tower.dim, encoder.video_tower.dim
    return MaAvtHead(*dims, CLASSES, 16, MaAvtHeadSettings(**settings))


def whole_loss(encoder: DualEncoder, head: MaAvtHead, encoded: Encoded, background: int = 1) -> Tensor:
    logits = head(encoded)
    target = torch.arange(logits[..., 0].numel()).view(logits.shape[:2]) % (CLASSES - 1)
    target[:, :background] = CLASSES - 1
    valid = torch.ones_like(target, dtype=torch.bool)
    loss = ma_avt_loss(logits, encoded.notes, target, valid, HeadConfig(name="ma_avt"))
    foreground = (target != CLASSES - 1).flatten()
    return loss + sum(encoder.fusion.losses(encoded.notes, foreground).values())


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


def naive_contrast(video: Tensor, audio: Tensor, takes_part: Tensor, temperature: float) -> Tensor:
    """Equations 4 to 6 as two cross-entropies over the chosen rows."""
    v, a = F.normalize(video[takes_part], dim=-1), F.normalize(audio[takes_part], dim=-1)
    logits = v @ a.T / temperature
    partner = torch.arange(len(v))
    return (F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)) / 2


def contrast_of(feature: Feature = "shared_tokens", **how: Any) -> BlockwiseContrast:
    chosen = {
        "projection": "none",
        "projection_dim": 8,
        "temperature": 0.07,
        "reduce": "sum",
        "weight": 1.0,
        **how,
    }
    return BlockwiseContrast([(6, 6)] * 3, feature, **chosen)


@settings(max_examples=25)
@given(rows=st.integers(2, 9), chosen=st.integers(1, 9), seed=st.integers(0, 99))
def test_contrast_equals_the_chosen_rows_alone_and_their_order_never_matters(
    rows: int, chosen: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    audio, video = (torch.randn(3, rows, 6, generator=generator).requires_grad_() for _ in range(2))
    takes_part = torch.zeros(rows, dtype=torch.bool)
    takes_part[torch.randperm(rows, generator=generator)[: min(chosen, rows)]] = True
    ours = contrast_of()(list(audio), list(video), takes_part)
    naive = torch.stack(
        [naive_contrast(v, a, takes_part, 0.07) for v, a in zip(video, audio, strict=True)]
    ).sum()
    torch.testing.assert_close(ours, naive, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(ours, [audio, video]), torch.autograd.grad(naive, [audio, video]), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    order = torch.randperm(rows, generator=generator)
    permuted = contrast_of()([a[order] for a in audio], [v[order] for v in video], takes_part[order])
    torch.testing.assert_close(permuted, ours, atol=1e-5, rtol=1e-5)


def test_block_losses_add_up_or_average() -> None:
    audio, video = list(torch.randn(3, 5, 6)), list(torch.randn(3, 5, 6))
    all_rows = torch.ones(5, dtype=torch.bool)
    summed = contrast_of()(audio, video, all_rows)
    torch.testing.assert_close(contrast_of(reduce="mean", weight=2.0)(audio, video, all_rows), 2 * summed / 3)


def test_matching_functions_of_table_3() -> None:
    audio, patches = torch.randn(4, 6), torch.randn(4, 7, 6)
    every = torch.empty(4, 4)
    for name, reduce in (("max_similarity", torch.amax), ("mean_similarity", torch.mean)):
        for i in range(4):
            for j in range(4):
                every[i, j] = reduce(F.cosine_similarity(patches[i], audio[j][None], dim=-1), 0)
        expected = contrastive_loss(every, torch.ones(4, dtype=torch.bool), 0.07)
        made = contrast_of(name)([audio], [patches], torch.ones(4, dtype=torch.bool))  # type: ignore[arg-type]
        torch.testing.assert_close(made, expected)


@pytest.mark.parametrize("foreground", [0, 1])
@pytest.mark.parametrize("contrast", ["shared_tokens", "max_similarity"])
def test_batches_of_background_have_a_finite_loss(foreground: int, contrast: str) -> None:
    encoder = encoder_of(contrast=contrast, projection="per_block").train()
    head = head_of(encoder)
    encoded = encoder(*clips(encoder, 1, 2))
    loss = whole_loss(encoder, head, encoded, background=2 - foreground)
    loss.backward()
    assert loss.isfinite()
    flags = torch.arange(2) >= 2 - foreground
    assert encoder.fusion.losses(encoded.notes, flags)["contrast"] == 0
    for name, weight in encoder.fusion.named_parameters():
        assert weight.grad is None or weight.grad.isfinite().all(), name
    reached = {n for n, w in head.named_parameters() if w.grad is not None and w.grad.abs().sum() > 0}
    assert any(name.startswith("background") for name in reached)
    assert any(name.startswith("foreground") for name in reached) == bool(foreground)


def test_half_precision_keeps_the_contrast_exact() -> None:
    encoder = encoder_of().train()
    notes = encoder(*clips(encoder)).notes
    flags = torch.ones(6, dtype=torch.bool)
    exact = encoder.fusion.losses(notes, flags)["contrast"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder.fusion.losses(notes, flags)["contrast"], exact)


def head_answers(background: float, classes: list[float], **settings: Any) -> tuple[MaAvtHead, Encoded]:
    """A head that gives the stated logits, whatever it reads."""
    head = MaAvtHead(2, 2, len(classes) + 1, 4, MaAvtHeadSettings(**settings))
    with torch.no_grad():
        for weight in head.parameters():
            weight.zero_()
        head.foreground.classes.bias.copy_(torch.tensor(classes))
        head.background.classes.bias.fill_(background)
    notes = Notes(segments=1)
    for name in ("audio_foreground", "video_foreground", "audio_background", "video_background"):
        notes.record(name, torch.zeros(1, 2))
    return head, Encoded(*(torch.zeros(1, 1, 2),) * 4, notes=notes)


@given(background=st.floats(-6, 6), classes=st.lists(st.floats(-6, 6), min_size=1, max_size=5))
def test_the_gate_decides_before_the_classes_do(background: float, classes: list[float]) -> None:
    head, encoded = head_answers(background, classes)
    logits = head.eval()(encoded)[0, 0]
    background = float(torch.tensor(background))
    if background > 0:
        assert logits.argmax() == len(classes)
    else:
        assert logits.argmax() < len(classes)
        assert classes[int(logits.argmax())] == pytest.approx(max(classes), abs=1e-5)
    joint = head_answers(background, classes, decision="joint")[0].eval()(encoded)[0, 0].exp()
    closed = torch.tensor(background).sigmoid()
    torch.testing.assert_close(joint[-1], closed)
    torch.testing.assert_close(joint[:-1], (1 - closed) * torch.tensor(classes).softmax(-1))


@pytest.mark.parametrize("preset", list(HEAD_PRESETS))
def test_the_loss_of_equation_9(preset: str) -> None:
    torch.manual_seed(0)
    chosen = HEAD_PRESETS[preset]
    events, background = torch.randn(3, 4, 5, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    target = torch.randint(0, 6, (3, 4))
    target[0, 0] = 5
    valid = torch.rand(3, 4) > 0.2
    notes = Notes(segments=4)
    notes.record("foreground_logits", events)
    notes.record("background_logits", background)
    ours = ma_avt_loss(torch.zeros(3, 4, 6), notes, target, valid, HeadConfig(name="ma_avt", preset=preset))
    class_losses, gate_losses = [], []
    for clip, segment in valid.nonzero().tolist():
        y_b = bool(target[clip, segment] == 5)
        if not y_b:
            class_losses.append(F.cross_entropy(events[clip, segment], target[clip, segment]))
        if y_b or chosen.background_loss == "all":
            gate_losses.append(
                F.binary_cross_entropy_with_logits(background[clip, segment], torch.tensor(float(y_b)))
            )
    count = int(valid.sum())
    if chosen.mean_over == "own":
        expected = count * (torch.stack(class_losses).mean() + torch.stack(gate_losses).mean())
    else:
        expected = torch.stack([*class_losses, *gate_losses]).sum()
    torch.testing.assert_close(ours, expected)


def test_the_paper_preset_is_the_likelihood_of_the_joint_answer() -> None:
    encoder = encoder_of().train()
    head = head_of(encoder)
    encoded = encoder(*clips(encoder))
    logits = head(encoded)
    target = torch.tensor([[0, 3, 2], [3, 1, 0]])
    valid = torch.ones_like(target, dtype=torch.bool)
    loss = ma_avt_loss(logits, encoded.notes, target, valid, HeadConfig(name="ma_avt"))
    torch.testing.assert_close(F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum"), loss)
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2, 3))


@pytest.mark.parametrize("two_layers", [False, True])
def test_one_stream_answers_alone_with_its_half(two_layers: bool) -> None:
    encoder = encoder_of(tower=VIT).eval()
    head = head_of(encoder, two_layers=two_layers).eval()
    sound, frames = clips(encoder)
    encoded = encoder(sound, frames)
    head(encoded)
    both = encoded.notes.records["foreground_logits"][0]
    audio, video = head.alone(encoded, "audio"), head.alone(encoded, "video")
    torch.testing.assert_close(audio + video, both)
    if not two_layers:
        weight, bias, dim = (
            head.foreground.classes.weight,
            head.foreground.classes.bias,
            encoder.video_tower.dim,
        )
        token = encoded.notes.records["video_foreground"][0].view(*both.shape[:2], dim)
        torch.testing.assert_close(video, token @ weight[:, :dim].T + bias / 2)
    # The other stream may hold anything.
    torch.testing.assert_close(head.alone(encoder(sound, torch.randn_like(frames)), "audio"), audio)


def test_the_head_says_what_it_needs() -> None:
    encoder = encoder_of(background="none")
    with pytest.raises(AvtuneError, match="reads the background tokens of the method ma_avt"):
        head_of(encoder)(encoder(*clips(encoder, 1, 1)))


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
