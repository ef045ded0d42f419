"""The retrieval head: unit vectors of the segments that exist, and a temperature that keeps its bounds."""

from __future__ import annotations

import pytest
import torch
from encoded_streams import clips_of, streams

from avtune.errors import AvtuneError
from avtune.heads.retrieval import PRESETS, RetrievalHead, RetrievalSettings

VALID = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 1, 0]], dtype=torch.bool)


def head_of(audio: int = 12, video: int = 20, **settings: object) -> RetrievalHead:
    torch.manual_seed(1)
    return RetrievalHead(audio, video, RetrievalSettings(**settings))  # type: ignore[arg-type]


def test_vectors_are_projected_means_of_what_exists() -> None:
    head = head_of(width=6)
    out = head(streams(3, 5, valid=VALID))
    assert out.shape == (3, 2, 6)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(3, 2))
    for b in range(3):
        encoded = streams(3, 5)
        mean = encoded.audio_pooled[b, VALID[b]].mean(0)
        norm, linear = head.audio
        expected = linear(torch.nn.functional.layer_norm(mean, (12,), norm.weight, norm.bias))
        torch.testing.assert_close(out[b, 0], expected / expected.norm(), rtol=1e-5, atol=1e-6)


def test_padding_and_company_change_no_vector() -> None:
    head = head_of()
    encoded, noisy = streams(3, 5, valid=VALID), streams(3, 5, valid=VALID)
    noisy.audio_pooled[~VALID], noisy.video_pooled[~VALID] = 99.0, -99.0
    torch.testing.assert_close(head(encoded), head(noisy))
    alone = torch.cat([head(clips_of(encoded, torch.tensor([k]))) for k in range(3)])
    torch.testing.assert_close(head(encoded), alone)


def test_a_stream_that_is_absent_is_zeros() -> None:
    encoded = streams(2, 5)
    encoded.has_audio, encoded.has_video = torch.tensor([True, False]), torch.tensor([False, True])
    out = head_of()(encoded)
    assert not out[1, 0].any()
    assert not out[0, 1].any()
    torch.testing.assert_close(out[0, 0].norm(), torch.tensor(1.0))


def test_features_without_projection_have_no_weight_to_train() -> None:
    head = RetrievalHead(12, 12, PRESETS["features"])
    assert not [name for name, weight in head.named_parameters() if weight.requires_grad]
    encoded = streams(2, 5, audio_dim=12, video_dim=12)
    mean = encoded.video_pooled.mean(1)
    torch.testing.assert_close(head(encoded)[:, 1], mean / mean.norm(dim=-1, keepdim=True))
    assert float(encoded.notes.records["temperature"][-1]) == pytest.approx(0.05, rel=1e-6)


def test_the_temperature_begins_where_told_and_keeps_its_bounds() -> None:
    head = head_of(temperature=0.07)
    assert float(head.temperature.detach()) == pytest.approx(0.07, rel=1e-6)
    for place, bound in ((-60.0, 0.01), (60.0, 0.5)):
        head.place.data.fill_(place)
        assert float(head.temperature.detach()) == pytest.approx(bound, rel=1e-6)
    head.place.data.fill_(-8.0)
    head.temperature.backward()
    assert head.place.grad is not None
    assert float(head.place.grad) > 0


@pytest.mark.parametrize(
    ("dims", "settings", "message"),
    [
        ((12, 20), {"width": None}, "12 and 20 channels"),
        ((12, 12), {"temperature": 0.6}, "0.6 must lie between coldest 0.01 and warmest 0.5"),
        ((12, 12), {"coldest": 0.0}, "all above 0"),
    ],
)
def test_what_does_not_fit_is_refused(
    dims: tuple[int, int], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(AvtuneError, match=message):
        head_of(*dims, **settings)
