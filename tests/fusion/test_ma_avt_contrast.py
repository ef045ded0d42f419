"""MA-AVT's contrastive loss: its rows, its matching functions, batches with nothing to contrast."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from ma_avt_cases import encoder_of, head_of, whole_loss
from torch import Tensor

from avtune.fusion.contrastive import BlockwiseContrast, Feature, contrastive_loss
from random_clips import clips


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
