"""What holds for every tuning: its start, where gradients go, what the two streams have in common."""

from typing import Any

import pytest
import torch
from tuning_cases import EVERY, IDENTITIES, away_from_start, clips, tuned, tuned_weights

from avtune.backbones import create_tower
from avtune.config import EncoderConfig
from avtune.encoder import create_encoder
from avtune.options import OptionError
from avtune.tuning import TUNINGS, TuningError


@pytest.mark.parametrize(("name", "preset"), IDENTITIES)
def test_at_the_start_both_streams_are_exactly_the_towers(name: str, preset: str) -> None:
    encoder, plain = tuned(name, preset).train(), tuned(None).train()
    sound, frames = clips(encoder)
    encoded, expected = encoder(sound, frames), plain(sound, frames)
    assert torch.equal(encoded.audio, expected.audio)
    assert torch.equal(encoded.video, expected.video)


@pytest.mark.parametrize(("name", "preset"), [case for case in EVERY if case not in IDENTITIES])
def test_the_others_act_from_the_start(name: str, preset: str) -> None:
    encoder, plain = tuned(name, preset).eval(), tuned(None).eval()
    sound, frames = clips(encoder)
    with torch.no_grad():
        moved = (encoder(sound, frames).video - plain(sound, frames).video).abs().max()
    # A Compacter of the paper hardly moves anything: two random rules of 0.01 in a row.
    assert 0 < moved < (0.05 if (name, preset) == ("compacter", "paper") else 3)


@pytest.mark.parametrize("fusion", ["frozen", "cma"])
@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_gradients_reach_every_trained_weight_and_no_frozen_one(name: str, preset: str, fusion: str) -> None:
    encoder = away_from_start(tuned(name, preset, fusion=fusion)).train()
    encoded = encoder(*clips(encoder))
    weights = torch.randn(2, 2, encoder.video_tower.dim, generator=torch.Generator().manual_seed(4))
    ((encoded.audio_pooled + encoded.video_pooled) * weights).sum().backward()
    assert tuned_weights(encoder)
    for path, weight in encoder.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, path
            assert weight.grad.abs().sum() > 0, path
        else:
            assert weight.grad is None, path


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_over_one_tower_each_stream_trains_weights_of_its_own(name: str, preset: str) -> None:
    encoder = away_from_start(tuned(name, preset)).train()
    shared = TUNINGS[name].presets[preset].shared
    encoder(*clips(encoder)).audio.square().sum().backward()
    reached = {path for path, weight in tuned_weights(encoder).items() if weight.grad is not None}
    assert reached
    if name in ("norms", "full"):
        own = all(path.startswith("separate_audio_tower.") for path in reached)
        assert own is not shared
        assert encoder.shared is shared
    else:
        assert not shared
        # Compacter's rules serve both streams, as in the paper, and so do norms that are trained along.
        common = {path for path in reached if path.endswith("rules") or path.startswith("video_tower.")}
        assert all("streams.audio." in path or "prompts.audio" in path for path in reached - common)


@pytest.mark.parametrize("name", list(TUNINGS))
def test_sharing_is_one_set_for_both_streams_and_needs_one_tower(name: str) -> None:
    apart, shared = tuned(name, shared=False), tuned(name, shared=True)
    counts = [sum(weight.numel() for weight in tuned_weights(e).values()) for e in (apart, shared)]
    common = 64 if name == "compacter" else 0
    norms = 0
    if getattr(next(iter(TUNINGS[name].presets.values())), "train_norms", False):
        norms = sum(w.numel() for p, w in tuned_weights(shared).items() if p.startswith("video_tower."))
    assert counts[0] - common - norms == 2 * (counts[1] - common - norms) > 0
    encoded = shared(*clips(shared))
    encoded.audio.square().sum().backward()
    assert all(weight.grad is not None for weight in tuned_weights(shared).values())
    with pytest.raises(TuningError, match="needs one tower for both; leave audio_tower out, or set shared=F"):
        tuned(name, shared=True, encoder={"audio_tower": "vit_tiny_patch16_224"})


@pytest.mark.parametrize("name", list(TUNINGS))
def test_blocks_without_a_partner_are_tuned_too(name: str) -> None:
    towers = (
        create_tower("nano", pretrained=False, depth=1),
        create_tower("vit_tiny_patch16_224", pretrained=False, depth=2),
    )
    encoder = create_encoder(EncoderConfig(fusion="cma", tuning=name), towers=towers, segments=2)
    assert encoder.plan == ((None, 0), (0, 1))
    away_from_start(encoder).train()(*clips(encoder)).video.square().sum().backward()
    alone = {
        path: weight
        for path, weight in tuned_weights(encoder).items()
        if path.startswith(("tuning.streams.video.0.", "video_tower.blocks.0."))
    }
    assert alone
    assert all(weight.grad is not None and weight.grad.any() for weight in alone.values())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adapter", {}), ("compacter", {}), ("lora", {"dropout": 0.3}), ("prompts", {}), ("norms", {}),
        ("full", {}),
    ],
)  # fmt: skip
def test_recomputing_steps_changes_no_gradient(name: str, options: dict[str, Any]) -> None:
    gradients = []
    for recompute in (False, True):
        encoder = away_from_start(tuned(name, fusion="cma", **options)).train()
        encoder.recompute = recompute
        torch.manual_seed(5)
        encoder(*clips(encoder)).video.square().sum().backward()
        gradients.append({path: w.grad for path, w in encoder.named_parameters() if w.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][path], gradients[1][path]) for path in gradients[0])


def test_a_recomputed_pass_counts_once_in_an_adapters_running_statistics() -> None:
    statistics = []
    for recompute in (False, True):
        encoder = away_from_start(tuned("adapter", "lavish")).train()
        encoder.recompute = recompute
        encoder(*clips(encoder)).video.square().sum().backward()
        statistics.append(dict(encoder.tuning.named_buffers()))
    assert statistics[0]
    assert all(torch.equal(statistics[0][path], statistics[1][path]) for path in statistics[0])


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_the_order_of_a_batch_never_matters(name: str, preset: str) -> None:
    encoder = away_from_start(tuned(name, preset, fusion="cma")).eval()
    sound, frames = clips(encoder, batch=3)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        whole, turned = encoder(sound, frames), encoder(sound[order], frames[order])
        alone = encoder(sound[:1], frames[:1])
    torch.testing.assert_close(turned.video_pooled, whole.video_pooled[order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone.audio_pooled, whole.audio_pooled[:1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", list(TUNINGS))
def test_one_graph_without_breaks(name: str) -> None:
    encoder = tuned(name, fusion="cma", depth=1).eval()
    explained = torch._dynamo.explain(lambda s, f: encoder(s, f).video_pooled)(*clips(encoder, 1, 1))
    assert explained.graph_count == 1
    assert explained.graph_break_count == 0


def test_unknown_names_and_options_without_a_tuning_name_the_mend() -> None:
    with pytest.raises(OptionError, match=r"unknown tuning 'adapte'; did you mean 'adapter'\?"):
        tuned("adapte")
    with pytest.raises(OptionError, match=r"unknown preset of compacter 'papre'; did you mean 'paper'\?"):
        tuned("compacter", "papre")
    with pytest.raises(OptionError, match=r"adapter has no option 'reducton'; did you mean 'reduction'\?"):
        tuned("adapter", reducton=3)
    with pytest.raises(OptionError, match="a preset or options of a tuning are given, but no tuning"):
        tuned(None, reduction=3)
