"""Mismatched pairs as background."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avtune.errors import AvtuneError
from avtune.transforms import Batch, mine_foreground

BACKGROUND = 3


def batch_of(classes: list[list[int]], **changed: object) -> Batch:
    """Clips whose frames hold their own number everywhere, with the given class in each segment."""
    target = torch.tensor(classes)
    clips, segments = target.shape
    number = torch.arange(clips, dtype=torch.uint8)
    batch = Batch(
        frames=number.view(-1, 1, 1, 1, 1).expand(-1, segments, 3, 4, 4).clone(),
        spectrogram=torch.randn(clips, segments, 4, 4),
        has_audio=torch.ones(clips, dtype=torch.bool),
        has_video=torch.ones(clips, dtype=torch.bool),
        valid=torch.ones(clips, segments, dtype=torch.bool),
        target=target,
        names=[f"clip{k}" for k in range(clips)],
    )
    return replace(batch, **changed)


def mined(
    batch: Batch, share: float = 1.0, *, seed: int = 0, epoch: int = 0, relabel_only: bool = False
) -> Batch:
    return mine_foreground(
        batch, share, background=BACKGROUND, relabel_only=relabel_only, seed=seed, epoch=epoch
    )


def shown(batch: Batch) -> list[int]:
    """Whose frames each clip shows."""
    assert all(len(frames.unique()) == 1 for frames in batch.frames)
    return [int(frames.flatten()[0]) for frames in batch.frames]


@given(
    classes=st.lists(st.lists(st.integers(0, BACKGROUND), min_size=2, max_size=2), min_size=1, max_size=6),
    share=st.floats(0, 1),
    seed=st.integers(0, 50),
)
def test_what_is_called_background_is_really_mismatched(
    classes: list[list[int]], share: float, seed: int
) -> None:
    batch = batch_of(classes)
    changed = mined(batch, share, seed=seed)
    assert changed.target is not None
    assert torch.equal(changed.spectrogram, batch.spectrogram)
    for k, source in enumerate(shown(changed)):
        if source == k:
            assert changed.target[k].tolist() == classes[k]
        else:
            events, foreign = set(classes[k]) - {BACKGROUND}, set(classes[source]) - {BACKGROUND}
            assert events
            assert foreign
            assert not events & foreign
            assert changed.target[k].tolist() == [BACKGROUND] * 2


def test_every_clip_with_a_partner_is_changed_at_share_one() -> None:
    changed = mined(batch_of([[0, 0], [1, 3], [3, 3], [0, 3]]))
    assert changed.target is not None
    source = shown(changed)
    assert source[0] == source[3] == 1
    assert source[1] in (0, 3)
    assert source[2] == 2
    assert changed.target.tolist() == [[3, 3]] * 4


def test_the_share_of_changed_clips_is_the_one_asked_for() -> None:
    batch = batch_of([[k % BACKGROUND] * 2 for k in range(60)])
    changed = sum(
        k != source for e in range(40) for k, source in enumerate(shown(mined(batch, 0.2, epoch=e)))
    )
    assert changed / 2400 == pytest.approx(0.2, abs=0.03)


def test_the_draw_belongs_to_names_seed_and_epoch_and_not_to_the_order() -> None:
    batch = batch_of([[k % BACKGROUND] * 2 for k in range(12)])
    first = shown(mined(batch, 0.5))
    assert first == shown(mined(batch, 0.5))
    assert first != shown(mined(batch, 0.5, seed=1))
    assert first != shown(mined(batch, 0.5, epoch=1))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert batch.target is not None
    turned = replace(
        batch, frames=batch.frames[order], spectrogram=batch.spectrogram[order], target=batch.target[order],
        names=[batch.names[k] for k in order],
    )  # fmt: skip
    assert shown(mined(turned, 0.5)) == [first[k] for k in order]


def test_clips_without_a_stream_and_missing_segments_take_no_part() -> None:
    classes = [[0, 0], [1, 1], [2, 2]]
    deaf = batch_of(classes, has_audio=torch.tensor([False, True, True]))
    assert shown(mined(deaf))[0] == 0
    assert set(shown(mined(deaf))[1:]) == {1, 2}
    blind = batch_of(classes[:2], has_video=torch.tensor([True, False]))
    assert shown(mined(blind)) == [0, 1]
    short = batch_of(classes[:2], valid=torch.tensor([[True, False], [True, True]]))
    assert mined(short).valid.tolist() == [[True, False], [True, False]]


def test_relabelling_alone_leaves_the_frames() -> None:
    batch = batch_of([[0, 3], [0, 0]])
    changed = mined(batch, relabel_only=True)
    assert changed.target is not None
    assert torch.equal(changed.frames, batch.frames)
    assert changed.target.tolist() == [[3, 3]] * 2


def test_nothing_to_do_returns_the_batch_itself() -> None:
    batch = batch_of([[0, 0], [0, 0]])
    assert mined(batch, 0.0) is batch
    assert mined(batch) is batch
    one = batch_of([[0, 0]])
    assert mined(one) is one
    blank = replace(batch, names=[])
    assert mined(blank) is blank


def test_wrong_targets_are_refused() -> None:
    for target in (None, torch.zeros(1)):
        with pytest.raises(AvtuneError, match="needs a task with one class for each segment"):
            mined(batch_of([[0, 0]], target=target))


def test_clips_with_one_class_for_all_their_segments_are_mined_alike() -> None:
    batch = batch_of([[0, 0], [1, 1], [2, 2]])
    whole = mined(replace(batch, target=torch.tensor([0, 1, 2])), share=0.6, seed=2)
    by_segment = mined(batch, share=0.6, seed=2)
    assert by_segment.target is not None
    assert whole.target is not None
    assert 0 < int((whole.target == BACKGROUND).sum()) < 3
    assert torch.equal(whole.target, by_segment.target[:, 0])
    assert torch.equal(whole.frames, by_segment.frames)
