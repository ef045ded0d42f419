"""DG-SCT's head: its equations in numpy loops, its pooling by maps, its weights."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from encoded_streams import clips_of, streams
from numpy_layers import Array, array, attention, both_ways, layer_norm, linear, relu, sigmoid
from test_late_fusion_equations import CLOSE, closed, remembered

from avtune.config import HeadConfig
from avtune.counting import count_parameters
from avtune.encoder import Encoded
from avtune.fusion.dg_sct import AUDIO_MAP, VIDEO_MAP
from avtune.heads import HEADS
from avtune.heads.cmbs import PRESETS as CMBS_PRESETS
from avtune.heads.dg_sct import PRESETS
from avtune.model import AudioVisualModel
from avtune.recipes import parse_config, recipe_path

CLASSES = 6
CUT = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 1, 0]], dtype=torch.bool)
TARGET = torch.tensor([[1, 1, 5, 5, 0], [5, 5, 5, 5, 5], [2, 5, 2, 4, 5]])
DG_SCT = HEADS["dg_sct"]


def config_of(preset: str) -> HeadConfig:
    return HeadConfig(name="dg_sct", preset=preset, hidden=32)  # type: ignore[arg-type]


def head_of(preset: str) -> Any:
    torch.manual_seed(3)
    head = DG_SCT.build(12, 20, CLASSES, config_of(preset))
    for parameter in head.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.0)
    return head.eval()


def mapped(valid: torch.Tensor | None = None, prefix: int = 0) -> Encoded:
    """Streams of 3 clips of 5 segments with the maps of two layers."""
    encoded = streams(valid=valid, prefix=prefix)
    generator = torch.Generator().manual_seed(7)
    for _ in range(2):
        for name in (AUDIO_MAP, VIDEO_MAP):
            encoded.notes.record(name, torch.randn(15, 9 + prefix, generator=generator).softmax(-1))
    return encoded


def summed(tokens: torch.Tensor, maps: list[torch.Tensor], clip: int) -> Array:
    """(T, dim): each segment's tokens under the last map, one by one."""
    weights, values = array(maps[-1]), array(tokens)
    return np.array(
        [
            sum(w * x for w, x in zip(weights[5 * clip + t], values[5 * clip + t], strict=True))
            for t in range(5)
        ]
    )


def answer(head: Any, sound: Array, frames: Array, gamma: float = 0.1) -> dict[str, Array]:
    """One clip without padding, from both streams summed up."""
    everywhere = np.ones(len(sound), dtype=bool)
    a = both_ways(head.audio, linear(head.audio_reduce, sound), everywhere)
    v = both_ways(head.video, relu(linear(head.reduce[0], frames)), everywhere)
    memory_a, memory_v = remembered(head.audio_memory, a), remembered(head.video_memory, v)
    a, v = linear(head.audio_query, a), linear(head.video_query, v)
    hears_a, hears_v = head.audio_hears, head.video_hears
    a = closed(hears_a.feed, a, attention(hears_a.attention, a, np.concatenate([memory_v, a])))
    v = closed(hears_v.feed, v, attention(hears_v.attention, v, np.concatenate([memory_a, v])))
    gate_a, gate_v = sigmoid(linear(head.audio_gate, memory_a)), sigmoid(linear(head.video_gate, memory_v))
    v, a = v + gate_a * v * gamma, a + gate_v * a * gamma
    tops = [
        np.sort(linear(layer, x), axis=0)[::-1][:4].mean(axis=0)
        for layer, x in ((head.audio_classes, a), (head.video_classes, v))
    ]
    activation = (tops[0] + tops[1]) / 2
    if head.settings.interact:
        for layer, stream in ((head.video_interaction, "v"), (head.audio_interaction, "a")):
            x, other = (v, a) if stream == "v" else (a, v)
            asked = attention(layer.attention, x * other, np.concatenate([other, x]))
            x = layer_norm(layer.norm, x * other + asked)
            v, a = (x, a) if stream == "v" else (v, x)
    both = (a + v) / 2
    return {
        "cmbs.relevance": linear(head.relevance, both)[:, 0],
        "cmbs.events": linear(head.events, both.max(axis=0)) + 0.3 * activation,
        "cmbs.gate": (gate_a * gate_v)[:, 0],
        "cmbs.activation": activation,
    }


@pytest.mark.parametrize("valid", [None, CUT], ids=["whole", "cut"])
@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("prefix", [0, 1])
def test_it_is_its_equations(preset: str, valid: torch.Tensor | None, prefix: int) -> None:
    head, encoded = head_of(preset), mapped(valid, prefix)
    before = encoded.audio.clone(), encoded.video.clone(), encoded.video_pooled.clone()
    with torch.no_grad():
        logits = array(head(encoded))
    records = encoded.notes.records
    for b in range(3):
        there = np.ones(5, dtype=bool) if valid is None else valid[b].numpy()
        sound, frames = (
            summed(encoded.audio, records[AUDIO_MAP], b),
            summed(encoded.video, records[VIDEO_MAP], b),
        )
        expected = answer(head, sound[there], frames[there])
        for name, value in expected.items():
            found = array(records[name][0][b])
            found = found[there] if name in ("cmbs.relevance", "cmbs.gate") else found
            np.testing.assert_allclose(found, value, **CLOSE, err_msg=name)
        relevant = sigmoid(expected["cmbs.relevance"]) > 0.5
        rule = np.where(relevant, expected["cmbs.events"].argmax(), CLASSES - 1)
        np.testing.assert_array_equal(logits[b][there].argmax(-1), rule)
    # What other readers of the encoded streams see is as it was.
    for one, other in zip(before, (encoded.audio, encoded.video, encoded.video_pooled), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_loss_is_four_questions_and_reaches_every_weight(preset: str) -> None:
    head, encoded = head_of(preset).train(), mapped(CUT)
    encoded.audio.requires_grad_()
    encoded.video.requires_grad_()
    logits = head(encoded)
    loss = DG_SCT.loss(logits, encoded.notes, TARGET, CUT, config_of(preset))
    loss.backward()
    for name, weight in head.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name
    assert encoded.audio.grad.abs().sum() > 0
    assert encoded.video.grad.abs().sum() > 0
    # The loss is CMBS's and reads its presets, which go by the same names.
    assert PRESETS[preset].gate_loss == CMBS_PRESETS[preset].gate_loss

    records = {name: array(values[-1]) for name, values in encoded.notes.records.items()}
    expected = 0.0
    for b in range(3):
        there = CUT[b].numpy()
        event = (TARGET[b].numpy() != CLASSES - 1)[there]
        gate = records["cmbs.gate"][b][there]
        for p in (sigmoid(records["cmbs.relevance"][b][there]), gate if preset == "paper" else sigmoid(gate)):
            expected -= np.where(event, np.log(p), np.log(1 - p)).sum()
        if event.any():
            classes = TARGET[b].numpy()[there][event]
            for scores in (records["cmbs.events"][b], records["cmbs.activation"][b]):
                logs = scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())
                expected -= there.sum() * logs[classes].mean()
    np.testing.assert_allclose(float(loss.detach()), expected, rtol=1e-5)


def test_without_maps_the_towers_pooling_stays() -> None:
    head, encoded = head_of("paper"), streams()
    audio, video = head.pooled(encoded)
    assert audio is encoded.audio_pooled
    assert video is encoded.video_pooled
    encoded.notes.record(VIDEO_MAP, torch.eye(9)[4].expand(15, 9))
    assert torch.equal(head.pooled(encoded)[1].flatten(0, 1), encoded.video[:, 4])
    assert head.pooled(encoded)[0] is encoded.audio_pooled


def test_neither_the_order_nor_the_company_of_clips_matters() -> None:
    head, encoded = head_of("paper"), mapped(CUT)
    last = {name: encoded.notes.records[name][-1].view(3, 5, -1) for name in (AUDIO_MAP, VIDEO_MAP)}

    def some(order: torch.Tensor) -> Encoded:
        chosen = clips_of(encoded, order)
        for name, maps in last.items():
            chosen.notes.record(name, maps[order].flatten(0, 1))
        return chosen

    with torch.no_grad():
        whole, order = head(encoded), torch.tensor([2, 0, 1])
        torch.testing.assert_close(head(some(order)), whole[order], atol=1e-5, rtol=1e-4)
        for k in range(3):
            torch.testing.assert_close(head(some(torch.tensor([k])))[0], whole[k], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("preset", "trained"), [("paper", 8_409_047), ("official", 7_881_687)])
def test_weights_with_those_that_the_authors_hold_unused_are_their_number(preset: str, trained: int) -> None:
    with torch.device("meta"):
        head = DG_SCT.build(768, 1536, 29, HeadConfig(name="dg_sct", preset=preset))  # type: ignore[arg-type]
    assert sum(weight.numel() for weight in head.parameters()) == trained
    # 12.62 M in the reference: TemporalAttention and CMBS of the authors' model.
    assert trained + head.unused_parameters == 12_621_783


def test_the_recipe_states_what_it_builds() -> None:
    path = recipe_path("ave/dg_sct_swinv2_l_htsat")
    comment = " ".join(line[2:] for line in path.read_text().splitlines() if line.startswith("# "))
    stated = re.search(r"Here ([\d.]+) M of ([\d.]+) M", comment)
    assert stated is not None
    model = AudioVisualModel(parse_config(base=path), tuple(map(str, range(28))), device="meta")
    counted = count_parameters(model.network)
    assert stated[1] == f"{counted.trainable / 1e6:.3f}"
    assert stated[2] == f"{counted.total_published / 1e6:.3f}"
    assert round(counted.trainable / 1e6 + 4.740 + 48e-6, 3) == 201.161
