"""Masks, noise and shifts of spectrograms, and batches that lose a stream."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avtune.transforms import AUDIO_PRESETS, Batch, add_noise, drop_stream, mask_sound, roll_sound

BY_MEL, BY_TIME = AUDIO_PRESETS["avsiam"], AUDIO_PRESETS["nano"]
MELS, STEPS = 12, 20


def batch_of(clips: int, sounds: int = 1, by_mel: bool = True, first: int = 0) -> Batch:
    numbers = range(first, first + clips)
    shape = (sounds, MELS, STEPS) if by_mel else (sounds, STEPS, MELS)
    pictures = [torch.randn(shape, generator=torch.Generator().manual_seed(k)) for k in numbers]
    yes = torch.ones(clips, dtype=torch.bool)
    return Batch(
        frames=torch.zeros(clips, 2, 3, 2, 2, dtype=torch.uint8), spectrogram=torch.stack(pictures), has_audio=yes,
        has_video=yes, valid=torch.ones(clips, 2, dtype=torch.bool), target=None, names=[f"clip {k}" for k in numbers],
    )  # fmt: skip


def mask(batch: Batch, mels: int, steps: int, epoch: int = 0, by_mel: bool = True) -> Tensor:
    """Which values a mask changed, (clips, sounds, mels, steps)."""
    audio = BY_MEL if by_mel else BY_TIME
    after = mask_sound(batch, mels, steps, audio=audio, seed=3, epoch=epoch).spectrogram
    changed = after != batch.spectrogram
    assert after[changed].unique().tolist() in ([], [pytest.approx(audio.blank)])
    return changed if by_mel else changed.transpose(2, 3)


@given(mels=st.integers(0, 15), steps=st.integers(0, 25), epoch=st.integers(0, 99), by_mel=st.booleans())
def test_masks_are_one_stretch_of_bands_and_one_of_steps(
    mels: int, steps: int, epoch: int, by_mel: bool
) -> None:
    for changed in mask(batch_of(4, 2, by_mel), mels, steps, epoch, by_mel):
        assert torch.equal(changed[0], changed[1])
        rows, columns = changed[0].all(dim=1), changed[0].all(dim=0)
        assert torch.equal(changed[0], rows[:, None] | columns[None])
        for line, most in ((rows, mels), (columns, steps)):
            places = line.nonzero().flatten()
            # Where one kind covers everything, the other cannot be told from it.
            if rows.all() or columns.all():
                continue
            assert len(places) < max(most, 1)
            assert len(places) == 0 or int(places[-1] - places[0]) + 1 == len(places)


def test_widths_are_uniform_and_masks_meet_every_place() -> None:
    changed = torch.cat([mask(batch_of(40), 6, 0, epoch)[:, 0, :, 0] for epoch in range(40)])
    widths = np.bincount(changed.sum(dim=1).numpy(), minlength=6)
    # 1600 draws of six widths: 267 each, within five standard deviations of 15.
    assert len(widths) == 6
    assert (abs(widths - 1600 / 6) < 75).all()
    assert (changed.float().mean(0) > 0.05).all()


def test_blank_is_what_pads_a_short_sound() -> None:
    # The authors blank before they normalise: (0 + 5.081) / 4.4849.
    assert BY_MEL.blank == pytest.approx(1.1329, abs=1e-4)
    assert BY_TIME.blank == 0


@given(most=st.floats(0.01, 1), epoch=st.integers(0, 99))
def test_noise_is_uniform_below_a_share_of_its_own_for_each_clip(most: float, epoch: int) -> None:
    batch = batch_of(6, sounds=2)
    added = add_noise(batch, most, seed=0, epoch=epoch).spectrogram - batch.spectrogram
    assert float(added.min()) > -1e-6
    assert float(added.max()) < most + 1e-6
    # The same noise for all segments of a clip, up to the rounding of the sum.
    torch.testing.assert_close(added[:, 0], added[:, 1], rtol=0, atol=1e-6)
    largest, mean = added.amax((1, 2, 3)), added.mean((1, 2, 3))
    assert largest.unique().numel() == 6
    # 240 uniform numbers: their mean lies within five deviations of 0.29 / sqrt(240) of the half.
    torch.testing.assert_close(mean / largest.clamp(min=1e-4), torch.full((6,), 0.5), rtol=0, atol=0.12)


@given(steps=st.integers(1, 40), epoch=st.integers(0, 99), by_mel=st.booleans())
def test_rolling_turns_time_and_loses_nothing(steps: int, epoch: int, by_mel: bool) -> None:
    batch = batch_of(5, 2, by_mel)
    audio = BY_MEL if by_mel else BY_TIME
    rolled = roll_sound(batch, steps, audio=audio, seed=0, epoch=epoch).spectrogram
    axis = 2 if by_mel else 1
    for before, after in zip(batch.spectrogram, rolled, strict=True):
        shifts = [k for k in range(STEPS) if torch.equal(before.roll(k, axis), after)]
        assert len(shifts) == 1
        assert any((shift - shifts[0]) % STEPS == 0 for shift in range(-steps, steps))


def test_nothing_is_changed_where_nothing_is_asked_for() -> None:
    batch, empty = batch_of(2), replace(batch_of(1), names=[])
    for given_batch, amount in ((batch, 0), (empty, 3)):
        assert mask_sound(given_batch, amount, amount, audio=BY_MEL, seed=0, epoch=0) is given_batch
        assert add_noise(given_batch, amount, seed=0, epoch=0) is given_batch
        assert roll_sound(given_batch, amount, audio=BY_MEL, seed=0, epoch=0) is given_batch
        assert drop_stream(given_batch, min(amount, 1), seed=0, epoch=0) is given_batch


@given(cut=st.integers(1, 7), epoch=st.integers(0, 99))
def test_a_clip_is_changed_alike_whatever_batch_it_is_in(cut: int, epoch: int) -> None:
    def changed(batch: Batch) -> Tensor:
        batch = mask_sound(batch, 6, 8, audio=BY_MEL, seed=1, epoch=epoch)
        batch = add_noise(batch, 0.1, seed=1, epoch=epoch)
        return roll_sound(batch, 20, audio=BY_MEL, seed=1, epoch=epoch).spectrogram

    whole = changed(batch_of(8))
    assert torch.equal(changed(batch_of(8 - cut, first=cut)), whole[cut:])
    assert not torch.equal(whole, batch_of(8).spectrogram)


def test_half_of_the_batches_keep_both_streams_and_a_quarter_each_keeps_one() -> None:
    kinds = np.zeros(3, dtype=int)
    for epoch in range(1200):
        batch = drop_stream(batch_of(3), 0.5, seed=0, epoch=epoch)
        heard, seen = batch.has_audio.unique().tolist(), batch.has_video.unique().tolist()
        kinds[[([True], [True]), ([True], [False]), ([False], [True])].index((heard, seen))] += 1
    # Within four standard deviations.
    assert (abs(kinds - [600, 300, 300]) < [70, 60, 60]).all()


@given(epoch=st.integers(0, 99), turn=st.permutations(range(4)))
def test_the_order_of_a_batch_does_not_matter_and_its_clips_do(epoch: int, turn: list[int]) -> None:
    batch = batch_of(4)
    turned = replace(batch, names=[batch.names[k] for k in turn])
    one, other = (drop_stream(b, 0.5, seed=0, epoch=epoch) for b in (batch, turned))
    assert torch.equal(one.has_audio, other.has_audio)
    assert torch.equal(one.has_video, other.has_video)


def test_batches_of_two_processes_draw_each_for_themselves() -> None:
    def lost(batch: Batch) -> list[tuple[bool, bool]]:
        drawn = [drop_stream(batch, 1.0, seed=0, epoch=epoch) for epoch in range(64)]
        return [(bool(b.has_audio.all()), bool(b.has_video.all())) for b in drawn]

    first, second = lost(batch_of(2)), lost(batch_of(2, first=2))
    assert 12 < sum(a == b for a, b in zip(first, second, strict=True)) < 52


def test_a_clip_keeps_its_only_stream() -> None:
    batch = replace(batch_of(2), has_audio=torch.tensor([True, False]), has_video=torch.tensor([False, True]))
    for epoch in range(20):
        left = drop_stream(batch, 1.0, seed=0, epoch=epoch)
        assert torch.equal(left.has_audio, batch.has_audio)
        assert torch.equal(left.has_video, batch.has_video)
