"""The head of question answering: its equations by another way, its padding, its weights, its published counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from encoded_streams import clips_of, streams
from torch import Tensor, nn

from avtune.config import HeadConfig
from avtune.counting import count_parameters
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.heads.grounding import GROUNDING, MATCH, Grounding
from avtune.heads.question_answering import build_question_answering
from avtune.model import AudioVisualModel
from avtune.recipes import parse_config, recipe_path

ANSWERS, WORDS, WIDTH = 6, 9, 16
CUT = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 1, 0]], dtype=torch.bool)
QUESTION = torch.tensor([[1, 2, 3, 0], [4, 2, 0, 0], [5, 6, 7, 8]])


def head_of(**options: Any) -> nn.Module:
    torch.manual_seed(1)
    config = HeadConfig(task="question_answering", hidden=WIDTH, options=options)
    return build_question_answering(12, 20, ANSWERS, WORDS, config)


def moment(x: Tensor) -> Tensor:
    """Mean zero and variance one over the last axis, in double precision."""
    x = x.double()
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()


def asked(valid: Tensor | None = CUT, *, stranger: bool = False, prefix: int = 0) -> Encoded:
    encoded = replace(streams(valid=valid, prefix=prefix), question=QUESTION)
    return replace(encoded, stranger=streams(seed=7, prefix=prefix).video) if stranger else encoded


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def linear(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    return weight @ x + bias


def grounded(
    part: Grounding, sound: np.ndarray, patches: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sound, frame and weights of one segment, vector by vector."""
    heard = linear(part.audio, np.maximum(linear(part.audio_map, sound), 0))
    mapped = [linear(part.video_map, patch) for patch in patches]
    weights = softmax(np.array([unit(patch) @ unit(heard) for patch in mapped]))
    found = sum(w * unit(patch) for w, patch in zip(weights, mapped, strict=True))
    picture = linear(part.join, np.tanh(np.concatenate([np.mean(mapped, axis=0), found])))
    return heard, picture, weights


def attended(part: nn.Module, question: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What one stream gives to the question, head by head, from the segments that exist."""
    attention = part.attention
    weight, bias = (p.detach().double().numpy() for p in (attention.in_proj_weight, attention.in_proj_bias))
    q = weight[:WIDTH] @ question + bias[:WIDTH]
    k, v = (x @ weight[n * WIDTH : (n + 1) * WIDTH].T + bias[n * WIDTH : (n + 1) * WIDTH] for n in (1, 2))
    size = WIDTH // 4
    parts = [slice(h * size, (h + 1) * size) for h in range(4)]
    found = np.concatenate([softmax(k[:, p] @ q[p] / size**0.5) @ v[:, p] for p in parts])
    found = linear(attention.out_proj, found)
    first, _, _, second, _ = part.feed
    y = found + linear(second, np.maximum(linear(first, found), 0))
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-5) * part.norm.weight.detach().double().numpy()
    return y + part.norm.bias.detach().double().numpy() + x.mean(axis=0)


@pytest.mark.parametrize(("prefix", "normalise"), [(0, False), (2, False), (0, True)])
def test_the_answer_is_that_of_the_equations(prefix: int, normalise: bool) -> None:
    head, encoded = head_of(normalise=normalise).eval(), asked(prefix=prefix)
    with torch.no_grad():
        logits = head(encoded)
        questions = head.question(QUESTION).double().numpy()
    weights = encoded.notes.records[GROUNDING][-1].double().numpy()
    video = encoded.video.view(3, 5, 9 + prefix, 20)[:, :, prefix:].double().numpy()
    audio = encoded.audio_pooled.double().numpy()
    if normalise:
        video, audio = (moment(torch.from_numpy(x)).numpy() for x in (video, audio))
    for b in range(3):
        there = [t for t in range(5) if CUT[b, t]]
        segments = [grounded(head.grounding, audio[b, t], video[b, t]) for t in there]
        for t, (_, _, expected) in zip(there, segments, strict=True):
            np.testing.assert_allclose(weights[b, t], expected, rtol=1e-4)
        sound, picture = (np.stack([segment[n] for segment in segments]) for n in (0, 1))
        heard, seen = attended(head.audio, questions[b], sound), attended(head.video, questions[b], picture)
        both = linear(head.join, np.tanh(np.concatenate([heard, seen])))
        expected = linear(head.answers, np.tanh(both * questions[b]))
        # Single against double precision.
        np.testing.assert_allclose(logits[b].double().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_question_is_read_step_by_step() -> None:
    encoder = head_of().question.eval()
    with torch.no_grad():
        read = encoder(QUESTION).double().numpy()
    lstm = {name: p.detach().double().numpy() for name, p in encoder.lstm.named_parameters()}
    table = np.tanh(encoder.words.weight.detach().double().numpy())
    for b, row in enumerate(QUESTION.tolist()):
        h = c = np.zeros(WIDTH)
        for word in row:
            gates = lstm["weight_ih_l0"] @ table[word] + lstm["bias_ih_l0"] + lstm["weight_hh_l0"] @ h
            i, f, g, o = np.split(gates + lstm["bias_hh_l0"], 4)
            i, f, o = (1 / (1 + np.exp(-x)) for x in (i, f, o))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
        np.testing.assert_allclose(read[b], linear(encoder.join, np.tanh(np.concatenate([h, c]))), rtol=1e-4)


def test_another_files_frame_is_matched_with_the_same_sound() -> None:
    head, encoded = head_of().eval(), asked(stranger=True)
    with torch.no_grad():
        head(encoded)
    match = encoded.notes.records[MATCH][-1].double().numpy()
    part = head.grounding
    audio = encoded.audio_pooled.double().numpy()
    for pair, tokens in enumerate((encoded.video, encoded.stranger)):
        patches = tokens.view(3, 5, 9, 20).double().numpy()
        for b, t in np.ndindex(3, 5):
            heard, picture, _ = grounded(part, audio[b, t], patches[b, t])
            x = np.concatenate([heard, picture])
            for layer in part.match.hidden:
                x = np.maximum(linear(layer, x), 0)
            np.testing.assert_allclose(match[b, t, pair], linear(part.match.answer, x), rtol=1e-3, atol=1e-5)


def test_neither_the_order_nor_the_company_of_clips_matters() -> None:
    head, encoded = head_of().eval(), asked()
    with torch.no_grad():
        whole = head(encoded)
        for order in (torch.tensor([2, 0, 1]), torch.tensor([1])):
            moved = replace(clips_of(encoded, order), question=QUESTION[order])
            torch.testing.assert_close(head(moved), whole[order], atol=1e-5, rtol=1e-4)


def test_segments_beyond_a_clip_change_no_answer_and_no_gradient() -> None:
    found = []
    for content in (0.0, 7.0):
        head, encoded = head_of().eval(), asked()
        video = encoded.video.view(3, 5, *encoded.video.shape[1:])
        for stream in (encoded.audio_pooled, video):
            stream[~CUT] = content * torch.randn_like(stream[~CUT])
        logits = head(encoded)
        logits.square().sum().backward()
        gradients = torch.cat([w.grad.flatten() for w in head.parameters() if w.grad is not None])
        found.append((logits.detach(), gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stage", ["answering", "grounding"])
def test_gradients_reach_every_weight(stage: str) -> None:
    head, encoded = head_of(stage=stage).train(), asked(stranger=True)
    outputs = head(encoded)
    (outputs.square().sum() + sum(x.square().sum() for x in encoded.notes.records.get(MATCH, []))).backward()
    for name, weight in head.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_a_scaled_start_keeps_the_size_of_values_and_a_plain_one_shrinks_them() -> None:
    sizes = {}
    for start in ("pytorch", "scaled"):
        torch.manual_seed(1)
        config = HeadConfig(task="question_answering", hidden=256, options={"start": start})
        head = build_question_answering(12, 20, ANSWERS, WORDS, config).eval()
        with torch.no_grad():
            question = head.question(QUESTION)
            sizes[start] = float(head.join(torch.tanh(torch.randn(64, 512))).std() * question.std())
    assert sizes["scaled"] > 5 * sizes["pytorch"]


def test_without_negatives_nothing_is_built_for_matching() -> None:
    head, encoded = head_of(negatives="none"), asked(stranger=True)
    assert not [name for name, _ in head.named_parameters() if "match" in name]
    head(encoded)
    assert MATCH not in encoded.notes.records
    assert {name for name, _ in head_of(stage="grounding").named_parameters()} == {
        name for name, _ in head_of().named_parameters() if name.startswith("grounding.")
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"negative": "plain"}}, "did you mean 'negatives'"),
        ({"options": {"negatives": "rolled"}}, "option 'negatives' cannot be 'rolled'"),
        ({"preset": "papr"}, "did you mean 'paper'"),
        ({"options": {"text": "frozen"}}, "name the language model in head.options.text_model"),
        ({"options": {"text_model": "bert"}}, "but an LSTM reads the questions"),
        ({"options": {"match_weight": -1.0}}, "set it to 0 or more"),
        ({"options": {"stage": "grounding", "negatives": "none"}}, "leave head.options.negatives none"),
        ({"options": {"stage": "grounding", "grounding_from": "x"}}, "begins anew"),
        ({"options": {"stage": "grounding"}, "streams": "alone"}, "leave train.floors out"),
        ({"hidden": 18}, "set it to a multiple of 4"),
        ({"preset": "tower_width"}, "the towers have 12 and 20 channels and head.hidden is 16"),
    ],
)
def test_settings_that_cannot_be_are_one_line(changes: dict[str, Any], message: str) -> None:
    config = HeadConfig(**{"task": "question_answering", "hidden": WIDTH, **changes})
    with pytest.raises(AvtuneError, match=message) as caught:
        build_question_answering(12, 20, ANSWERS, WORDS, config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "trained", "total"),
    [
        # LAVISH's Table 3: 21.09 of 249.8, with the weights that its head holds unused and the unused class head.
        ("avqa/lavish_swinv2_l", 21.098, 249.790),
        # STG-CMA's Table 3: 26.9 of 221.9 and 83.1 of 278.1, with a second stem for the sound.
        ("avqa/stg_cma_swin_l_base", 26.863, 221.862),
        ("avqa/stg_cma_swin_l_large", 83.128, 278.127),
    ],
)
def test_weights_are_those_of_the_papers_tables(recipe: str, trained: float, total: float) -> None:
    config = parse_config(base=recipe_path(recipe))
    answers, words = (tuple(map(str, range(n))) for n in (42, 93))
    model = AudioVisualModel(config, answers, words=words, device="meta")
    counted = count_parameters(model.network)
    if config.encoder.fusion == "lavish":
        unused = model.network.head.unused_parameters
        assert unused == 2_757_632
        found = (counted.trainable + unused, counted.total_published + unused)
    else:
        # A one-channel patch embedding with its norm.
        found = (counted.trainable, counted.total + 4 * 4 * 192 + 3 * 192)
    assert tuple(round(count / 1e6, 3) for count in found) == (trained, total)
