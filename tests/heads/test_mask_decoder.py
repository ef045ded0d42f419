"""The mask decoder and TPAVI: the printed form, the published weights, clips that never mix."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from avtune.heads.mask_decoder import MaskDecoder
from avtune.heads.tpavi import Tpavi


def as_printed(tpavi: Tpavi, pixels: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
    """Z with the N x N matrix, the sound tiled over the places of its second."""
    _, segments, places, _ = pixels.shape
    sound = tpavi.align(audio)[:, :, None].expand(-1, -1, places, -1).flatten(1, 2)
    x = pixels.flatten(1, 2)
    alpha = tpavi.theta(x) @ tpavi.phi(sound).transpose(1, 2) / (segments * places)
    added = tpavi.norm_out(tpavi.out(alpha @ tpavi.g(x)))
    return tpavi.norm(x + added).view_as(pixels)


@settings(max_examples=20)
@given(
    batch=st.integers(1, 3), segments=st.integers(1, 5), places=st.integers(1, 20), seed=st.integers(0, 99)
)
def test_the_factored_form_is_the_printed_one(batch: int, segments: int, places: int, seed: int) -> None:
    torch.manual_seed(seed)
    tpavi = Tpavi(16, 6).double().eval()
    torch.nn.init.normal_(tpavi.norm_out.weight)
    pixels = torch.randn(batch, segments, places, 16, dtype=torch.float64, requires_grad=True)
    audio = torch.randn(batch, segments, 6, dtype=torch.float64, requires_grad=True)
    ours, sound = tpavi(pixels, audio)
    theirs = as_printed(tpavi, pixels, audio)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert sound.shape == (batch, segments, 16)
    weights = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad((ours * weights).sum(), [pixels, audio]),
        torch.autograd.grad((theirs * weights).sum(), [pixels, audio]),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=0)


def test_no_matrix_of_places_by_places_is_kept() -> None:
    tpavi = Tpavi(32, 8)
    largest = [0]

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        largest[0] = max(largest[0], tensor.numel())
        return tensor

    pixels = torch.randn(1, 5, 28 * 28, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tpavi(pixels, torch.randn(1, 5, 8))
    assert largest[0] <= pixels.numel()


def test_it_starts_as_the_norm_of_its_input() -> None:
    tpavi = Tpavi(16, 6).train()
    pixels, audio = torch.randn(2, 3, 4, 16), torch.randn(2, 3, 6)
    assert torch.equal(tpavi(pixels, audio)[0], F.layer_norm(pixels, (16,)))
    assert torch.equal(tpavi(pixels, audio)[0], tpavi(pixels, 9 * audio)[0])


@pytest.mark.parametrize(("scales", "millions"), [((), 19.215), ((0, 1, 2, 3), 19.878)])
def test_weights_are_those_of_the_published_decoder(scales: tuple[int, ...], millions: float) -> None:
    with torch.device("meta"):
        decoder = MaskDecoder(hearing_scales=scales)
    # With 1.291 M in front of it, LAVISH's head on AVSBench: 20.506 M; TPAVI adds 165,760 a scale.
    built = sum(weight.numel() for weight in decoder.parameters())
    assert decoder.unused_parameters == 2 * 590_080
    assert round((built + decoder.unused_parameters) / 1e6, 3) == millions


@pytest.mark.parametrize("outputs", [1, 5])
def test_masks_have_four_times_the_finest_grid_and_clips_never_mix(outputs: int) -> None:
    torch.manual_seed(0)
    dims = (4, 6, 8, 10)
    decoder = MaskDecoder(dims, outputs=outputs, audio_dim=3, hearing_scales=(1, 3), dim=8).eval()
    scales = [torch.randn(2, 3, dim, 16 >> k, 16 >> k) for k, dim in enumerate(dims)]
    audio = torch.randn(2, 3, 3)
    masks, entered, sounds = decoder(scales, audio)
    assert masks.shape == (2, 3, outputs, 64, 64)
    assert [x.shape[-1] for x in entered] == [16, 8, 4, 2]
    assert {number: sound.shape for number, sound in sounds.items()} == dict.fromkeys((1, 3), (2, 3, 8))
    alone = decoder([scale[1:] for scale in scales], audio[1:])[0]
    torch.testing.assert_close(alone, masks[1:], atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_weight() -> None:
    torch.manual_seed(0)
    decoder = MaskDecoder((4, 4, 4, 4), audio_dim=3, hearing_scales=(0, 1, 2, 3), dim=8).train()
    for tpavi in decoder.hear.values():
        torch.nn.init.normal_(tpavi.norm_out.weight)
    masks, _, _ = decoder([torch.randn(2, 2, 4, 8 >> k, 8 >> k) for k in range(4)], torch.randn(2, 2, 3))
    masks.square().sum().backward()
    for name, weight in decoder.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.any(), name
