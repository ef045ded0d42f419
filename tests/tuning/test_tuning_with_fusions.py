"""Every tuning inside every fusion, and cross-modal attention in front of each."""

import pytest
import torch
from tuning_cases import away_from_start, clips, living_norms, tuned, tuned_weights

from avtune.encoder import DualEncoder
from avtune.errors import AvtuneError
from avtune.fusion import METHODS
from avtune.tuning import TUNINGS

CASES = [(name, preset) for name, tuning in TUNINGS.items() for preset in list(tuning.presets)[:1]]


def encoder_of(fusion: str, name: str, preset: str, tower: str = "nano") -> DualEncoder:
    try:
        tuned(None, fusion=fusion, tower=tower, depth=1)
    except AvtuneError as error:
        pytest.skip(f"{fusion} does not walk {tower} alone: {error}")
    return tuned(name, preset, fusion=fusion, tower=tower, depth=1)


@pytest.mark.parametrize("fusion", list(METHODS))
@pytest.mark.parametrize(("name", "preset"), [*CASES, ("prompts", "shallow"), ("norms", "shared")])
def test_every_tuning_learns_inside_every_fusion(fusion: str, name: str, preset: str) -> None:
    encoder = away_from_start(encoder_of(fusion, name, preset)).train()
    plain = tuned(None, fusion=fusion, depth=1)
    encoded, expected = encoder(*clips(encoder)), plain(*clips(plain))
    # What a tuning puts into the streams is taken out again.
    assert encoded.audio.shape == expected.audio.shape
    assert encoded.video.shape == expected.video.shape
    weights = torch.randn(2, 2, encoder.video_tower.dim, generator=torch.Generator().manual_seed(4))
    ((encoded.audio_pooled + encoded.video_pooled) * weights).sum().backward()
    reached = tuned_weights(encoder)
    assert reached
    for path, weight in reached.items():
        assert weight.grad is not None, path
        assert weight.grad.any(), path
    assert all(weight.grad is None for weight in encoder.parameters() if not weight.requires_grad)


@pytest.mark.parametrize(
    ("tower", "fusion", "name"),
    [
        ("swinv2_tiny_window8_256", "cma", "adapter"),
        *(("swin_tiny_patch4_window7_224", fusion, "prompts") for fusion in METHODS),
    ],
)
def test_towers_with_windows_take_a_tuning_inside_a_fusion(tower: str, fusion: str, name: str) -> None:
    encoder = away_from_start(
        living_norms(encoder_of(fusion, name, next(iter(TUNINGS[name].presets)), tower))
    )
    encoded = encoder.train()(*clips(encoder, 1, 2))
    (encoded.audio.square().mean() + encoded.video.square().mean()).backward()
    reached = tuned_weights(encoder)
    assert reached
    assert all(weight.grad is not None and weight.grad.any() for weight in reached.values())


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_closed_gates_of_the_attention_leave_the_tuning_as_it_is(name: str, preset: str) -> None:
    plain, heard = tuned(name, preset), tuned(name, preset, fusion="cma")
    own = dict(plain.tuning.named_parameters())
    for encoder in (plain, heard):
        torch.manual_seed(7)
        away_from_start(encoder).eval()
    with torch.no_grad():
        for path, weight in heard.named_parameters():
            if path.startswith("tuning."):
                weight.copy_(own[path.removeprefix("tuning.")])
            elif path.endswith("fusion_gate"):
                weight.zero_()
            elif weight.requires_grad and not path.startswith("fusion."):
                weight.copy_(plain.get_parameter(path))
        sound, frames = clips(plain)
        assert torch.equal(plain(sound, frames).video, heard(sound, frames).video)
        for path, weight in heard.named_parameters():
            if path.endswith("fusion_gate"):
                weight.fill_(0.7)
        assert not torch.equal(plain(sound, frames).video, heard(sound, frames).video)


def test_an_adapter_behind_the_attention_is_lavishs_own() -> None:
    """LAVISH is its latent attention and its bottleneck behind it."""
    lavish = tuned(None, fusion="lavish", encoder={"preset": "official_ave"})
    pair = tuned("adapter", "lavish", fusion="cma", encoder={"preset": "official_ave"})
    state = {}
    for path, weight in away_from_start(lavish).fusion.state_dict().items():
        _, index, site, rest = path.split(".", 3)
        if rest.startswith("bottleneck."):
            stream, place = site.split("_")
            state[f"tuning.streams.{stream}.{index}.{place}.{rest.removeprefix('bottleneck.')}"] = weight
        else:
            state[f"fusion.{path}"] = weight
    own = {name: value for name, value in pair.state_dict().items() if not name.startswith("video_tower.")}
    assert own.keys() == state.keys()
    pair.load_state_dict(state, strict=False)
    sound, frames = clips(lavish)
    found, expected = pair.train()(sound, frames), lavish.train()(sound, frames)
    torch.testing.assert_close(found.audio, expected.audio, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.video, expected.video, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("direction", ["both", "audio_to_visual", "visual_to_audio", "none"])
@pytest.mark.parametrize("sites", ["both", "attention", "mlp"])
def test_direction_and_sites_of_the_attention(direction: str, sites: str) -> None:
    encoder = tuned("adapter", fusion="cma", encoder={"options": {"direction": direction, "sites": sites}})
    away_from_start(encoder).eval()
    sound, frames = clips(encoder)
    sound.requires_grad_()
    frames.requires_grad_()
    encoder(sound, frames).video.sum().backward()
    assert (sound.grad is not None) == (direction in ("both", "audio_to_visual"))
    sound.grad = frames.grad = None
    encoder(sound, frames).audio.sum().backward()
    assert (frames.grad is not None) == (direction in ("both", "visual_to_audio"))
    gates = sum(path.endswith("fusion_gate") for path, _ in encoder.fusion.named_parameters())
    one_way = {"both": 2, "none": 0}.get(direction, 1)
    assert gates == 2 * one_way * (2 if sites == "both" else 1)


def test_attention_over_all_tokens_has_no_weights_but_its_gates() -> None:
    encoder = tuned("compacter", fusion="cma", encoder={"preset": "without_latents"})
    assert sum(weight.numel() for weight in encoder.fusion.parameters()) == 2 * 4
    assert encoder(*clips(encoder)).video.isfinite().all()
