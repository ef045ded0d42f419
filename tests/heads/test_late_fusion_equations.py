"""Each head against its equations, written out in numpy loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from encoded_streams import streams
from numpy_layers import (
    Array,
    array,
    attention,
    both_ways,
    layer_norm,
    linear,
    relu,
    sigmoid,
    softmax,
)

from avtune.config import HeadConfig
from avtune.encoder import Encoded
from avtune.heads import HEADS

CLASSES = 6
# Float32 sums of a few thousand products against float64 ones.
CLOSE = {"atol": 2e-5, "rtol": 2e-4}


def head_of(name: str, preset: str = "paper", audio_dim: int = 12, video_dim: int = 20) -> Any:
    torch.manual_seed(3)
    head = HEADS[name].build(audio_dim, video_dim, CLASSES, HeadConfig(name=name, preset=preset, hidden=32))
    for parameter in head.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.0)
    return head.eval()


def clips(encoded: Encoded, prefix: int) -> list[tuple[Array, Array, Any]]:
    """Sound (T, dim), cells (T, cells, dim) and which segments exist, clip by clip."""
    batch, segments = encoded.audio_pooled.shape[:2]
    video = array(encoded.video).reshape(batch, segments, *encoded.video.shape[1:])[:, :, prefix:]
    valid = np.ones((batch, segments), dtype=bool) if encoded.valid is None else encoded.valid.numpy()
    return [(array(encoded.audio_pooled[b]), video[b], valid[b]) for b in range(batch)]


def look(layer: Any, sound: Array, frame: Array) -> Array:
    """Audio-guided attention of one segment."""
    heard = linear(layer.audio_units, relu(linear(layer.audio, sound)))
    scores = []
    for c, cell in enumerate(frame):
        seen = linear(layer.video_units, relu(linear(layer.video, cell)))
        term = heard if layer.guidance == "hidden" else heard[c]
        scores.append(linear(layer.score, np.tanh(seen + term))[0])
    return sum(share * cell for share, cell in zip(softmax(np.array(scores)), frame, strict=True))


MASKS = [None, torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 1, 0]], dtype=torch.bool)]


@pytest.mark.parametrize("valid", MASKS, ids=["whole", "cut"])
@pytest.mark.parametrize(("preset", "grid", "prefix"), [("paper", 3, 1), ("paper", 2, 0), ("official", 7, 0)])
def test_avel_is_its_equations(preset: str, grid: int, prefix: int, valid: torch.Tensor | None) -> None:
    head, encoded = head_of("avel", preset), streams(grid=grid, prefix=prefix, valid=valid)
    with torch.no_grad():
        logits = array(head(encoded))
    for b, (sound, frames, there) in enumerate(clips(encoded, prefix)):
        seen = np.array([look(head.attention, a, v) for a, v in zip(sound, frames, strict=True)])
        both = np.concatenate([both_ways(head.audio, sound, there), both_ways(head.video, seen, there)], -1)
        expected = linear(head.classes, relu(linear(head.hidden, relu(both))))
        np.testing.assert_allclose(logits[b][there], expected[there], **CLOSE)


def pruned(affinity: Array, threshold: float) -> Array:
    result = np.zeros_like(affinity)
    for row, values in enumerate(affinity):
        share = values / (values.sum() + 1e-8)
        kept = np.array([x if x > threshold else 0.0 for x in share])
        result[row] = kept / (kept.sum() + 1e-8)
    return result


@pytest.mark.parametrize("valid", MASKS, ids=["whole", "cut"])
@pytest.mark.parametrize(("preset", "grid"), [("paper", 3), ("official", 7)])
def test_psp_is_its_equations(preset: str, grid: int, valid: torch.Tensor | None) -> None:
    head, encoded = head_of("psp", preset), streams(grid=grid, valid=valid)
    # Cuts some pairs of five and leaves others.
    head.propagation.threshold = 0.199
    with torch.no_grad():
        logits = array(head(encoded))
    similarity = array(encoded.notes.records["psp.similarity"][0])
    cut = 0
    for b, (sound, frames, there) in enumerate(clips(encoded, 0)):
        a = linear(head.audio_map[1], linear(head.audio_map[0], sound))
        seen = np.array([look(head.attention, x, v) for x, v in zip(a, frames, strict=True)])
        v = linear(head.video_map[1], linear(head.video_map[0], seen))
        # Segments that do not exist are left out altogether: nobody may notice.
        a, v = both_ways(head.audio, a, there)[there], both_ways(head.video, v, there)[there]
        p = head.propagation
        affinity = np.array(
            [
                [
                    max(0.0, relu(linear(p.video_second, x)) @ relu(linear(p.audio_first, y)) / np.sqrt(256))
                    for y in a
                ]
                for x in v
            ]
        )
        to_video, to_audio = pruned(affinity, 0.199), pruned(affinity.T, 0.199)
        cut += int((to_video == 0).sum())
        new_v = v + to_video @ relu(linear(p.audio_second, a))
        new_a = a + to_audio @ relu(linear(p.video_first, v))
        new_v = layer_norm(p.norm, relu(linear(p.video_out, new_v)))
        new_a = layer_norm(p.norm, relu(linear(p.audio_out, new_a)))
        expected = linear(head.classes, relu(linear(head.hidden, (new_a + new_v) / 2)))
        np.testing.assert_allclose(logits[b][there], expected, **CLOSE)
        cosine = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(new_a, new_v, strict=True)]
        np.testing.assert_allclose(similarity[b][there], cosine, **CLOSE)
    assert cut > 0, "the threshold cut nothing, so pruning was not tested"


def spatial_channel(layer: Any, sound: Array, frame: Array) -> Array:
    query, key, value = (linear(part, frame) for part in (layer.query, layer.key, layer.value))
    related = np.array([sum(w * u for w, u in zip(softmax(q @ key.T), value, strict=True)) for q in query])
    context = layer_norm(layer.norm, frame + related)
    mean = relu(linear(layer.own_mean, context.mean(axis=0)))
    own_scores = [
        np.tanh(linear(layer.own_score, relu(linear(layer.own_cells, c)) * mean)[0]) for c in context
    ]
    own = softmax(np.array(own_scores)) @ context
    heard = relu(linear(layer.channel_audio, sound))
    joint = np.mean([heard * relu(linear(layer.channel_video, c)) for c in context], axis=0)
    channels = sigmoid(linear(layer.channel_up, relu(linear(layer.channel_down, joint))))
    weighted = frame * (1 + channels)
    heard = relu(linear(layer.spatial_audio, sound))
    scores = [
        np.tanh(linear(layer.spatial_score, relu(linear(layer.spatial_video, c)) * heard)[0])
        for c in weighted
    ]
    seen = softmax(np.array(scores)) @ weighted
    return seen + layer.beta * sigmoid(own) * seen


def closed(layer: Any, x: Array, attended: Array) -> Array:
    x = layer_norm(layer.norm_attention, x + attended)
    return layer_norm(layer.norm_feed, x + linear(layer.down, relu(linear(layer.up, x))))


def remembered(encoder: Any, x: Array) -> Array:
    x = linear(encoder.enter, x)
    for layer in encoder.layers:
        x = closed(layer.feed, x, attention(layer.attention, x, x))
    return x


def cmbs(head: Any, sound: Array, frames: Array) -> dict[str, Array]:
    """One clip without padding."""
    s, everywhere = head.settings, np.ones(len(sound), dtype=bool)
    reduced = relu(linear(head.reduce[0], frames))
    seen = np.array([spatial_channel(head.attention, x, v) for x, v in zip(sound, reduced, strict=True)])
    a, v = both_ways(head.audio, sound, everywhere), both_ways(head.video, seen, everywhere)
    memory_a, memory_v = remembered(head.audio_memory, a), remembered(head.video_memory, v)
    a, v = linear(head.audio_query, a), linear(head.video_query, v)
    hears_a, hears_v = head.audio_hears, head.video_hears
    a = closed(hears_a.feed, a, attention(hears_a.attention, a, np.concatenate([memory_v, a])))
    v = closed(hears_v.feed, v, attention(hears_v.attention, v, np.concatenate([memory_a, v])))
    gate_a, gate_v = sigmoid(linear(head.audio_gate, memory_a)), sigmoid(linear(head.video_gate, memory_v))
    v, a = v + gate_a * v * s.alpha, a + gate_v * a * s.alpha
    tops = []
    for layer, x in ((head.audio_classes, a), (head.video_classes, v)):
        scores = np.sort(linear(layer, x), axis=0)[::-1][: s.strongest]
        tops.append(scores.mean(axis=0))
    activation = (tops[0] + tops[1]) / 2

    def interact(layer: Any, x: Array, other: Array) -> Array:
        product = x * other
        return layer_norm(
            layer.norm, product + attention(layer.attention, product, np.concatenate([other, x]))
        )

    v = interact(head.video_interaction, v, a)
    a = interact(head.audio_interaction, a, v)
    both = (a + v) / 2
    return {
        "cmbs.relevance": linear(head.relevance, both)[:, 0],
        "cmbs.events": linear(head.events, both.max(axis=0)) + s.gamma * activation,
        "cmbs.gate": (gate_a * gate_v)[:, 0],
        "cmbs.activation": activation,
    }


@pytest.mark.parametrize("valid", MASKS, ids=["whole", "cut"])
@pytest.mark.parametrize(("grid", "prefix"), [(3, 1), (2, 0)])
def test_cmbs_is_its_equations(grid: int, prefix: int, valid: torch.Tensor | None) -> None:
    head, encoded = head_of("cmbs"), streams(grid=grid, prefix=prefix, valid=valid)
    with torch.no_grad():
        logits = array(head(encoded))
    for b, (sound, frames, there) in enumerate(clips(encoded, prefix)):
        expected = cmbs(head, sound[there], frames[there])
        for name, value in expected.items():
            found = array(encoded.notes.records[name][0][b])
            found = found[there] if name in ("cmbs.relevance", "cmbs.gate") else found
            np.testing.assert_allclose(found, value, **CLOSE, err_msg=name)
        # The authors' rule: the clip's class where relevance is above one half, else background.
        relevant = sigmoid(expected["cmbs.relevance"]) > 0.5
        rule = np.where(relevant, expected["cmbs.events"].argmax(), CLASSES - 1)
        np.testing.assert_array_equal(logits[b][there].argmax(-1), rule)
