"""What a run does before it trains: its clips, each read once, all splits within one limit of memory."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from avtune import runs
from avtune.config import DataConfig, EncoderConfig, InputConfig, RunConfig, TrainConfig
from avtune.datasets import DatasetError
from avtune.datasets.clips import clip_bytes
from avtune.errors import AvtuneError
from avtune.media import write_video
from avtune.model import AudioVisualModel
from avtune.runs import RunObserver, prepare_clips, read_collection
from avtune.runs.clips import refuse_without


class Listening(RunObserver):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.announced: list[int] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def reading(self, clips: int) -> None:
        self.announced.append(clips)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for label in ("bell", "horn"):
        for number in range(3):
            frames = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
            path = root / label / f"{number}.mp4"
            path.parent.mkdir(exist_ok=True)
            write_video(path, frames, 2.0, rng.normal(0, 0.1, 32000).astype(np.float32))
    return root


@pytest.mark.parametrize(("spare", "cached"), [(0, True), (-1, False)])
def test_clips_stay_in_memory_only_if_those_of_all_splits_fit(folder, monkeypatch, spare, cached):
    config = RunConfig(
        data=DataConfig(name="folder", root=str(folder), validation_share=0.34, test_share=0.34, workers=0),
        input=InputConfig(segments=2),
        encoder=EncoderConfig(pretrained=False),
    )
    observer = Listening()
    collection = read_collection(config, observer)
    model = AudioVisualModel(config, collection.labels, depth=1)
    size = 6 * clip_bytes(model.preprocessing)
    monkeypatch.setattr("avtune.runs.clips.MEMORY_LIMIT_BYTES", size + spare)
    clips = prepare_clips(config, model, collection, observer)
    assert sum(len(dataset) for dataset in clips.splits.values()) == 6
    assert len(clips.splits) > 1
    assert {dataset.cached for dataset in clips.splits.values()} == {cached}
    assert observer.announced == ([6] if cached else [])
    assert any("read anew each time" in message for message in observer.messages) is not cached
    for dataset in clips.splits.values():
        record = dataset.records[0]
        assert torch.equal(dataset[0].prepared.frames, model.preprocessing.load(record.source).frames)


def test_clips_that_do_not_fit_into_memory_stay_on_disk_if_wanted(folder, tmp_path, monkeypatch):
    config = RunConfig(
        data=DataConfig(name="folder", root=str(folder), workers=0, cache_folder=str(tmp_path / "cache")),
        input=InputConfig(segments=2),
        encoder=EncoderConfig(pretrained=False),
    )
    observer = Listening()
    collection = read_collection(config, observer)
    model = AudioVisualModel(config, collection.labels, depth=1)
    monkeypatch.setattr("avtune.runs.clips.MEMORY_LIMIT_BYTES", 1)
    train = prepare_clips(config, model, collection, observer, ("train",)).splits["train"]
    assert not train.cached
    assert any(
        f"they are read from {tmp_path / 'cache'} each time" in message for message in observer.messages
    )
    assert any("prepared clips take 0.00 of 20 GB" in message for message in observer.messages)
    drawn = train[0].prepared
    monkeypatch.setattr("avtune.transforms.Preprocessing.load", None)
    assert torch.equal(train[0].prepared.frames, drawn.frames)


def test_a_run_says_how_many_clips_each_split_has(folder):
    config = RunConfig(
        data=DataConfig(name="folder", root=str(folder), validation_share=0.34, test_share=0.34)
    )
    observer = Listening()
    collection = read_collection(config, observer)
    counts = {split: len(records) for split, records in collection.splits.items()}
    assert sum(counts.values()) == 6
    told = f"clips: {counts['train']} train, {counts['validation']} validation, {counts['test']} test"
    assert observer.messages[-1] == told


def test_compiling_and_recomputing_together_are_refused_before_anything_is_trained(folder, tmp_path):
    config = RunConfig(
        data=DataConfig(name="folder", root=str(folder), workers=0),
        input=InputConfig(segments=2),
        encoder=EncoderConfig(pretrained=False),
        train=TrainConfig(compile=True, checkpoint=True),
    )
    with pytest.raises(AvtuneError, match="do not go together"):
        runs.train_run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_split_with_one_readable_clip_is_scored_without_shuffling(folder, tmp_path):
    root = tmp_path / "clips"
    shutil.copytree(folder, root)
    config = RunConfig(
        data=DataConfig(name="folder", root=str(root), validation_share=0.0, test_share=0.34, workers=0),
        input=InputConfig(segments=2),
        encoder=EncoderConfig(pretrained=False),
        train=TrainConfig(epochs=1),
    )
    test = read_collection(config, RunObserver()).splits["test"]
    assert len(test) == 2
    test[0].source.write_bytes(b"")
    observer = Listening()
    sheet = runs.train_run(config, tmp_path / "run", observer)
    assert sheet.clips == 1
    assert list(sheet.damaged) == [test[0].name]
    assert "shuffled audio" not in sheet.floors
    assert any("shuffled audio is left out" in message for message in observer.messages)
    assert (tmp_path / "run" / "report.html").is_file()


def test_clips_that_leave_none_to_score_with_are_refused_before_anything_is_trained(folder, tmp_path):
    for label in ("bell", "horn"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        shutil.copy(folder / label / "0.mp4", tmp_path / "clips" / label)
    config = RunConfig(data=DataConfig(name="folder", root=str(tmp_path / "clips")))
    with pytest.raises(
        DatasetError, match="no clip is held out to score with; add clips until a label has two"
    ):
        runs.train_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_split_that_is_not_there_is_refused_with_those_that_are(folder):
    collection = read_collection(
        RunConfig(data=DataConfig(name="folder", root=str(folder), validation_share=0.0, test_share=0.34)),
        RunObserver(),
    )
    refuse_without(collection, "test")
    with pytest.raises(DatasetError, match=r"there is no validation split; it has train, test$"):
        refuse_without(collection, "validation")
