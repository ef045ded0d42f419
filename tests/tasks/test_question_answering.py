"""Question answering as a task: losses and scores by hand, floors, a person's words, one stage after another."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from question_case import ANSWERS, VALID, WORDS, batch_of, record, task_of
from safetensors.torch import save_file
from torch import Tensor

from avtune.config import EncoderConfig, HeadConfig, InputConfig, RunConfig
from avtune.datasets import DatasetError, Record
from avtune.datasets.music_avqa import WORDS as MUSIC_AVQA_WORDS
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.fusion.base import Notes
from avtune.heads.grounding import MATCH
from avtune.model import AudioVisualModel
from avtune.tasks import QuestionAnsweringTask
from avtune.tasks.asked import example_question, spoken_words
from avtune.train.evaluate import couples, evaluate
from avtune.transforms import Batch, Prepared, Sample


def targets(task: QuestionAnsweringTask, *answers: str) -> Tensor:
    return torch.stack([task.target(record(answer)) for answer in answers])


def encoded_with(match: Tensor | None) -> Encoded:
    nothing = torch.zeros(0)
    return Encoded(nothing, nothing, nothing, nothing, Notes(3, {} if match is None else {MATCH: [match]}))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def entropy(logits: Any, k: int) -> float:
    values = [float(x) for x in logits]
    return math.log(sum(map(math.exp, values))) - values[k]


def match_of(b: int, match: Tensor) -> float:
    there = [t for t in range(3) if VALID[b, t]]
    pairs = [entropy(match[b, t, 0], 1) + entropy(match[b, t, 1], 0) for t in there]
    return sum(pairs) / (2 * len(pairs))


def test_the_loss_is_that_of_the_answer_and_half_of_what_matches() -> None:
    task, logits, match = task_of(), random(3, 3), random(3, 3, 2, 2, seed=1)
    batch = batch_of(targets(task, "no", "yes", "two"))
    expected = sum(entropy(logits[b], k) for b, k in enumerate((1, 0, 2)))
    plain = task.loss(logits, encoded_with(None), batch)
    assert (float(plain.total), plain.count) == (pytest.approx(expected, rel=1e-5), 3)
    expected += 0.5 * sum(match_of(b, match) for b in range(3))
    assert float(task.loss(logits, encoded_with(match), batch).total) == pytest.approx(expected, rel=1e-5)


def test_a_clip_without_another_file_beside_it_has_no_matching_loss_and_still_counts() -> None:
    task, logits, match = task_of(), random(3, 3), random(3, 3, 2, 2, seed=1)
    batch = batch_of(targets(task, "no", "yes", "two"), ["b.mp4"] * 3)
    found = task.loss(logits, encoded_with(match), batch)
    assert found.count == 3
    assert torch.equal(found.total, task.loss(logits, encoded_with(None), batch).total)


def test_padding_changes_neither_loss_nor_count() -> None:
    task, logits, match = task_of(), random(3, 3), random(3, 3, 2, 2, seed=1)
    valid = VALID.clone()
    valid[1] = False
    batch = batch_of(targets(task, "no", "yes", "two"), valid=valid)
    other = match.clone()
    other[~valid] = 100.0
    found, changed = (task.loss(logits, encoded_with(x), batch) for x in (match, other))
    assert found.count == 2
    assert torch.equal(found.total, changed.total)


def test_a_clip_without_sound_or_frames_has_nothing_to_match() -> None:
    task, logits, match = task_of(), random(3, 3), random(3, 3, 2, 2, seed=1)
    target = targets(task, "no", "yes", "two")
    batch = replace(batch_of(target), has_audio=torch.tensor([False, True, True]))
    batch = replace(batch, has_video=torch.tensor([True, True, False]))
    expected = task.loss(logits, encoded_with(None), batch).total + 0.5 * match_of(1, match)
    torch.testing.assert_close(task.loss(logits, encoded_with(match), batch).total, expected)


def test_the_grounding_stage_learns_and_scores_what_matches() -> None:
    task, match = task_of(stage="grounding"), random(3, 3, 2, 2, seed=1)
    batch = batch_of(None)
    found = task.loss(match, encoded_with(None), batch)
    assert found.count == 3
    assert float(found.total) == pytest.approx(sum(match_of(b, match) for b in range(3)), rel=1e-5)
    right = [
        int(match[b, t, pair, yes] > match[b, t, pair, 1 - yes])
        for b, t in VALID.nonzero().tolist()
        for pair, yes in ((0, 1), (1, 0))
    ]
    scores = task.score(task.tally(match, batch))
    assert scores.value == pytest.approx(sum(right) / len(right))
    assert (scores.name, scores.details["segments"]) == ("matching accuracy", 6)
    assert task.blind_answers([]) == {}
    with pytest.raises(AvtuneError, match=r"set train\.batch_size to 2 or more"):
        task.loss(match[:1], encoded_with(None), batch_of(None, ["a.mp4"], VALID[:1]))
    with pytest.raises(AvtuneError, match="no two of the clips to score are of different files"):
        task.score(task.tally(match, batch_of(None, ["a.mp4"] * 3)))


def test_scores_by_kind_are_hand_counts_in_any_order() -> None:
    task = task_of()
    asked = [
        ("yes", ("Audio", "Counting"), 0), ("no", ("Audio", "Counting"), 0), ("two", ("Audio", "Comparative"), 2),
        ("yes", ("Audio-Visual", "Temporal"), 0), ("never", ("Audio-Visual", "Temporal"), 1), ("yes", ("", ""), 0),
    ]  # fmt: skip
    rows = []
    for answer, kind, told in asked:
        batch = batch_of(task.target(record(answer, kind)).unsqueeze(0), ["x"], VALID[:1])
        rows.append(task.tally(torch.nn.functional.one_hot(torch.tensor([told]), 3).float(), batch))
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 4, 0, 2]):
        tally = rows[order[0]]
        for k in order[1:]:
            tally = tally + rows[k]
        scores = task.score(tally)
        assert scores.value == pytest.approx(4 / 6)
        assert scores.details == {
            "questions": 6,
            "answers unknown in training": 1,
            "per_class": [
                {"label": "Audio", "accuracy": pytest.approx(2 / 3), "questions": 3},
                {"label": "Audio: Comparative", "accuracy": 1.0, "questions": 1},
                {"label": "Audio: Counting", "accuracy": 0.5, "questions": 2},
                {"label": "Audio-Visual", "accuracy": 0.5, "questions": 2},
                {"label": "Audio-Visual: Temporal", "accuracy": 0.5, "questions": 2},
            ],
        }
        json.dumps(scores.details)


def test_a_clip_about_which_nothing_is_asked_is_refused() -> None:
    with pytest.raises(DatasetError, match="nothing is asked about it"):
        task_of().target(Record("clip", Path("clip.mp4"), ()))


def test_a_question_without_an_answer_can_teach_no_answer_and_be_grounded_all_the_same() -> None:
    unanswered = replace(record(""), origin="avqa-train.json question 7")
    with pytest.raises(
        DatasetError, match=r"avqa-train\.json question 7: the question has no answer; give it one"
    ):
        task_of().target(unanswered)
    assert int(task_of(stage="grounding").target(unanswered)[0]) == -1


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("Is there a drum sound?", ["Is", "there", "a", "drum", "sound"]),
        ("is  THERE a Drum sound", ["Is", "there", "a", "drum", "sound"]),
        (
            "where Is the acoustic_guitar\N{FULLWIDTH QUESTION MARK} ",
            ["Where", "Is", "the", "acoustic_guitar"],
        ),
        ("Where is the drum.", ["Where", "is", "the", "drum"]),
    ],
)
def test_a_person_may_write_as_they_like(typed: str, words: list[str]) -> None:
    assert spoken_words(typed, WORDS) == words
    encoded = task_of().encode_question(typed)
    assert encoded is not None
    assert encoded.tolist() == [*(WORDS.index(word) for word in words), *[0] * (14 - len(words))]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (None, 'ask one, such as --question "Is there a drum sound\\?"'),
        *((typed, "ask one, such as --question") for typed in ("", "  ", "?", " ?! ", "...", "? ?")),
        ("Is there a drumm?", "knows no word 'drumm'; the nearest that it knows: drum"),
        ("Is there a guitar?", "the nearest that it knows: acoustic_guitar"),
        ("Is there a zzz?", "the nearest that it knows: Is, there, a, drum, sound"),
        ("is " * 15, "the question has 15 words; shorten it to 14 or fewer"),
    ],
)
def test_a_question_that_cannot_be_read_says_what_can(typed: str | None, message: str) -> None:
    with pytest.raises(AvtuneError, match=message) as caught:
        task_of().encode_question(typed)
    assert "\n" not in str(caught.value)


def test_the_example_is_one_that_the_run_can_read() -> None:
    assert example_question(WORDS) == '--question "Is there a drum sound?"'
    assert "instruments are sounding" in example_question(MUSIC_AVQA_WORDS)
    assert example_question(("<pad>", "how", "many")) == "--question with words that it knows: how, many"


def config_of(**options: Any) -> RunConfig:
    return RunConfig(
        input=InputConfig(segments=2),
        encoder=EncoderConfig(pretrained=False, options={"reduction": 16}),
        head=HeadConfig(task="question_answering", hidden=8, options=options),
    )


def model_of(seed: int = 0, **options: Any) -> AudioVisualModel:
    torch.manual_seed(seed)
    return AudioVisualModel(config_of(**options), ANSWERS, words=WORDS, depth=1)


def clips(model: AudioVisualModel, sources: list[str], seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shape, count = model.preprocessing.spectrogram_shape, len(sources)
    here = torch.ones(count, dtype=torch.bool)
    return Batch(
        torch.randint(0, 256, (count, 2, 3, model.preprocessing.size, model.preprocessing.size),
                      dtype=torch.uint8, generator=generator),
        torch.randn(count, 2, *shape, generator=generator),
        here, here, here[:, None].expand(-1, 2), targets(task_of(), *ANSWERS[:count]),
        [f"clip {k}" for k in range(count)],
        question=torch.stack([task_of().question(record("yes")) for _ in sources]),  # type: ignore[misc]
        sources=sources,
    )  # fmt: skip


@pytest.mark.parametrize("negatives", ["plain", "adapted"])
def test_in_training_the_network_gives_frames_of_other_files(negatives: str) -> None:
    model = model_of(negatives=negatives)
    batch = clips(model, ["a", "b", "c"])
    _, encoded = model.network(batch)
    assert encoded.stranger is None
    model.train()
    _, encoded = model.network(batch)
    assert encoded.stranger is not None
    seen = encoded.video
    if negatives == "plain":
        frames = (batch.frames.float() / 255 - torch.tensor(model.network.mean).view(3, 1, 1)) / torch.tensor(
            model.network.std
        ).view(3, 1, 1)
        with torch.no_grad():
            seen = model.network.encoder.video_tower(frames.flatten(0, 1))
        assert not encoded.stranger.requires_grad
    # The first second of each clip meets the next file, the last second the one behind it.
    places = [2, 5, 4, 1, 0, 3]
    torch.testing.assert_close(encoded.stranger, seen[places], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sources", [["a", "b", "c"], ["a", "a", "a"]])
def test_every_weight_that_is_trained_gets_a_gradient_also_where_nothing_can_be_matched(
    sources: list[str],
) -> None:
    model = model_of()
    batch = clips(model, sources)
    model.train()
    outputs, encoded = model.network(batch)
    model.task.loss(outputs, encoded, batch).total.backward()
    for name, weight in model.network.named_parameters():
        # Not None: under several processes all of them wait for every gradient.
        assert not weight.requires_grad or weight.grad is not None, name
    matched = model.network.head.grounding.match.answer.weight.grad.abs().sum()
    assert (matched > 0) == (len(set(sources)) > 1)


def test_an_answering_run_begins_with_the_grounding_of_another(tmp_path: Path) -> None:
    first = model_of(seed=1, stage="grounding")
    first.save(tmp_path / "grounded")
    second = model_of(seed=2, grounding_from=str(tmp_path / "grounded"))
    before = second.network.head.question.join.weight.clone()
    second.task.begin(second.network.head)
    for name, value in first.network.head.grounding.state_dict().items():
        assert torch.equal(value, second.network.head.grounding.state_dict()[name]), name
    assert torch.equal(before, second.network.head.question.join.weight)
    assert second.config.head.options["grounding_from"] == str(tmp_path / "grounded")


def test_a_grounding_that_is_absent_or_does_not_fit_is_one_line(tmp_path: Path) -> None:
    model = model_of()
    state = {
        f"head.grounding.{name}": value for name, value in model.network.head.grounding.state_dict().items()
    }
    cases: dict[str, tuple[dict[str, Tensor], str]] = {
        "other": ({"head.classes.weight": torch.zeros(2)}, "the run holds no head.grounding.audio.bias"),
        "size": ({**state, "head.grounding.audio.bias": torch.zeros(3)}, r"is \(3,\) there and \(8,\) here"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).mkdir()
        save_file(content, tmp_path / name / "weights.safetensors")
        chosen = model_of(grounding_from=str(tmp_path / name))
        with pytest.raises(AvtuneError, match=message) as caught:
            chosen.task.begin(chosen.network.head)
        assert "\n" not in str(caught.value)
    absent = model_of(grounding_from=str(tmp_path / "nowhere"))
    with pytest.raises(AvtuneError, match="give the folder of a finished run"):
        absent.task.begin(absent.network.head)


def test_batches_of_any_size_and_order_give_the_same_score() -> None:
    model = model_of()
    batch = clips(model, ["a", "b", "c"])
    with torch.no_grad():
        whole = model.network(batch)[0]
        for k in (2, 0, 1):
            alone = model.network(_only(batch, k))[0]
            np.testing.assert_allclose(alone[0].numpy(), whole[k].numpy(), rtol=1e-3, atol=1e-5)


def _only(batch: Batch, k: int) -> Batch:
    pick = slice(k, k + 1)
    assert batch.target is not None
    assert batch.question is not None
    return Batch(
        batch.frames[pick], batch.spectrogram[pick], batch.has_audio[pick], batch.has_video[pick], batch.valid[pick],
        batch.target[pick], batch.names[pick], batch.question[pick], batch.sources[pick],
    )  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 4])
def test_what_matches_is_scored_two_and_two_whatever_the_batch_size(batch_size: int) -> None:
    model = model_of(stage="grounding")
    batch = clips(model, ["a", "a", "b"])
    samples = [
        Sample(
            batch.names[k],
            Prepared(batch.frames[k], batch.spectrogram[k], torch.tensor(True), torch.tensor(True), batch.valid[k]),
            None, None, batch.sources[k],
        )
        for k in range(3)
    ]  # fmt: skip
    found = evaluate(model.network, model.task, samples, batch_size=batch_size)
    assert couples(3) == [[0, 2], [1]]
    assert found.scores is not None
    assert found.clips == 3
    # The middle clip has no other beside it.
    assert found.scores.details["clips"] == 2
    with torch.no_grad():
        match = model.network(_pair(batch))[0]
    expected = model.task.score(model.task.tally(match, _pair(batch)))
    assert found.scores == expected


def _pair(batch: Batch) -> Batch:
    chosen = [0, 2]
    return Batch(
        batch.frames[chosen], batch.spectrogram[chosen], batch.has_audio[chosen], batch.has_video[chosen],
        batch.valid[chosen], None, ["clip 0", "clip 2"], None, ["a", "b"],
    )  # fmt: skip
