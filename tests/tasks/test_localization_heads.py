"""Event localization with each head: its loss recomputed, its answers, training."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from avtune.config import EncoderConfig, HeadConfig, InputConfig, RunConfig
from avtune.counting import example_batch
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.fusion.base import Notes
from avtune.model import AudioVisualModel
from avtune.tasks import LocalizationTask, create_task
from avtune.transforms import Batch

LABELS = ("bell", "drum", "horn")
BACKGROUND = len(LABELS)
VALID = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]], dtype=torch.bool)
# One class; background alone; two classes; an event that lies beyond the clip's end only.
TARGET = torch.tensor([[3, 1, 1, 3], [3, 3, 3, 3], [0, 2, 0, 3], [3, 2, 3, 3]])


def task_of(name: str = "segment", **changes: Any) -> LocalizationTask:
    task = create_task(LABELS, InputConfig(segments=4), HeadConfig(name=name, **changes))  # type: ignore[arg-type]
    assert isinstance(task, LocalizationTask)
    return task


def batch_of(target: torch.Tensor = TARGET, valid: torch.Tensor = VALID) -> Batch:
    blank = torch.zeros(len(target))
    return Batch(blank, blank, blank.bool(), blank.bool(), valid, target, ["clip"] * len(target))


def noted(**records: torch.Tensor) -> Encoded:
    notes = Notes(segments=4, records={name.replace("_", ".", 1): [value] for name, value in records.items()})
    nothing = torch.zeros(0)
    return Encoded(nothing, nothing, nothing, nothing, notes)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pairs() -> list[tuple[int, int]]:
    return [(int(b), int(t)) for b, t in VALID.nonzero()]


def test_the_plain_head_keeps_both_losses() -> None:
    logits = random(4, 4, 4)
    rows = {(b, t): softmax(logits[b, t].double().numpy()) for b, t in pairs()}
    entropy = sum(-math.log(p[TARGET[b, t]]) for (b, t), p in rows.items())
    binary = sum(
        -(math.log(p[c]) if c == TARGET[b, t] else math.log(1 - p[c])) / 4
        for (b, t), p in rows.items()
        for c in range(4)
    )
    for loss, expected in (("cross_entropy", entropy), ("binary_on_softmax", binary)):
        found = task_of(loss=loss).loss(logits, noted(), batch_of())
        assert found.count == len(rows)
        assert float(found.total) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_avel() -> None:
    logits = random(4, 4, 4)
    expected = 0.0
    for b, t in pairs():
        p = softmax(logits[b, t].double().numpy())
        for c in range(4):
            asked = sigmoid(p[c])
            expected -= (math.log(asked) if c == TARGET[b, t] else math.log(1 - asked)) / 4
    found = task_of("avel").loss(logits, noted(), batch_of())
    assert float(found.total) == pytest.approx(expected, rel=1e-5)


def test_avel_can_take_cross_entropy_instead() -> None:
    logits = random(4, 4, 4)
    own, plain = task_of("avel", preset="cross_entropy"), task_of()
    assert torch.equal(
        own.loss(logits, noted(), batch_of()).total, plain.loss(logits, noted(), batch_of()).total
    )


def test_a_perfect_answer_leaves_avel_the_loss_that_its_docstring_states() -> None:
    logits = torch.zeros(1, 1, 29)
    logits[..., 3] = 100
    labels = tuple(map(str, range(28)))
    task = create_task(labels, InputConfig(segments=1), HeadConfig(name="avel"))
    found = task.loss(logits, noted(), batch_of(torch.tensor([[3]]), torch.tensor([[True]])))
    assert round(float(found.total), 3) == 0.680


def test_the_loss_of_psp() -> None:
    logits, similarity = random(4, 4, 4), random(4, 4, seed=1)
    entropy = sum(-math.log(softmax(logits[b, t].double().numpy())[TARGET[b, t]]) for b, t in pairs())
    distance = 0.0
    for b in range(4):
        there = [t for t in range(4) if VALID[b, t]]
        alike = {t: max(0.0, float(similarity[b, t])) for t in there}
        event = {t: float(TARGET[b, t] != BACKGROUND) for t in there}
        for t in there:
            share = alike[t] / (sum(alike.values()) + 1e-8)
            distance += (share - event[t] / (sum(event.values()) + 1e-8)) ** 2
    found = task_of("psp").loss(logits, noted(psp_similarity=similarity), batch_of())
    assert float(found.total) == pytest.approx(entropy + 100 * distance, rel=1e-5)


def cmbs_parts() -> dict[str, torch.Tensor]:
    return {
        "cmbs_relevance": random(4, 4, seed=1),
        "cmbs_events": random(4, 3, seed=2),
        "cmbs_gate": torch.sigmoid(random(4, 4, seed=3)),
        "cmbs_activation": random(4, 3, seed=4),
    }


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_the_loss_of_cmbs(preset: str) -> None:
    parts = cmbs_parts()
    expected = 0.0
    for b, t in pairs():
        event = TARGET[b, t] != BACKGROUND
        relevant = sigmoid(float(parts["cmbs_relevance"][b, t]))
        gate = float(parts["cmbs_gate"][b, t])
        gate = sigmoid(gate) if preset == "official" else gate
        for p in (relevant, gate):
            expected -= math.log(p) if event else math.log(1 - p)
    for b in range(4):
        seen = [int(TARGET[b, t]) for t in range(4) if VALID[b, t] and TARGET[b, t] != BACKGROUND]
        for name in ("cmbs_events", "cmbs_activation"):
            p = softmax(parts[name][b].double().numpy())
            for c in seen:
                expected -= math.log(p[c]) / len(seen) * int(VALID[b].sum())
    found = task_of("cmbs", preset=preset).loss(torch.zeros(4, 4, 4), noted(**parts), batch_of())
    assert float(found.total) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["avel", "psp", "cmbs"])
def test_losses_of_clips_add_up_to_the_loss_of_their_batch(name: str) -> None:
    logits, parts = random(4, 4, 4), {**cmbs_parts(), "psp_similarity": random(4, 4, seed=5)}
    task = task_of(name)
    whole = task.loss(logits, noted(**parts), batch_of())
    apart = [
        task.loss(
            logits[k : k + 1], noted(**{n: v[k : k + 1] for n, v in parts.items()}),
            batch_of(TARGET[k : k + 1], VALID[k : k + 1]),
        )
        for k in range(4)
    ]  # fmt: skip
    assert whole.count == sum(part.count for part in apart)
    torch.testing.assert_close(whole.total, torch.stack([part.total for part in apart]).sum())


@pytest.mark.parametrize("name", ["avel", "psp", "cmbs"])
def test_losses_are_taken_in_full_precision_under_autocast(name: str) -> None:
    logits, parts = random(4, 4, 4), {**cmbs_parts(), "psp_similarity": random(4, 4, seed=5)}
    halves = {n: v.bfloat16() for n, v in parts.items()}
    task = task_of(name)
    with torch.autocast("cpu", torch.bfloat16):
        found = task.loss(logits.bfloat16(), noted(**halves), batch_of())
    expected = task.loss(
        logits.bfloat16().float(), noted(**{n: v.float() for n, v in halves.items()}), batch_of()
    )
    assert found.total.dtype == torch.float32
    assert torch.equal(found.total, expected.total)


def test_foreground_is_where_an_event_is_both_heard_and_seen() -> None:
    has_audio, has_video = torch.tensor([True, True, False, True]), torch.tensor([True, True, True, False])
    batch = replace(batch_of(), has_audio=has_audio, has_video=has_video)
    expected = torch.zeros_like(VALID)
    expected[0, 1] = expected[0, 2] = True
    assert torch.equal(task_of().foreground(batch), expected.flatten())


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(AvtuneError, match=r"unknown head 'cbms'; did you mean 'cmbs'"):
        task_of("cbms")
    with pytest.raises(AvtuneError, match=r"unknown preset of psp 'oficial'; did you mean 'official'"):
        task_of("psp", preset="oficial")
    with pytest.raises(
        AvtuneError, match=r"binary_on_softmax is of the head 'segment', while avel brings its own"
    ):
        task_of("avel", loss="binary_on_softmax")


def model_of(name: str, streams: str = "both", **encoder: Any) -> AudioVisualModel:
    torch.manual_seed(0)
    config = RunConfig(
        input=InputConfig(segments=4),
        encoder=EncoderConfig(pretrained=False, **{"fusion": "frozen", **encoder}),
        head=HeadConfig(name=name, streams=streams, hidden=32),  # type: ignore[arg-type]
    )
    return AudioVisualModel(config, LABELS, depth=1)


def made_up_batch(model: AudioVisualModel) -> Batch:
    """Random pictures and sounds that their class moves: with it learnable, without it not."""
    generator = torch.Generator().manual_seed(0)
    batch = example_batch(model.preprocessing, clips=4)
    sound = torch.randn(batch.spectrogram.shape, generator=generator)
    sound = sound + (TARGET - 1.5)[..., None, None]
    frames = torch.randint(0, 128, batch.frames.shape, generator=generator, dtype=torch.uint8)
    return replace(batch, spectrogram=sound, frames=frames, target=TARGET, valid=VALID)


@pytest.mark.parametrize("name", ["segment", "avel", "psp", "cmbs"])
def test_training_lowers_the_loss_and_leaves_the_towers(name: str) -> None:
    model = model_of(name)
    batch = made_up_batch(model)
    network = model.network.train()
    frozen = {n: w.clone() for n, w in network.encoder.named_parameters()}
    optimizer = torch.optim.Adam([w for w in network.parameters() if w.requires_grad], lr=3e-3)
    losses = []
    for _ in range(40):
        outputs, encoded = network(batch)
        loss = model.task.loss(outputs, encoded, batch)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
        losses.append(float(loss.total.detach()) / loss.count)
    assert np.isfinite(losses).all()
    # Below it no answer gets: AVEL asks of probabilities, and no half of a clip with two classes is both.
    least = {
        "avel": (math.log(1 + math.exp(-1)) + 3 * math.log(2)) / 4,
        "cmbs": 2 * math.log(3) * 3 / 12 * 0.58,
    }
    floor = least.get(name, 0.0)
    assert np.mean(losses[-3:]) - floor < 0.5 * (losses[0] - floor)
    assert all(torch.equal(w, frozen[n]) for n, w in network.encoder.named_parameters())


@pytest.mark.parametrize("name", ["avel", "psp", "cmbs"])
def test_answers_are_probabilities_and_counts_are_of_their_largest(name: str) -> None:
    model = model_of(name)
    batch = made_up_batch(model)
    with torch.no_grad():
        outputs, encoded = model.network(batch)
    probabilities = model.task.parts(outputs, encoded, batch)["probabilities"]
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(4, 4))
    counts = model.task.tally(outputs, batch)
    expected = np.zeros((4, 4), dtype=int)
    for b, t in pairs():
        expected[TARGET[b, t], probabilities[b, t].argmax()] += 1
    np.testing.assert_array_equal(counts, expected)


def test_the_floors_answer_from_one_stream_each() -> None:
    model = model_of("segment", streams="alone", fusion="lavish", options={"direction": "none"})
    batch = made_up_batch(model)
    outputs, encoded = model.network(batch)
    assert outputs.shape == (2, 4, 4, 4)
    loss = model.task.loss(outputs, encoded, batch)
    chosen = outputs[:, VALID].double()
    expected = -sum(
        math.log(softmax(part[k].detach().numpy())[TARGET[VALID][k]])
        for part in chosen
        for k in range(len(part))
    )
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)
    tally = model.task.tally(outputs, batch)
    for part, counts in zip(outputs, (tally.audio, tally.video), strict=True):
        np.testing.assert_array_equal(counts, model.task.task.tally(part, batch))
    audio, video = model.network.head.audio, model.network.head.video
    changed = replace(encoded, video=encoded.video + 1, video_pooled=encoded.video_pooled + 1)
    torch.testing.assert_close(model.network.head(changed)[0], outputs[0])
    assert not torch.allclose(model.network.head(changed)[1], outputs[1])
    assert not {id(w) for w in audio.parameters()} & {id(w) for w in video.parameters()}


@pytest.mark.parametrize("name", ["avel", "psp", "cmbs"])
def test_the_network_tells_its_head_which_segments_exist(name: str) -> None:
    model = model_of(name)
    batch, other = made_up_batch(model), made_up_batch(model)
    other.frames[~VALID] = 255
    other.spectrogram[~VALID] = 5.0
    with torch.no_grad():
        answers, changed = (model.network(b)[0] for b in (batch, other))
    torch.testing.assert_close(answers[VALID], changed[VALID], atol=1e-5, rtol=1e-4)
    assert not torch.equal(answers[~VALID], changed[~VALID])
