"""CoPL's consistency loss: what it compares, what takes part, what it does."""

from typing import Any

import numpy as np
import pytest
import torch
from copl_cases import SEGMENTS, clips, encoder_of

from avtune.fusion import OptionError
from avtune.fusion.copl import Copl


@pytest.mark.parametrize("over", ["pooled", "mean", "tokens"])
def test_segments_beyond_a_files_end_take_no_part_in_the_consistency_loss(over: str) -> None:
    encoder = encoder_of("vit", consistency_over=over).train()
    encoded = encoder(*clips(encoder))
    foreground = torch.zeros(2 * SEGMENTS, dtype=torch.bool)
    valid = torch.arange(2 * SEGMENTS) % SEGMENTS < SEGMENTS - 1

    def loss(valid: torch.Tensor | None) -> torch.Tensor:
        return encoder.fusion.losses(encoded.notes, foreground, valid)["consistency"]

    each = [loss(torch.arange(2 * SEGMENTS) == k) for k in range(2 * SEGMENTS)]
    torch.testing.assert_close(loss(None), torch.stack(each).mean())
    torch.testing.assert_close(loss(valid), torch.stack([each[k] for k in valid.nonzero().flatten()]).mean())
    nothing = loss(torch.zeros_like(valid))
    assert nothing == 0
    nothing.backward()


@pytest.mark.parametrize(
    ("towers", "options", "over"),
    [
        ("vit", {}, "pooled"),
        ("swin", {"consistency_reduction": "sum"}, "pooled"),
        ("unshared", {"consistency": 2}, "pooled"),
        ("unshared", {"consistency_over": "mean", "consistency_width": "projected"}, "mean"),
        ("vit", {"consistency_over": "tokens", "consistency_reduction": "sum"}, "tokens"),
    ],
)
def test_the_consistency_loss_is_equation_10(towers: str, options: dict[str, Any], over: str) -> None:
    encoder = encoder_of(towers, **options).train()
    fusion = encoder.fusion
    assert isinstance(fusion, Copl)
    encoded = encoder(*clips(encoder))
    loss = fusion.losses(encoded.notes, torch.zeros(2 * SEGMENTS, dtype=torch.bool))["consistency"]
    streams = {
        "pooled": (encoded.audio_pooled.flatten(0, 1), encoded.video_pooled.flatten(0, 1)),
        "mean": (encoded.audio[:, encoder.audio_tower.prefix_tokens :].mean(1), encoded.video.mean(1)),
        "tokens": (encoded.audio, encoded.video),
    }[over]
    audio, video = (stream.detach().double().numpy() for stream in streams)
    if towers == "unshared":
        assert (audio.shape[-1], video.shape[-1]) == (48, 256)
        if fusion.match is None:
            video = averaged(video, 48)
        else:
            weight, bias = fusion.match.weight.detach().numpy(), fusion.match.bias.detach().numpy()
            audio = audio @ weight.T + bias
    squared = ((audio - video) ** 2).sum(-1).mean()
    per_channel = 1 if options.get("consistency_reduction") == "sum" else audio.shape[-1]
    expected = options.get("consistency", 0.005) * squared / per_channel
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)
    assert loss.shape == ()


def averaged(wide: Any, width: int) -> Any:
    """Channel k of ``width``: the mean of those of ``wide`` that it overlaps."""
    share = wide.shape[-1] / width
    spans = [(int(np.floor(k * share)), int(np.ceil((k + 1) * share))) for k in range(width)]
    return np.stack([wide[:, first:last].mean(-1) for first, last in spans], axis=-1)


def test_consistency_costs_nothing_when_it_is_off_or_nothing_is_trained() -> None:
    off = encoder_of(consistency=0.0).train()
    encoded = off(*clips(off))
    assert encoded.notes.records == {}
    assert off.fusion.losses(encoded.notes, torch.ones(6, dtype=torch.bool)) == {}
    evaluated = encoder_of().eval()
    assert evaluated(*clips(evaluated)).notes.records == {}


def test_prompts_can_bring_the_streams_together() -> None:
    encoder = encoder_of(consistency=1.0).train()
    batch = clips(encoder, batch=1)
    optimizer = torch.optim.Adam(encoder.fusion.parameters(), lr=0.03)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = encoder.fusion.losses(encoder(*batch).notes, torch.ones(3, dtype=torch.bool))["consistency"]
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


def test_token_wise_consistency_needs_equal_grids() -> None:
    with pytest.raises(OptionError, match="'tokens' where 17 tokens of sound meet 4 of frames; use 'pooled'"):
        encoder_of("unshared", consistency_over="tokens")
