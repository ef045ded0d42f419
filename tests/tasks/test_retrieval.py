"""Retrieval: the loss by hand, strict ranks, one query a file, and that no vector hears its partner."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtune.config import EncoderConfig, HeadConfig, InputConfig, RunConfig, TrainConfig
from avtune.counting import example_batch
from avtune.datasets import Event, Record
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.fusion.base import Notes
from avtune.model import AudioVisualModel
from avtune.tasks import RetrievalPrediction, RetrievalTask, Rows, Window, create_task
from avtune.tasks.retrieval import unit
from avtune.train.optimizer import build_optimizer
from avtune.transforms import Batch

LABELS = ("bell", "drum")


def task_of(**options: Any) -> RetrievalTask:
    task = create_task(LABELS, InputConfig(segments=3), HeadConfig(task="retrieval", options=options))
    assert isinstance(task, RetrievalTask)
    return task


def batch_of(
    clips: int,
    *,
    audio: list[bool] | None = None,
    valid: torch.Tensor | None = None,
    sources: list[str] | None = None,
    target: list[int] | None = None,
) -> Batch:
    yes, blank = torch.ones(clips, dtype=torch.bool), torch.zeros(clips)
    return Batch(
        blank, blank, yes if audio is None else torch.tensor(audio), yes,
        torch.ones(clips, 3, dtype=torch.bool) if valid is None else valid,
        torch.tensor([0] * clips if target is None else target),
        [f"clip{k}" for k in range(clips)],
        sources=[f"{k}.mp4" for k in range(clips)] if sources is None else sources,
    )  # fmt: skip


def encoded_with(temperature: float) -> Encoded:
    nothing = torch.zeros(0)
    notes = Notes(records={"temperature": [torch.tensor(temperature)]})
    return Encoded(nothing, nothing, nothing, nothing, notes)


def vectors(clips: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(clips, 2, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


def test_the_target_is_the_class_of_the_first_event() -> None:
    task = task_of()
    assert int(task.target(Record("a", Path("a.mp4"), (Event("drum"), Event("bell"))))) == 1
    assert int(task.target(Record("a", Path("a.mp4"), ()))) == -1


@pytest.mark.parametrize("temperature", [0.05, 0.4])
def test_the_loss_by_hand(temperature: float) -> None:
    # Clips 0 and 3 are of one file, clip 4 has no sound, of clip 5 no segment exists.
    valid = torch.ones(6, 3, dtype=torch.bool)
    valid[5] = False
    sources = ["a.mp4", "b.mp4", "c.mp4", "a.mp4", "d.mp4", "e.mp4"]
    batch = batch_of(6, audio=[True] * 4 + [False, True], valid=valid, sources=sources)
    outputs = vectors(6)
    found = task_of().loss(outputs, encoded_with(temperature), batch)
    audio, video = outputs.double().numpy().transpose(1, 0, 2)
    expected = 0.0
    for k in range(4):
        others = [j for j in range(4) if j == k or sources[j] != sources[k]]
        for query, candidates in ((audio[k], video), (video[k], audio)):
            scores = [math.exp(float(query @ candidates[j]) / temperature) for j in others]
            expected -= math.log(scores[others.index(k)] / sum(scores)) / 2
    assert found.count == 4
    assert float(found.total) == pytest.approx(expected, rel=1e-5)


def test_unknown_files_are_strangers_and_a_lone_clip_has_no_loss() -> None:
    outputs = vectors(3)
    known = task_of().loss(outputs, encoded_with(0.1), batch_of(3))
    unknown = task_of().loss(outputs, encoded_with(0.1), batch_of(3, sources=["", "", ""]))
    assert float(known.total) == float(unknown.total) > 0
    one = task_of().loss(outputs[:1], encoded_with(0.1), batch_of(1))
    assert float(one.total) == 0.0


def test_gradients_exist_where_nothing_takes_part() -> None:
    outputs = vectors(2).requires_grad_()
    found = task_of().loss(outputs, encoded_with(0.1), batch_of(2, audio=[False, False]))
    found.total.backward()
    assert found.count == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(0, 10**6))
def test_ranks_are_those_of_sorting_whatever_the_batches(clips: int, seed: int) -> None:
    task, outputs = task_of(), vectors(clips, seed=seed)
    whole = task.score(task.tally(outputs, batch_of(clips)))
    names = [f"{k}.mp4" for k in range(clips)]
    parts = [
        task.tally(outputs[k : k + 1], replace(batch_of(1, sources=[names[k]]), names=[names[k]]))
        for k in reversed(range(clips))
    ]
    assert task.score(sum(parts[1:], parts[0])) == whole
    audio, video = outputs.double().numpy().transpose(1, 0, 2)
    hits = []
    for queries, candidates in ((audio, video), (video, audio)):
        order = np.argsort(-(queries @ candidates.T), axis=1)
        hits.append(np.mean(order[:, 0] == np.arange(clips)))
    assert whole.value == pytest.approx(np.mean(hits))
    assert whole.details["audio_to_video"]["recall_at_1"] == pytest.approx(hits[0])
    assert whole.floors == {"chance": 1 / clips}


def test_many_queries_are_ranked_in_blocks_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task, outputs = task_of(), vectors(50)
    at_once = task.score(task.tally(outputs, batch_of(50)))
    monkeypatch.setattr("avtune.tasks.retrieval.QUERIES_AT_ONCE", 7)
    assert task.score(task.tally(outputs, batch_of(50))) == at_once


def test_vectors_that_tell_nothing_apart_find_nothing() -> None:
    task = task_of()
    same = vectors(1).expand(5, -1, -1)
    assert task.score(task.tally(same, batch_of(5))).value == 0.0
    # The last digits of single precision make no difference either.
    nearly = torch.nn.functional.normalize(same + 1e-8 * vectors(5, seed=3), dim=-1)
    assert task.score(task.tally(nearly, batch_of(5))).value == 0.0


def test_a_file_is_one_query_with_the_mean_of_its_clips() -> None:
    task, outputs = task_of(), vectors(5)
    valid = torch.ones(5, 3, dtype=torch.bool)
    valid[1, 1:] = False
    sources = ["a.mp4", "a.mp4", "b.mp4", "c.mp4", "c.mp4"]
    batch = batch_of(5, valid=valid, sources=sources, audio=[True, True, True, True, False])
    scores = task.score(task.tally(outputs, batch))
    assert scores.details["queries"] == 3
    assert scores.details["left_out"] == 0
    merged = torch.stack([3 * outputs[0] + outputs[1], outputs[2], outputs[3]]).double().numpy()
    files = torch.from_numpy(unit(merged))
    expected = task.score(task.tally(files, batch_of(3, sources=["a.mp4", "b.mp4", "c.mp4"])))
    assert scores.details["audio_to_video"] == expected.details["audio_to_video"]


def test_files_without_sound_are_left_out_and_told() -> None:
    task, outputs = task_of(), vectors(4)
    scores = task.score(task.tally(outputs, batch_of(4, audio=[True, False, True, True])))
    assert scores.details["queries"] == 3
    assert scores.details["notes"] == ["1 files lack sound or frames and were left out of the search."]
    nothing = task.score(task.tally(outputs, batch_of(4, audio=[False] * 4)))
    assert nothing.value == 0.0
    assert nothing.details["left_out"] == 4
    assert nothing.floors == {}


def test_distractors_of_the_same_class_are_scored_apart() -> None:
    # Every sound is nearest to the frames of the next clip of the other class: found among its own class only.
    eye = torch.eye(4)
    outputs = torch.stack([eye, 0.6 * eye + 0.8 * eye.roll(-1, 0)], dim=1)
    task = task_of()
    scores = task.score(task.tally(outputs, batch_of(4, target=[0, 1, 0, 1])))
    assert scores.value == 0.0
    within = scores.details["same_class"]
    assert within["audio_to_video"]["recall_at_1"] == within["video_to_audio"]["recall_at_1"] == 1.0
    assert within["chance"] == 0.5
    assert within["queries"] == 4
    (rows,) = scores.details["tables"].values()
    assert [row["search"] for row in rows][2:] == [
        "sound to frames, clips of its class",
        "frames to sound, clips of its class",
    ]
    alone = task.score(task.tally(outputs, batch_of(4, target=[-1, -1, 0, 1])))
    assert "same_class" not in alone.details


CONFIG = RunConfig(
    encoder=EncoderConfig(pretrained=False), input=InputConfig(segments=3), head=HeadConfig(task="retrieval")
)


def model_with(**encoder: Any) -> AudioVisualModel:
    torch.manual_seed(0)
    model = AudioVisualModel(replace(CONFIG, encoder=replace(CONFIG.encoder, **encoder)), LABELS, depth=2)
    for weight in model.network.parameters():
        if weight.requires_grad and weight.numel() == 1:
            torch.nn.init.constant_(weight, 0.5)  # open gates
    return model


def drawn_batch(model: AudioVisualModel, clips: int = 2) -> Batch:
    one = example_batch(model.preprocessing, torch.device("cpu"))
    generator = torch.Generator().manual_seed(5)
    shape = (clips, *one.frames.shape[1:])
    frames = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    sound = torch.randn(clips, *one.spectrogram.shape[1:], generator=generator)
    yes = torch.ones(clips, dtype=torch.bool)
    valid = torch.ones(clips, 3, dtype=torch.bool)
    return Batch(frames, sound, yes, yes, valid, torch.zeros(clips).long(), [f"{k}" for k in range(clips)])


@pytest.mark.parametrize(
    "encoder",
    [
        {"fusion": "lavish"},
        {"fusion": "lavish", "options": {"direction": "none"}},
        {"fusion": "stg_cma"},
        {"fusion": "dg_sct"},
        {"fusion": "frozen", "tuning": "adapter"},
    ],
    ids=lambda encoder: "-".join(map(str, encoder.values())),
)
def test_a_sounds_vector_does_not_know_its_frames(encoder: dict[str, Any]) -> None:
    model = model_with(**encoder)
    batch = drawn_batch(model)
    with torch.no_grad():
        before, _ = model.network(batch)
        other_frames, _ = model.network(replace(batch, frames=255 - batch.frames))
        other_sound, _ = model.network(replace(batch, spectrogram=-batch.spectrogram))
    assert torch.equal(before[:, 0], other_frames[:, 0])
    assert not torch.equal(before[:, 1], other_frames[:, 1])
    assert torch.equal(before[:, 1], other_sound[:, 1])
    assert not torch.equal(before[:, 0], other_sound[:, 0])


def test_in_other_tasks_the_same_method_lets_streams_hear_each_other() -> None:
    model = model_with(fusion="lavish")
    batch = drawn_batch(model)
    model.network.streams_apart = False
    with torch.no_grad():
        before, _ = model.network(batch)
        after, _ = model.network(replace(batch, frames=255 - batch.frames))
    assert not torch.equal(before[:, 0], after[:, 0])


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_streams_apart_are_the_streams_of_one_walk_where_none_hears_the_other(mode: str) -> None:
    model = model_with(fusion="frozen", tuning="adapter")
    batch = drawn_batch(model)
    getattr(model, mode)()
    with torch.no_grad():
        once, _ = model.network(batch)
        model.network.encoder.fusion.exchanges = True
        twice, _ = model.network(batch)
    torch.testing.assert_close(once, twice, rtol=1e-5, atol=1e-6)


def test_methods_whose_loss_compares_the_streams_are_refused() -> None:
    with pytest.raises(AvtuneError, match="retrieval encodes each stream without the other") as caught:
        model_with(fusion="ma_avt")
    assert "\n" not in str(caught.value)


def test_features_of_a_frozen_encoder_have_nothing_to_train() -> None:
    config = replace(CONFIG, head=replace(CONFIG.head, preset="features"))
    config = replace(config, encoder=replace(config.encoder, fusion="frozen"))
    network = AudioVisualModel(config, LABELS, depth=1).network
    with pytest.raises(AvtuneError, match="has a weight to train; choose another"):
        build_optimizer(network, config.optimizer)


def test_single_streams_cannot_be_scored() -> None:
    with pytest.raises(AvtuneError, match=r"leave out train\.floors"):
        create_task(LABELS, InputConfig(), HeadConfig(task="retrieval", streams="alone"))


def test_training_with_floors_is_refused_before_it_begins(tmp_path: Path) -> None:
    from avtune.datasets.bandstand import render_bandstand
    from avtune.runs import train_run

    render_bandstand(tmp_path / "clips", 12, seed=1, size=32, rate=2, workers=1)
    config = replace(
        CONFIG,
        data=replace(CONFIG.data, name="bandstand_pairs", root=str(tmp_path / "clips")),
        train=TrainConfig(floors=True),
    )
    with pytest.raises(AvtuneError, match=r"leave out train\.floors"):
        train_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_pulls_partners_together() -> None:
    model = model_with(fusion="frozen")
    batch = drawn_batch(model, clips=4)
    model.train()
    optimizer = torch.optim.Adam([w for w in model.parameters() if w.requires_grad], lr=1e-2)
    losses = []
    for _ in range(15):
        outputs, encoded = model.network(batch)
        loss = model.task.loss(outputs, encoded, batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(float(loss.total.detach()))
    assert losses[-1] < 0.2 * losses[0]
    assert model.task.score(model.task.tally(outputs.detach(), batch)).value == 1.0


def test_a_prediction_keeps_each_window_and_means_them() -> None:
    def window(start: float, values: torch.Tensor, valid: list[bool]) -> Window:
        return Window(start, np.array(valid), (), {"vectors": values.numpy()})

    first, second = vectors(2)
    found = task_of().predict(
        Path("long.mp4"), [window(0.0, first, [True] * 3), window(3.0, second, [True, False, False])]
    )
    assert isinstance(found, RetrievalPrediction)
    expected = unit((3 * first + second).double().numpy())
    np.testing.assert_allclose(found.vectors, expected, rtol=1e-6)
    assert found.starts.tolist() == [0.0, 3.0]
    assert found.agreement == pytest.approx(float(expected[0] @ expected[1]), rel=1e-6)
    deaf = task_of().predict(Path("a.mp4"), [window(0.0, first * torch.tensor([[0.0], [1.0]]), [True] * 3)])
    assert deaf.agreement is None


def test_rows_of_no_clip_add_up() -> None:
    task, outputs = task_of(), vectors(2)
    rows = task.tally(outputs, batch_of(2))
    empty = Rows({name: values[:0] for name, values in rows.columns.items()})
    assert task.score(empty + rows) == task.score(rows)
