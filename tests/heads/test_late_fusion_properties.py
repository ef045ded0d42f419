"""Late-fusion heads: which segments and cells they read, that clips stay apart, that all weights learn."""

from __future__ import annotations

from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from encoded_streams import clips_of, streams
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from avtune.config import HeadConfig
from avtune.encoder import Encoded
from avtune.heads import HEADS
from avtune.heads.cmbs import gated_logits, strongest_mean
from avtune.heads.psp import prune
from avtune.heads.segments import BidirectionalLSTM, cells, existing

CLASSES = 6
LATE_FUSION = ["avel", "psp", "cmbs"]
VARIANTS = [(name, preset) for name in LATE_FUSION for preset in HEADS[name].presets]
CUT = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 1, 0]], dtype=torch.bool)
TARGET = torch.tensor([[1, 1, 5, 5, 0], [5, 5, 5, 5, 5], [2, 5, 2, 4, 5]])


def config_of(name: str, preset: str | None = None) -> HeadConfig:
    return HeadConfig(name=name, preset=preset, hidden=32)  # type: ignore[arg-type]


def head_of(name: str, preset: str | None = None) -> nn.Module:
    torch.manual_seed(1)
    return HEADS[name].build(12, 20, CLASSES, config_of(name, preset))


def loss_of(name: str, logits: torch.Tensor, encoded: Encoded, preset: str | None = None) -> torch.Tensor:
    valid = CUT if encoded.valid is None else encoded.valid
    return HEADS[name].loss(logits, encoded.notes, TARGET, valid, config_of(name, preset))


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_gradients_reach_every_weight(name: str, preset: str) -> None:
    head, encoded = head_of(name, preset).train(), streams(grid=7, valid=CUT)
    loss_of(name, head(encoded), encoded, preset).backward()
    for label, weight in head.named_parameters():
        assert weight.requires_grad
        assert weight.grad is not None, label
        # A bias of keys shifts all scores of a query alike, and softmax does not see that.
        if label != "attention.key.bias":
            assert weight.grad.abs().sum() > 0, label


@pytest.mark.parametrize("name", LATE_FUSION)
@pytest.mark.parametrize("valid", [None, CUT], ids=["whole", "cut"])
def test_neither_the_order_nor_the_company_of_clips_matters(name: str, valid: torch.Tensor | None) -> None:
    head, encoded = head_of(name).eval(), streams(valid=valid)
    with torch.no_grad():
        whole = head(encoded)
        order = torch.tensor([2, 0, 1])
        torch.testing.assert_close(head(clips_of(encoded, order)), whole[order], atol=1e-5, rtol=1e-4)
        for k in range(3):
            alone = head(clips_of(encoded, torch.tensor([k])))
            assert alone.shape == (1, 5, CLASSES)
            torch.testing.assert_close(alone[0], whole[k], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", LATE_FUSION)
def test_segments_beyond_a_clip_change_no_answer_no_loss_and_no_gradient(name: str) -> None:
    found = []
    for content in (0.0, 7.0):
        head, encoded = head_of(name).eval(), streams(valid=CUT)
        video = encoded.video.view(3, 5, *encoded.video.shape[1:])
        for stream in (encoded.audio_pooled, encoded.video_pooled, video):
            stream[~CUT] = content * torch.randn_like(stream[~CUT])
        logits = head(encoded)
        loss = loss_of(name, logits, encoded)
        loss.backward()
        gradients = torch.cat([weight.grad.flatten() for weight in head.parameters()])
        found.append((logits[CUT].detach(), loss.detach(), gradients))
    # Sums over rows that are masked out are exact zeros; libraries may add the others in another order.
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", LATE_FUSION)
def test_a_clip_without_any_segment_gives_no_nan_and_no_loss(name: str) -> None:
    nothing = torch.zeros(3, 5, dtype=torch.bool)
    head, encoded = head_of(name).train(), streams(valid=nothing)
    loss = loss_of(name, head(encoded), encoded)
    loss.backward()
    assert loss == 0
    for label, weight in head.named_parameters():
        # Not None: under several processes all of them wait for every gradient.
        assert torch.equal(weight.grad, torch.zeros_like(weight)), label


@pytest.mark.parametrize("name", LATE_FUSION)
def test_one_segment_is_enough(name: str) -> None:
    head, encoded = head_of(name).eval(), streams(batch=1, segments=1)
    assert head(encoded).isfinite().all()


@pytest.mark.parametrize("name", LATE_FUSION)
def test_a_seed_fixes_everything(name: str) -> None:
    found = []
    for _ in range(2):
        head, encoded = head_of(name).train(), streams(valid=CUT)
        torch.manual_seed(5)
        loss_of(name, head(encoded), encoded).backward()
        found.append(torch.cat([weight.grad.flatten() for weight in head.parameters()]))
    assert torch.equal(*found)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_cells_are_the_patches_without_the_prefix(prefix: int) -> None:
    encoded = streams(grid=3, prefix=prefix)
    expected = encoded.video.view(3, 5, 9 + prefix, 20)[:, :, prefix:]
    assert torch.equal(cells(encoded), expected)
    head = head_of("avel").eval()
    with torch.no_grad():
        before = head(encoded)
        encoded.video[:, :prefix] += 10
        assert torch.equal(head(encoded), before)


def test_without_a_mask_all_segments_exist_and_an_empty_clip_counts_as_whole() -> None:
    assert existing(streams()).all()
    mask = CUT.clone()
    mask[1] = False
    expected = mask.clone()
    expected[1] = True
    assert torch.equal(existing(streams(valid=mask)), expected)


def copied(own: BidirectionalLSTM, dim: int, hidden: int) -> nn.LSTM:
    library = nn.LSTM(dim, hidden, batch_first=True, bidirectional=True)
    state = {**own.ahead.state_dict(), **{f"{k}_reverse": v for k, v in own.back.state_dict().items()}}
    library.load_state_dict(state)
    return library


@settings(deadline=None, max_examples=25)
@given(batch=st.integers(1, 4), lengths=st.lists(st.integers(1, 6), min_size=4, max_size=4))
def test_the_recurrence_is_that_of_packed_sequences(batch: int, lengths: list[int]) -> None:
    torch.manual_seed(0)
    own = BidirectionalLSTM(7, 5)
    library, x = copied(own, 7, 5), torch.randn(batch, 6, 7)
    sizes = torch.tensor(lengths[:batch])
    valid = torch.arange(6) < sizes[:, None]
    with torch.no_grad():
        packed = nn.utils.rnn.pack_padded_sequence(x, sizes, batch_first=True, enforce_sorted=False)
        expected, _ = nn.utils.rnn.pad_packed_sequence(library(packed)[0], batch_first=True, total_length=6)
        torch.testing.assert_close(own(x, valid)[valid], expected[valid], atol=1e-6, rtol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4))
def test_gaps_are_skipped_wherever_they_stand(mask: list[list[bool]]) -> None:
    torch.manual_seed(0)
    own, valid = BidirectionalLSTM(7, 5), torch.tensor(mask)
    library, x = copied(own, 7, 5), torch.randn(len(mask), 6, 7)
    with torch.no_grad():
        found = own(x, valid)
        for k, there in enumerate(valid):
            if there.any():
                expected, _ = library(x[k, there][None])
                torch.testing.assert_close(found[k, there], expected[0], atol=1e-6, rtol=1e-5)


numbers = st.floats(-30, 30, width=32)
# Apart by more than what softmax's rounding makes equal.
hundredths = st.integers(-3000, 3000).map(lambda n: n / 100)


@settings(deadline=None)
@given(
    relevance=st.lists(numbers.filter(bool), min_size=4, max_size=4),
    events=st.lists(numbers, min_size=3, max_size=3, unique=True),
)
def test_gated_answers_follow_the_rule_to_the_last_digit(relevance: list[float], events: list[float]) -> None:
    r, e = torch.tensor([relevance]), torch.tensor([events])
    # In float32 the sigmoid of the smallest positive numbers is one half; they are positive all the same.
    relevant = torch.sigmoid(r.double()) > 0.5 if float(r.abs().min()) > 1e-6 else r > 0
    rule = torch.where(relevant, e.argmax(-1, keepdim=True), 3)
    assert torch.equal(gated_logits(r, e).argmax(-1), rule)


@settings(deadline=None)
@given(
    relevance=st.lists(hundredths.filter(bool), min_size=4, max_size=4),
    events=st.lists(hundredths, min_size=3, max_size=3, unique=True),
)
def test_gated_probabilities_sum_to_one_and_answer_as_the_rule(
    relevance: list[float], events: list[float]
) -> None:
    r, e = torch.tensor([relevance]), torch.tensor([events])
    probabilities = gated_logits(r, e).softmax(-1)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(1, 4))
    rule = torch.where(torch.sigmoid(r) > 0.5, e.argmax(-1, keepdim=True), 3)
    assert torch.equal(probabilities.argmax(-1), rule)
    best, background = probabilities[..., :3].amax(-1).double(), probabilities[..., 3].double()
    torch.testing.assert_close((best / (best + background)), torch.sigmoid(r.double()), atol=1e-5, rtol=1e-4)


@settings(deadline=None)
@given(
    mask=st.lists(st.booleans(), min_size=6, max_size=6).filter(any),
    count=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_the_strongest_segments_are_averaged(mask: list[bool], count: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(6, 3))
    kept = scores[np.array(mask)]
    expected = [np.mean(sorted(kept[:, c], reverse=True)[:count]) for c in range(3)]
    found = strongest_mean(torch.tensor(scores)[None], torch.tensor([mask]), count)
    np.testing.assert_allclose(found[0].numpy(), expected)


@settings(deadline=None)
@given(seed=st.integers(0, 999), threshold=st.floats(0.0, 0.6), zero=st.booleans())
def test_pruned_rows_sum_to_one_or_are_empty(seed: int, threshold: float, zero: bool) -> None:
    affinity = torch.from_numpy(np.random.default_rng(seed).exponential(size=(1, 5, 5)))
    if zero:
        affinity[0, 2] = 0
    kept = prune(affinity, threshold)
    total = affinity.sum(-1, keepdim=True)
    survives = affinity > threshold * (total + 1e-8)
    assert torch.equal(kept > 0, survives & (affinity > 0))
    expected = survives.any(-1) & (total[..., 0] > 0)
    torch.testing.assert_close(kept.sum(-1), expected.double(), atol=1e-6, rtol=0)
    if threshold == 0 and not zero:
        torch.testing.assert_close(kept, affinity / total, atol=1e-6, rtol=0)


def test_the_official_attention_refuses_another_grid_by_name() -> None:
    from avtune.errors import AvtuneError

    for name in ("avel", "psp"):
        with pytest.raises(
            AvtuneError, match=r"grid of 49 cells, but the tower gives 9; choose head\.preset"
        ):
            head_of(name, "official")(streams(grid=3))


def test_a_recipe_can_name_exactly_the_heads_of_the_table() -> None:
    assert get_args(get_type_hints(HeadConfig)["name"]) == tuple(HEADS)


def test_presets_differ_in_what_they_say() -> None:
    for name in LATE_FUSION:
        settings_of = HEADS[name].presets
        assert settings_of["paper"] != settings_of["official"]
