from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from made_up_clips import MadeUpClips
from training_case import small_config, small_model

from avtune.errors import AvtuneError
from avtune.model import AudioVisualModel
from avtune.train import evaluate
from avtune.train.evaluate import ShuffledSound
from avtune.transforms import Damaged, Sample, collate


@pytest.fixture(scope="module")
def model() -> AudioVisualModel:
    return small_model(small_config())


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_each_readable_clip_counts_once_for_any_batch_size(model: AudioVisualModel, batch_size: int) -> None:
    clips = MadeUpClips(11, damaged=(0, 5, 6, 7))
    advances: list[int] = []
    found = evaluate(model.network, model.task, clips, batch_size=batch_size, advanced=advances.append)
    assert found.clips == 7
    assert list(found.damaged) == ["clip0", "clip5", "clip6", "clip7"]
    assert sum(advances) == 11
    # Counted by hand, one clip at a time.
    counts: np.ndarray | None = None
    with torch.no_grad():
        for clip in clips.clips:
            if isinstance(clip, Sample):
                batch = collate([clip])
                one = model.task.tally(model.network.eval()(batch)[0], batch)
                counts = one if counts is None else counts + one
    assert counts is not None
    assert found.scores is not None
    assert vars(found.scores) == vars(model.task.score(counts))


def test_nothing_readable_gives_no_score(model: AudioVisualModel) -> None:
    found = evaluate(model.network, model.task, MadeUpClips(2, damaged=(0, 1)))
    assert found.scores is None
    assert found.clips == 0
    assert len(found.damaged) == 2


def test_an_answer_that_is_no_number_is_no_score(model: AudioVisualModel) -> None:
    with pytest.raises(AvtuneError, match="answer to clip2, clip3 is no number; its weights are damaged"):
        evaluate(model.network, model.task, MadeUpClips(5, nan=(3,)), batch_size=2)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_changes_nothing(training: bool) -> None:
    model = small_model(small_config())
    model.network.train(training)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    evaluate(model.network, model.task, MadeUpClips(5), batch_size=2)
    assert model.network.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())


@pytest.mark.parametrize("removed", ["audio", "video"])
def test_a_removed_stream_has_no_effect(model: AudioVisualModel, removed: Literal["audio", "video"]) -> None:
    seen: list[torch.Tensor] = []
    handle = model.network.register_forward_hook(lambda module, given, out: seen.append(out[0]))

    def outputs(clips: MadeUpClips, **how: Any) -> torch.Tensor:
        seen.clear()
        evaluate(model.network, model.task, clips, batch_size=4, **how)
        return torch.cat(seen)

    clips, others = MadeUpClips(4), MadeUpClips(4)
    for clip, other in zip(clips.clips, MadeUpClips(4, seed=9).clips, strict=True):
        assert isinstance(clip, Sample)
        assert isinstance(other, Sample)
        name = "spectrogram" if removed == "audio" else "frames"
        changed = type(clip.prepared)(**{**vars(clip.prepared), name: getattr(other.prepared, name)})
        others.clips[clips.clips.index(clip)] = Sample(clip.name, changed, clip.target)
    try:
        assert not torch.equal(outputs(clips), outputs(others))
        assert torch.equal(outputs(clips, without=removed), outputs(others, without=removed))
        kept: Literal["audio", "video"] = "video" if removed == "audio" else "audio"
        assert not torch.equal(outputs(clips, without=kept), outputs(others, without=kept))
    finally:
        handle.remove()


@pytest.mark.parametrize("damaged", [(), (2,), (0, 1, 4, 5)])
def test_shuffled_sound_gives_each_clip_the_sound_of_another(damaged: tuple[int, ...]) -> None:
    clips = MadeUpClips(9, damaged=damaged)
    shuffled = ShuffledSound(clips, seed=3)
    givers = []
    for k in range(len(clips)):
        mine, swapped = clips[k], shuffled[k]
        if isinstance(mine, Damaged):
            assert swapped is mine
            continue
        assert isinstance(swapped, Sample)
        assert swapped.name == mine.name
        assert swapped.prepared.frames is mine.prepared.frames
        assert swapped.target is mine.target
        same = [
            j for j, clip in enumerate(clips.clips)
            if isinstance(clip, Sample) and clip.prepared.spectrogram is swapped.prepared.spectrogram
        ]  # fmt: skip
        givers += same
        assert same != [k]
    assert sorted(givers) == [k for k in range(9) if k not in damaged]


def test_shuffled_sound_of_a_clip_that_stands_alone_is_damaged() -> None:
    shuffled = ShuffledSound(MadeUpClips(3, damaged=(0, 2)))
    answer = shuffled[1]
    assert isinstance(answer, Damaged)
    assert answer.name == "clip1"
