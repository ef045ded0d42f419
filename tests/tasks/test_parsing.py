"""Parsing: targets, the loss by hand, official scores, the blind floor, predictions of long files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtune.config import DataConfig, HeadConfig, InputConfig
from avtune.datasets import Event, Record, read
from avtune.encoder import Encoded
from avtune.fusion.base import Notes
from avtune.metrics.parsing import event_scores, segment_scores
from avtune.options import OptionError
from avtune.tasks import ParsingPrediction, ParsingTask, Truth, Window, create_task
from avtune.tasks.parsing import best_constant
from avtune.transforms import Batch

LABELS = ("bell", "drum", "horn")


def task_of(segments: int = 4, **options: Any) -> ParsingTask:
    task = create_task(LABELS, InputConfig(segments=segments), HeadConfig(task="parsing", options=options))
    assert isinstance(task, ParsingTask)
    return task


def record(heard: tuple[Event, ...] = (), seen: tuple[Event, ...] = (), **more: Any) -> Record:
    return Record("clip", Path("clip.mp4"), more.pop("events", ()), heard=heard, seen=seen, **more)


def batch_of(target: torch.Tensor, valid: torch.Tensor, *, audio: torch.Tensor | None = None) -> Batch:
    clips = len(target)
    yes = torch.ones(clips, dtype=torch.bool)
    blank = torch.zeros(clips)
    return Batch(blank, blank, yes if audio is None else audio, yes, valid, target, ["clip"] * clips)


def encoded_with(stream_clip_logits: torch.Tensor) -> Encoded:
    nothing = torch.zeros(0)
    notes = Notes(records={"stream_clip_logits": [stream_clip_logits]})
    return Encoded(nothing, nothing, nothing, nothing, notes)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def entropy(logit: float, target: float) -> float:
    share = 1 / (1 + math.exp(-logit))
    return -target * math.log(share) - (1 - target) * math.log(1 - share)


def test_a_target_tells_both_streams_and_weak_labels_tell_the_whole_clip() -> None:
    dense = record((Event("bell", 0, 2), Event("drum", 1, 3)), (Event("bell", 1.4, 4),))
    target = task_of().target(dense)
    assert target.dtype == torch.uint8
    assert target[:, 0].tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert target[:, 1].tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]]
    weak = task_of().target(record(events=(Event("horn"), Event("drum"))))
    assert weak.tolist() == [[[0, 1, 1]] * 2] * 4
    unseen = task_of().target(record((Event("horn", 0, 1),), events=(Event("drum"),)))
    assert unseen.sum(0).tolist() == [[0, 0, 1], [0, 0, 0]]
    later = task_of().target(record((Event("bell", 4, 6),), start=4.0))
    assert later[:, 0, 0].tolist() == [1, 1, 0, 0]


def test_the_real_truths_are_the_published_seconds(annotations_dir: Path) -> None:
    collection = read(DataConfig(name="llp", root=str(annotations_dir / "llp")))
    task = create_task(collection.labels, InputConfig(), HeadConfig(task="parsing"))
    for one in collection.splits["test"]:
        target = task.target(one).numpy()
        for stream, events in enumerate((one.heard, one.seen)):
            grid = np.zeros((10, 25), dtype=np.uint8)
            for event in events:
                grid[int(event.start) : int(event.end), collection.labels.index(event.label)] = 1
            np.testing.assert_array_equal(target[:, stream], grid)


def test_the_loss_of_whole_clips_by_hand() -> None:
    outputs, alone = random(3, 4, 3, 3), random(3, 2, 3, seed=1)
    target = torch.zeros(3, 4, 2, 3, dtype=torch.uint8)
    target[0, 2, 0, 1] = target[0, 0, 1, 2] = target[1, 1, 1, 0] = 1
    valid = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    audio = torch.tensor([True, False, True])
    found = task_of().loss(outputs, encoded_with(alone), batch_of(target, valid, audio=audio))
    expected = 0.0
    for clip, labels in ((0, (0, 1, 1)), (1, (1, 0, 0))):
        for k, told in enumerate(labels):
            expected += entropy(float(outputs[clip, 0, 2, k]), told) / 3
            # The sound is told its labels as they are, the frames 0.1 of the way to one half.
            if audio[clip]:
                expected += entropy(float(alone[clip, 0, k]), told) / 3
            expected += entropy(float(alone[clip, 1, k]), 0.95 if told else 0.05) / 3
    assert found.count == 2
    assert float(found.total) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_whole_clips_reads_the_set_alone() -> None:
    task = task_of()
    outputs, alone = random(2, 4, 3, 3), random(2, 2, 3, seed=1)
    valid = torch.ones(2, 4, dtype=torch.bool)
    once = torch.zeros(2, 4, 2, 3, dtype=torch.uint8)
    once[0, 3, 1, 0] = once[1, 0, 0, 2] = 1
    always = once.amax(dim=(1, 2), keepdim=True).expand_as(once)
    losses = [
        float(task.loss(outputs, encoded_with(alone), batch_of(target, valid)).total)
        for target in (once, always)
    ]
    assert losses[0] == losses[1]
    assert not task.target_per_segment


def test_the_loss_of_segments_by_hand() -> None:
    outputs = random(2, 4, 3, 3)
    target = (random(2, 4, 2, 3, seed=5) > 0).to(torch.uint8)
    valid = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0]], dtype=torch.bool)
    audio = torch.tensor([True, False])
    task = task_of(supervision="segments")
    assert task.target_per_segment
    found = task.loss(outputs, encoded_with(random(2, 2, 3)), batch_of(target, valid, audio=audio))
    expected = 0.0
    for clip in range(2):
        there = valid[clip].nonzero().flatten().tolist()
        for k in range(3):
            told = max(int(target[clip, t, m, k]) for t in there for m in range(2))
            expected += entropy(float(outputs[clip, 0, 2, k]), told) / 3
            for t in there:
                for m in range(2):
                    if m or audio[clip]:
                        own = entropy(float(outputs[clip, t, m, k]), int(target[clip, t, m, k]))
                        expected += own / 3 / len(there)
    assert found.count == 2
    assert float(found.total) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_scores_are_the_metrics_of_gated_answers_over_existing_segments(seed: int) -> None:
    task = task_of()
    outputs = random(5, 4, 3, 3, seed=seed)
    outputs[:, :, 2] = outputs[:, :1, 2]
    target = (random(5, 4, 2, 3, seed=seed + 1) > 0).to(torch.uint8)
    valid = torch.ones(5, 4, dtype=torch.bool)
    valid[1, 2:] = valid[3, 1:] = False
    whole = task.tally(outputs, batch_of(target, valid))
    parts = [
        task.tally(outputs[k : k + 1], batch_of(target[k : k + 1], valid[k : k + 1])) for k in (4, 2, 0, 3, 1)
    ]
    scores, again = task.score(whole), task.score(sum(parts[1:], parts[0]))
    # Means over clips in another order.
    assert again.value == pytest.approx(scores.value, abs=1e-12)
    means = []
    for k in range(5):
        there = valid[k].numpy()
        shares = outputs[k].sigmoid().numpy()[there]
        answer = ((shares[:, :2] >= 0.5) & (shares[:, 2:] >= 0.5)).transpose(1, 2, 0)
        truth = target[k].numpy()[there].transpose(1, 2, 0)
        means.append((segment_scores(*answer, *truth), event_scores(*answer, *truth)))
    assert scores.value == pytest.approx(np.mean([segment.type for segment, _ in means]), abs=1e-9)
    for level, column in (("segment_level", 0), ("event_level", 1)):
        for name in ("audio", "video", "audio_video", "event", "type"):
            expected = np.mean([getattr(pair[column], name) for pair in means])
            assert scores.details[level][name] == pytest.approx(expected, abs=1e-9)


def test_classes_are_scored_over_all_seconds() -> None:
    outputs = torch.full((1, 4, 3, 3), -1.0)
    outputs[:, :, 2] = 1.0
    outputs[0, :2, 0, 0] = 1.0
    target = torch.zeros(1, 4, 2, 3, dtype=torch.uint8)
    target[0, 1:, 0, 0] = 1
    target[0, 0, 1, 1] = 1
    task = task_of()
    rows = task.score(task.tally(outputs, batch_of(target, torch.ones(1, 4, dtype=torch.bool)))).details[
        "per_class"
    ]
    assert rows[0] == {
        "label": "bell", "f1_heard": 2 / 5, "segments_heard": 3, "f1_seen": None, "segments_seen": 0
    }  # fmt: skip
    assert rows[1]["f1_seen"] == 0.0
    assert rows[2]["f1_heard"] is None


def test_best_constant_answer_is_the_best_of_all_prefixes() -> None:
    task = task_of(supervision="segments")
    targets = [(random(4, 2, 3, seed=k) > 1.2 - 0.8 * (k % 3)).to(torch.uint8) for k in range(12)]
    answer = task.blind_answers(Truth(target) for target in targets)["majority"]
    batch = batch_of(torch.stack(targets), torch.ones(12, 4, dtype=torch.bool))
    reached = task.score(task.tally(answer(batch), batch)).value
    frequent = torch.stack(targets).sum(dim=(0, 1, 2)).argsort(descending=True, stable=True)
    tried = []
    for number in range(4):
        outputs = torch.full((12, 4, 3, 3), -1.0)
        outputs[..., frequent[:number]] = 1.0
        tried.append(task.score(task.tally(outputs, batch)).value)
    assert reached == pytest.approx(max(tried), abs=1e-12)


def test_the_blind_rule_is_told_no_more_than_training_is() -> None:
    target = torch.zeros(4, 2, 3, dtype=torch.uint8)
    target[0, 0, 1] = 1
    batch = batch_of(target[None], torch.ones(1, 4, dtype=torch.bool))
    named = {
        supervision: task_of(supervision=supervision).blind_answers([Truth(target)])["majority"](batch)[
            0, 0, 0
        ]
        for supervision in ("clips", "segments")
    }
    # Of the whole clip's label it has to believe that it holds throughout; of one second in four it knows better.
    assert named["clips"].tolist() == [-1.0, 1.0, -1.0]
    assert named["segments"].tolist() == [-1.0, -1.0, -1.0]


def test_no_training_clip_gives_the_empty_answer() -> None:
    batch = batch_of(torch.zeros(1, 4, 2, 3, dtype=torch.uint8), torch.ones(1, 4, dtype=torch.bool))
    assert (task_of().blind_answers([])["majority"](batch) < 0).all()
    empty = [np.zeros((0, 3))] * 3
    assert best_constant([np.ones((1, 3))] * 3, np.array([1])).all()
    assert empty[0].shape == (0, 3)


def window(start: float, probabilities: np.ndarray, clip: np.ndarray, valid: list[bool]) -> Window:
    parts = {"probabilities": probabilities, "clip_probabilities": clip}
    return Window(start, np.array(valid), ("padded",), parts)


def test_overlapping_windows_are_averaged_and_gated() -> None:
    first = np.full((4, 2, 3), 0.9, np.float32)
    second = np.full((4, 2, 3), 0.2, np.float32)
    first[0, 1] = 0.1
    sure = np.full((4, 3), 0.8, np.float32)
    sure[:, 2] = 0.4
    windows = [
        window(0.0, first, sure, [True] * 4),
        window(2.0, second, sure, [True, True, True, False]),
    ]
    found = task_of().predict(Path("long.mp4"), windows)
    assert isinstance(found, ParsingPrediction)
    assert found.probabilities.shape == (5, 2, 3)
    np.testing.assert_allclose(found.probabilities[2, 0], 0.55, rtol=1e-6)
    assert [(e.start, e.end, e.label) for e in found.heard] == [(0.0, 4.0, "bell"), (0.0, 4.0, "drum")]
    assert [(e.start, e.end, e.label) for e in found.seen] == [(1.0, 4.0, "bell"), (1.0, 4.0, "drum")]
    assert found.heard[0].probability == pytest.approx((0.9 + 0.9 + 0.55 + 0.55) / 4, rel=1e-6)
    assert found.notes == ("padded",)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(OptionError, match="parsing has no option 'widht'; did you mean 'width'"):
        task_of(widht=3)
    with pytest.raises(OptionError, match="unknown preset of parsing 'papr'"):
        create_task(LABELS, InputConfig(), HeadConfig(task="parsing", preset="papr"))
