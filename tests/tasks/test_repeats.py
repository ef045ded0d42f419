"""A clip that is asked several questions is encoded once, and nothing else changes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avtune.model import create_model
from avtune.tasks.repeats import Repeats
from avtune.transforms import Batch


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_neighbours_that_are_alike_are_one(kinds: list[int]) -> None:
    sound, frames = torch.zeros(len(kinds), 2, 3, 4), torch.zeros(len(kinds), 2, 3, 4, 4)
    for place, kind in enumerate(kinds):
        # Two of the three differ in one value of one stream alone.
        sound[place, 1, 2, 3] = kind == 1
        frames[place, 0, 0, 0, 0] = kind == 2
    repeats = Repeats.find(sound, frames)
    starts = [place for place, kind in enumerate(kinds) if place == 0 or kind != kinds[place - 1]]
    assert repeats.places.tolist() == starts
    torch.testing.assert_close(frames[repeats.places][repeats.which], frames)
    torch.testing.assert_close(sound[repeats.places][repeats.which], sound)


@pytest.mark.parametrize("negatives", ["plain", "adapted"])
@pytest.mark.parametrize("fusion", ["lavish", "stg_cma"])
def test_answers_and_gradients_are_those_of_encoding_each_clip(
    monkeypatch: pytest.MonkeyPatch, fusion: str, negatives: str
) -> None:
    torch.manual_seed(0)
    model = create_model(
        "nano",
        labels=["yes", "no"],
        words=["<pad>", "is", "it"],
        fusion=fusion,
        task="question_answering",
        segments=2,
    )
    network, side, rows = model.network, model.preprocessing.size, model.preprocessing.spectrogram_shape
    network.strangers = lambda training: negatives
    clip = torch.tensor([0, 0, 1, 1, 1, 0])
    frames = torch.randint(0, 256, (2, 2, 3, side, side), dtype=torch.uint8)
    yes = torch.ones(6, dtype=torch.bool)
    batch = Batch(
        frames[clip], torch.randn(2, 2, *rows)[clip], yes, yes, torch.ones(6, 2, dtype=torch.bool),
        torch.zeros(6, 65, dtype=torch.int64), [f"q{k}" for k in range(6)], torch.randint(0, 3, (6, 14)),
        [f"{k}.mp4" for k in clip.tolist()],
    )  # fmt: skip
    # Statistics of a batch would count a clip as often as it is asked about.
    network.eval()
    encoded: list[int] = []
    network.encoder.register_forward_hook(lambda module, given, out: encoded.append(len(given[0])))

    def answered() -> tuple[torch.Tensor, list[torch.Tensor]]:
        network.zero_grad()
        outputs, streams = network(batch)
        loss = model.task.loss(outputs, streams, batch)
        loss.total.backward()
        return outputs, [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]

    outputs, gradients = answered()
    monkeypatch.setattr(Repeats, "find", lambda spectrogram, frames: Repeats())
    each, theirs = answered()
    assert encoded == [3, 6]
    torch.testing.assert_close(outputs, each, atol=1e-5, rtol=1e-5)
    assert len(gradients) == len(theirs) > 0
    for one, other in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_other_tasks_compare_no_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Repeats, "find", lambda spectrogram, frames: pytest.fail("compared"))
    model = create_model("nano", labels=["dog"], segments=2)
    side, rows = model.preprocessing.size, model.preprocessing.spectrogram_shape
    yes = torch.ones(2, dtype=torch.bool)
    frames = torch.zeros(2, 2, 3, side, side, dtype=torch.uint8)
    batch = Batch(
        frames, torch.zeros(2, 2, *rows), yes, yes, torch.ones(2, 2, dtype=torch.bool), None, ["a", "b"]
    )
    outputs, _ = model.network(replace(batch, sources=["a", "a"]))
    assert len(outputs) == 2
