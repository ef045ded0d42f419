"""Classification of whole clips: targets, losses and scores by hand, and what must not change an answer."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avtune.config import EncoderConfig, HeadConfig, InputConfig, RunConfig
from avtune.datasets import DatasetError, Event, Record
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.fusion import Notes
from avtune.model import AudioVisualModel
from avtune.tasks import ClassificationTask, ClassPrediction, Truth, Window, create_task
from avtune.tasks.classification import clip_mean_logits
from avtune.transforms import Batch, Prepared, Sample, collate

LABELS = ("bell", "horn", "rain")


def task_of(**head: object) -> ClassificationTask:
    task = create_task(LABELS, InputConfig(segments=2), HeadConfig(task="classification", **head))  # type: ignore[arg-type]
    assert isinstance(task, ClassificationTask)
    return task


def batch_of(target: Tensor | None, valid: list[list[bool]]) -> Batch:
    clips, segments = len(valid), len(valid[0])
    yes = torch.ones(clips, dtype=torch.bool)
    return Batch(
        torch.zeros(clips, segments, 3, 4, 4, dtype=torch.uint8), torch.zeros(clips, segments, 4, 4),
        yes, yes, torch.tensor(valid), target, [f"clip{k}" for k in range(clips)],
    )  # fmt: skip


def encoded_of(batch: Batch) -> Encoded:
    nothing = torch.empty(0)
    return Encoded(nothing, nothing, nothing, nothing, Notes(batch.valid.shape[1]), valid=batch.valid)


def record_of(*labels: str) -> Record:
    return Record("a", Path("a.mp4"), tuple(map(Event, labels)))


def test_targets_are_one_class_or_a_row_of_classes() -> None:
    one, many = task_of(), task_of(multi_label=True)
    assert one.target(record_of("rain", "bell")) == torch.tensor(2)
    assert many.target(record_of("rain", "bell")).tolist() == [True, False, True]
    assert many.target(record_of()).tolist() == [False] * 3
    with pytest.raises(
        DatasetError, match=r"the clip has no label; give it one, or classify with head\.multi_label"
    ):
        one.target(record_of())
    for task in (one, many):
        with pytest.raises(DatasetError, match="label 'dog' is none of the 3"):
            task.target(record_of("dog"))


def test_the_loss_with_one_label_is_cross_entropy_over_clips_with_a_segment() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
    batch = batch_of(torch.tensor([0, 2, 1]), [[True, False], [True, True], [False, False]])
    loss = task_of().loss(logits, encoded_of(batch), batch)
    expected = -math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(-1))) + math.log(3)
    assert loss.total.item() == pytest.approx(expected, rel=1e-6)
    assert loss.count == 2
    soft = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    mixed = task_of().loss(logits, encoded_of(batch), replace(batch, target=soft))
    shares = [math.exp(x) / (math.exp(2) + 1 + math.exp(-1)) for x in (2, 0)]
    expected = -0.25 * math.log(shares[0]) - 0.75 * math.log(shares[1]) + math.log(3)
    assert mixed.total.item() == pytest.approx(expected, rel=1e-6)


def test_the_loss_with_any_number_of_labels_is_the_mean_binary_cross_entropy_of_the_classes() -> None:
    logits = torch.tensor([[0.0, 2.0, -3.0]])
    batch = batch_of(torch.tensor([[True, True, False]]), [[True, True]])
    loss = task_of(multi_label=True).loss(logits, encoded_of(batch), batch)
    each = (math.log(2), math.log(1 + math.exp(-2)), math.log(1 + math.exp(-3)))
    assert loss.total.item() == pytest.approx(sum(each) / 3, rel=1e-6)
    assert loss.count == 1


def test_smoothing_takes_a_share_of_every_truth_and_spreads_it_over_the_classes() -> None:
    logits = torch.tensor([[0.5, 2.0, -3.0]])
    for many, told, soft in (
        (True, [[True, False, True]], [1 - 0.1 + 0.1 / 3, 0.1 / 3, 1 - 0.1 + 0.1 / 3]),
        # A mixed clip: the authors' 0.1 / classes + 0.9 times each one's share.
        (True, [[0.3, 0.0, 1.0]], [0.1 / 3 + 0.9 * 0.3, 0.1 / 3, 0.1 / 3 + 0.9]),
        (False, [0], [1 - 0.1 + 0.1 / 3, 0.1 / 3, 0.1 / 3]),
        (False, [[0.3, 0.7, 0.0]], [0.1 / 3 + 0.9 * 0.3, 0.1 / 3 + 0.9 * 0.7, 0.1 / 3]),
    ):
        batch = batch_of(torch.tensor(told), [[True, True]])
        loss = task_of(multi_label=many, label_smoothing=0.1).loss(logits, None, batch).total.item()
        chances = logits[0].sigmoid() if many else logits[0].softmax(0)
        each = [
            -t * math.log(p) - ((1 - t) * math.log(1 - p) if many else 0)
            for t, p in zip(soft, chances.tolist(), strict=True)
        ]
        assert loss == pytest.approx(sum(each) / (3 if many else 1), rel=1e-5)
    with pytest.raises(AvtuneError, match="ma_avt gives a clip one label and brings its own loss"):
        task_of(name="ma_avt", label_smoothing=0.1)


def test_scores_by_hand() -> None:
    task = task_of()
    batch = batch_of(torch.tensor([0, 1, 1, 1]), [[True, True]] * 4)
    outputs = torch.tensor([[3.0, 1, 0], [0, 1, 2], [0, 2, 1], [1, 1, 1]])
    scores = task.score(task.tally(outputs, batch))
    assert (scores.name, scores.value) == ("top-1 accuracy", 0.5)
    assert scores.details["top_5"] == 1.0
    assert [row["recall"] for row in scores.details["per_class"]] == [1.0, pytest.approx(1 / 3), None]
    # A tie is no hit; the confusion counts its first class.
    assert scores.details["confusion"] == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]

    task = task_of(multi_label=True)
    true = torch.tensor([[True, False, False], [False, True, False], [True, True, False]])
    outputs = torch.tensor([[3.0, 2, 0], [2, 1, 0], [1, 3, 0]])
    scores = task.score(task.tally(outputs, batch_of(true, [[True, True]] * 3)))
    assert scores.name == "mean average precision"
    # bell: ranks 1 and 3; horn: ranks 1 and 3; rain never occurs and takes no part.
    assert scores.value == pytest.approx((1 + 2 / 3) / 2)
    assert [row["average_precision"] for row in scores.details["per_class"]][2] is None


@given(st.permutations(range(6)), st.integers(1, 5))
def test_scores_do_not_depend_on_batches_or_their_order(order: list[int], cut: int) -> None:
    generator = torch.Generator().manual_seed(1)
    outputs, target = torch.randn(6, 3, generator=generator), torch.randint(0, 3, (6,), generator=generator)
    task = task_of()

    def tally(places: list[int]) -> object:
        return task.tally(outputs[places], batch_of(target[places], [[True, True]] * len(places)))

    whole = task.score(tally(list(range(6))))  # type: ignore[arg-type]
    parts = task.score(tally(order[:cut]) + tally(order[cut:]))  # type: ignore[operator]
    assert parts == whole


def test_the_floor_that_sees_nothing_follows_the_training_clips() -> None:
    batch = batch_of(torch.tensor([0, 2]), [[True, True]] * 2)
    truths = [Truth(torch.tensor(k)) for k in (2, 1, 2)]
    task = task_of()
    majority = task.blind_answers(truths)["majority"](batch)
    assert task.score(task.tally(majority, batch)).value == 0.5
    many = task_of(multi_label=True)
    rows = [Truth(torch.tensor(row)) for row in ([True, False, True], [True, False, False])]
    assert many.blind_answers(rows)["majority"](batch).tolist() == [[2, 0, 1]] * 2


def test_segments_that_do_not_exist_take_no_part_in_the_mean() -> None:
    logits = torch.tensor([[[1.0, 0.0], [3.0, 2.0]], [[1.0, 0.0], [9.0, 9.0]], [[1.0, 1.0], [3.0, 3.0]]])
    valid = torch.tensor([[True, True], [True, False], [False, False]])
    assert clip_mean_logits(logits, valid).tolist() == [[2, 1], [1, 0], [2, 2]]
    assert torch.equal(clip_mean_logits(logits, None), logits.mean(1))


def model_of(**config: object) -> AudioVisualModel:
    torch.manual_seed(0)
    encoder = EncoderConfig(pretrained=False, **config.pop("encoder", {}))  # type: ignore[arg-type]
    head = HeadConfig(task="classification", hidden=16, **config.pop("head", {}))  # type: ignore[arg-type]
    model = AudioVisualModel(
        RunConfig(input=InputConfig(segments=2), encoder=encoder, head=head), LABELS, depth=1
    )
    for weight in model.network.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.2)
    return model


def sample(seed: int, valid: tuple[bool, bool] = (True, True)) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (2, 3, 64, 64), generator=generator, dtype=torch.uint8)
    sound, yes = torch.randn(2, 64, 64, generator=generator), torch.tensor(True)
    return Sample(
        f"clip{seed}", Prepared(frames, sound, yes, yes, torch.tensor(valid)), torch.tensor(seed % 3)
    )


@pytest.mark.parametrize("method", ["lavish", "ma_avt"])
def test_neither_padding_nor_company_changes_an_answer(method: str) -> None:
    head = {"name": "ma_avt"} if method == "ma_avt" else {}
    model = model_of(encoder={"fusion": method}, head=head)
    short, other = sample(0, (True, False)), sample(1)
    with torch.no_grad():
        alone, _ = model.network(collate([short]))
        together, _ = model.network(collate([other, short]))
        scrambled = replace(
            short.prepared,
            frames=short.prepared.frames.clone(),
            spectrogram=short.prepared.spectrogram.clone(),
        )
        scrambled.frames[1], scrambled.spectrogram[1] = 0, 7.0
        padded, _ = model.network(collate([replace(short, prepared=scrambled)]))
    assert alone.shape == (1, 3)
    # Sums in another order differ in the last bits of single precision.
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(padded, alone, atol=1e-6, rtol=1e-6)


def test_ma_avts_head_is_taught_background_and_answers_classes() -> None:
    model = model_of(encoder={"fusion": "ma_avt"}, head={"name": "ma_avt"})
    task = model.task
    assert (task.background, task.mixable) == (3, False)
    batch = collate([sample(0), sample(1), sample(2, (True, False))])
    assert batch.target is not None
    batch.target[1] = 3
    outputs, encoded = model.network.train()(batch)
    classes = encoded.notes.records["foreground_logits"][-1]
    gate = encoded.notes.records["background_logits"][-1]
    loss = task.loss(outputs, encoded, batch)
    expected = F.cross_entropy(classes[0], torch.tensor([0, 0]), reduction="sum")
    expected = expected + F.cross_entropy(classes[2, :1], torch.tensor([2]), reduction="sum")
    expected = expected + F.softplus(gate[0]).sum() + F.softplus(-gate[1]).sum() + F.softplus(gate[2, 0])
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == 5
    assert task.foreground(batch).tolist() == [True, True, False, False, True, False]
    with torch.no_grad():
        outputs, encoded = model.network.eval()(batch)
    classes = encoded.notes.records["foreground_logits"][-1]
    probabilities = task.parts(outputs, encoded, batch)["probabilities"]
    torch.testing.assert_close(
        probabilities[:1],
        classes[:1]
        .log_softmax(-1)
        .mean(1)
        .add(F.logsigmoid(-encoded.notes.records["background_logits"][-1][:1]).mean(1, keepdim=True))
        .softmax(-1),
    )
    assert probabilities.shape == (3, 3)


def test_mbts_streams_are_each_taught_where_the_preset_says_so() -> None:
    batch = collate([sample(0), sample(1, (True, False))])
    own = {}
    for preset in ("mean", "class_token"):
        model = model_of(encoder={"fusion": "lavish"}, head={"name": "mbt", "preset": preset})
        outputs, encoded = model.network(batch)
        own[preset] = model.task.loss(outputs, encoded, batch).total
        if preset == "mean":
            torch.testing.assert_close(own[preset], F.cross_entropy(outputs, batch.target, reduction="sum"))
        else:
            streams = encoded.notes.records["stream_logits"][-1]
            expected = (
                sum(
                    F.cross_entropy(torch.stack([part[0].mean(0), part[1, 0]]), batch.target, reduction="sum")
                    for part in streams
                )
                / 2
            )
            torch.testing.assert_close(own[preset], expected)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"name": "psp"}, "cannot classify whole clips; choose head.name from segment, mbt, ma_avt"),
        ({"loss": "binary_on_softmax"}, "is for event localization"),
        ({"name": "ma_avt", "multi_label": True}, "gives a clip one label"),
        ({"name": "segmnt"}, "did you mean 'segment'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(head: dict[str, object], words: str) -> None:
    with pytest.raises(AvtuneError, match=words) as caught:
        task_of(**head)
    assert "\n" not in str(caught.value)


def test_soft_targets_are_shares_of_classes() -> None:
    assert task_of().soft_target(torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert task_of(multi_label=True).soft_target(torch.tensor([[True, False, True]])).tolist() == [[1, 0, 1]]


def test_a_long_file_is_the_mean_of_its_windows_weighed_by_their_segments() -> None:
    task = task_of()
    first, second = np.array([1.0, 0.0, 0.0], np.float32), np.array([0.0, 1.0, 0.0], np.float32)
    windows = [
        Window(0.0, np.array([True, True]), (), {"probabilities": first}),
        Window(2.0, np.array([True, False]), ("the rest is padding",), {"probabilities": second}),
    ]
    prediction = task.predict(Path("a.mp4"), windows)
    assert isinstance(prediction, ClassPrediction)
    assert prediction.ranked[0] == ("bell", pytest.approx(2 / 3))
    assert prediction.notes == ("the rest is padding",)
