"""The parsing head: its pooling by hand, what it must not read, its attention against PyTorch's own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from encoded_streams import clips_of, streams
from hypothesis import given, settings
from hypothesis import strategies as st

from avtune.encoder import Encoded
from avtune.heads.parsing import NEVER, HybridAttention, ParsingHead, ParsingSettings, pool

VALID = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0]], dtype=torch.bool)
CLASSES = 4

Doubles = npt.NDArray[np.float64]


def head_of(**options: object) -> ParsingHead:
    torch.manual_seed(3)
    return ParsingHead(12, 20, CLASSES, ParsingSettings(width=8, **options)).eval()  # type: ignore[arg-type]


def softmax(x: Doubles, axis: int | tuple[int, ...]) -> Doubles:
    e: Doubles = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sigmoid(x: Doubles) -> Doubles:
    return 1 / (1 + np.exp(-x))


def logits(seed: int, *shape: int) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("joint", [False, True])
def test_pooling_by_hand(joint: bool) -> None:
    answers, time, stream = (logits(seed, 3, 5, 2, CLASSES) for seed in range(3))
    here = torch.tensor([[1, 1], [1, 1], [0, 1]], dtype=torch.bool)
    clip, alone = pool(answers, time, stream, VALID, here, joint=joint)
    for b in range(3):
        # Only segments and streams that exist are in the sums at all.
        exists, there = VALID[b].numpy(), here[b].numpy()
        p, f, g = (part[b].double().numpy()[exists] for part in (answers, time, stream))
        own = (softmax(f, 0) * sigmoid(p)).sum(0)
        p, f, g = p[:, there], f[:, there], g[:, there]
        weights = softmax(f + g, (0, 1)) if joint else softmax(f, 0) * softmax(g, 1)
        share = np.clip((weights * sigmoid(p)).sum((0, 1)), 1e-7, 1 - 1e-7)
        # Single precision: where the clamp holds a probability at 1 - 1e-7, its logarithm has one digit left.
        np.testing.assert_allclose(clip[b].sigmoid().numpy(), share, atol=2e-6)
        np.testing.assert_allclose(alone[b].sigmoid().numpy(), own, atol=2e-6)


def test_the_papers_weights_can_add_up_to_two_and_joint_ones_add_up_to_one() -> None:
    # Each stream attends to another second, and in its own second each stream is trusted alone.
    time = torch.full((1, 2, 2, 1), -30.0)
    time[0, 0, 0], time[0, 1, 1] = 30.0, 30.0
    surely, valid, here = torch.full((1, 2, 2, 1), 1.0), torch.ones(1, 2).bool(), torch.ones(1, 2).bool()
    product, _ = pool(surely, time, time, valid, here, joint=False)
    joint, _ = pool(surely, time, time, valid, here, joint=True)
    assert float(product.sigmoid()) > 0.999  # 2 * sigmoid(1), held below one
    assert float(joint) == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), joint=st.booleans())
def test_padding_and_company_change_no_answer(seed: int, joint: bool) -> None:
    head = head_of(pooling="joint" if joint else "product")
    encoded = streams(3, 5, valid=VALID, seed=seed)
    with torch.no_grad():
        together = head(encoded)
        noisy = streams(3, 5, valid=VALID, seed=seed)
        for pooled in (noisy.audio_pooled, noisy.video_pooled):
            pooled[~VALID] = 50.0
        changed = head(noisy)
        alone = torch.cat([head(clips_of(encoded, torch.tensor([k]))) for k in range(3)])
    torch.testing.assert_close(together[VALID], changed[VALID], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[VALID], alone[VALID], rtol=1e-4, atol=1e-5)


def test_nothing_is_heard_without_sound_and_the_frames_alone_make_the_clip() -> None:
    head = head_of()
    encoded = streams(2, 5)
    encoded.has_audio, encoded.has_video = torch.tensor([True, False]), torch.tensor([True, True])
    out = head(encoded)
    assert (out[1, :, 0] == NEVER).all()
    assert (out[0, :, 0] > NEVER).all()
    own = encoded.notes.records["stream_clip_logits"][-1]
    # With one stream its softmax over streams is one everywhere: the clip is answered as the frames alone.
    torch.testing.assert_close(out[1, 0, 2], own[1, 1], rtol=1e-4, atol=1e-5)


def test_a_clip_with_neither_stream_nor_segment_has_finite_answers() -> None:
    encoded = streams(1, 5, valid=torch.zeros(1, 5).bool())
    encoded.has_audio = encoded.has_video = torch.tensor([False])
    out = head_of()(encoded)
    assert torch.isfinite(out).all()


def test_hybrid_attention_is_the_sum_of_both_attentions() -> None:
    torch.manual_seed(0)
    layer = HybridAttention(8, heads=2, dropout=0.1).eval()
    x, other = logits(0, 2, 5, 8), logits(1, 2, 5, 8)
    absent = ~VALID[:2]
    found = layer(x, other, absent)

    def attend(attention: torch.nn.MultiheadAttention, keys: torch.Tensor) -> torch.Tensor:
        wq, wk, wv = attention.in_proj_weight.chunk(3)
        bq, bk, bv = attention.in_proj_bias.chunk(3)
        q, k, v = x @ wq.T + bq, keys @ wk.T + bk, keys @ wv.T + bv
        out = []
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / 2  # sqrt(4)
            out.append(scores.masked_fill(absent[:, None], -torch.inf).softmax(-1) @ v[..., part])
        return attention.out_proj(torch.cat(out, -1))

    y = layer.attention_norm(x + attend(layer.within, x) + attend(layer.across, other))
    torch.testing.assert_close(found, layer.feed_norm(y + layer.feed(y)), rtol=1e-5, atol=1e-6)


def test_every_weight_has_a_gradient_also_where_all_is_padding() -> None:
    head = head_of()
    for valid in (VALID, torch.zeros_like(VALID)):
        head.zero_grad()
        encoded = streams(3, 5, valid=valid)
        out = head(encoded)
        (out[..., 2, :].sum() + encoded.notes.records["stream_clip_logits"][-1].sum()).backward()
        for name, weight in head.named_parameters():
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name


def test_without_attention_a_segment_is_answered_from_itself() -> None:
    head = head_of(hybrid_layers=0)
    first: Encoded = streams(1, 5)
    second = streams(1, 5)
    second.audio_pooled[0, 1:] = 0
    assert torch.equal(head(first)[0, 0, :2], head(second)[0, 0, :2])
    assert not torch.equal(head(first)[0, 0, 2], head(second)[0, 0, 2])
