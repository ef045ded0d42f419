"""Mixed clips: both streams and the truth in one proportion, whatever the order of the batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from avtune.transforms import Batch, mix_clips


def one_hot(target: Tensor) -> Tensor:
    return torch.eye(8)[target]


def batch_of(clips: int, **changed: object) -> Batch:
    """Clip k has the class k, frames of 10 k, and a spectrogram of k everywhere."""
    number = torch.arange(clips)
    yes = torch.ones(clips, dtype=torch.bool)
    batch = Batch(
        frames=(10 * number).to(torch.uint8).view(-1, 1, 1, 1, 1).expand(-1, 2, 3, 4, 4).clone(),
        spectrogram=number.float().view(-1, 1, 1, 1).expand(-1, 2, 4, 4).clone(),
        has_audio=yes,
        has_video=yes,
        valid=torch.ones(clips, 2, dtype=torch.bool),
        target=number,
        names=[f"clip{k}" for k in range(clips)],
    )
    return replace(batch, **changed)


def mixed(batch: Batch, share: float = 1.0, seed: int = 0, epoch: int = 0) -> Batch:
    return mix_clips(batch, share, soften=one_hot, seed=seed, epoch=epoch)


def test_frames_sound_and_truth_share_one_proportion() -> None:
    batch = mixed(batch_of(8))
    assert batch.target is not None
    torch.testing.assert_close(batch.target.sum(1), torch.ones(8))
    assert (batch.target > 0).sum(1).tolist() == [2] * 8
    assert (batch.target.diagonal() > 0).all()
    # Each clip's values are its class index (times ten for frames), so their mean over shares tells them.
    expected = batch.target @ torch.arange(8.0)
    torch.testing.assert_close(batch.spectrogram, expected.view(-1, 1, 1, 1).expand(-1, 2, 4, 4))
    assert batch.frames.dtype == torch.uint8
    assert ((batch.frames.float() - 10 * expected.view(-1, 1, 1, 1, 1)).abs() <= 0.5 + 1e-4).all()


def test_proportions_are_drawn_from_beta_10_10_and_shares_from_the_seed() -> None:
    own: list[float] = []
    untouched = 0
    for epoch in range(60):
        target = mixed(batch_of(8), share=0.5, epoch=epoch).target
        assert target is not None
        rows = target if target.ndim == 2 else one_hot(target)
        own += [float(share) for share in rows.diagonal() if share < 1]
        untouched += int((rows.diagonal() == 1).sum())
    assert abs(untouched - 240) < 60
    # Beta(10, 10): mean 1/2, variance 1/84.
    assert abs(np.mean(own) - 0.5) < 0.03
    assert abs(np.var(own) - 1 / 84) < 0.004


def test_the_order_of_a_batch_does_not_matter_and_the_seed_does() -> None:
    batch = batch_of(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = replace(
        batch,
        frames=batch.frames[order], spectrogram=batch.spectrogram[order],
        target=order, names=[batch.names[k] for k in order],
    )  # fmt: skip
    one, other = mixed(batch, 0.7), mixed(shuffled, 0.7)
    assert one.target is not None
    assert other.target is not None
    assert torch.equal(one.target[order], other.target)
    assert torch.equal(one.frames[order], other.frames)
    again, elsewhere = mixed(batch, 0.7), mixed(batch, 0.7, epoch=1)
    assert torch.equal(again.spectrogram, one.spectrogram)
    assert not torch.equal(elsewhere.spectrogram, one.spectrogram)


def test_clips_that_lack_a_stream_neither_change_nor_lend() -> None:
    batch = batch_of(4)
    batch.has_audio[1] = False
    batch.has_video[2] = False
    result = mixed(batch)
    assert result.target is not None
    assert torch.equal(result.target[1:3], one_hot(torch.tensor([1, 2])))
    assert torch.equal(result.spectrogram[1:3], batch.spectrogram[1:3])
    assert (result.target[[0, 3]][:, [0, 3]].sum(1) == 1).all()
    lone = batch_of(2)
    lone.has_audio[0] = False
    assert mixed(lone) is lone


def test_segments_have_to_exist_in_both_clips() -> None:
    batch = batch_of(2)
    batch.valid[1, 1] = False
    assert mixed(batch).valid.tolist() == [[True, False], [True, False]]


def test_what_changes_nothing_returns_the_same_batch() -> None:
    batch = batch_of(3)
    assert mixed(batch, 0.0) is batch
    assert mixed(batch_of(1)).target is not None
    twice = batch_of(2, names=["a", "a"])
    # A clip that is drawn twice is no partner of itself.
    assert mixed(twice) is twice
    blank = replace(batch, target=None)
    assert mixed(blank) is blank
