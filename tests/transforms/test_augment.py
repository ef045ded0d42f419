from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avtune.errors import AvtuneError
from avtune.transforms import Batch, crop_segments, flip_frames


def batch_of(clips: int) -> Batch:
    generator = torch.Generator().manual_seed(clips)
    return Batch(
        frames=torch.randint(0, 255, (clips, 2, 3, 4, 6), generator=generator, dtype=torch.uint8),
        spectrogram=torch.zeros(clips, 2, 4, 4),
        has_audio=torch.ones(clips, dtype=torch.bool),
        has_video=torch.ones(clips, dtype=torch.bool),
        valid=torch.ones(clips, 2, dtype=torch.bool),
        target=None,
        names=[f"clip {k}" for k in range(clips)],
    )


@given(share=st.floats(0, 1), seed=st.integers(0, 99), epoch=st.integers(0, 99), cut=st.integers(1, 11))
def test_whole_clips_are_mirrored_or_not_however_they_are_batched(
    share: float, seed: int, epoch: int, cut: int
) -> None:
    batch = batch_of(12)
    flipped = flip_frames(batch, share, seed=seed, epoch=epoch)
    for before, after in zip(batch.frames, flipped.frames, strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(-1))
    part = replace(
        batch, frames=batch.frames[cut:], names=batch.names[cut:], has_audio=batch.has_audio[cut:],
        has_video=batch.has_video[cut:], valid=batch.valid[cut:], spectrogram=batch.spectrogram[cut:],
    )  # fmt: skip
    assert torch.equal(flip_frames(part, share, seed=seed, epoch=epoch).frames, flipped.frames[cut:])


def test_the_share_is_met_and_changes_with_the_epoch() -> None:
    batch = batch_of(400)

    def mirrored(epoch: int) -> torch.Tensor:
        after = flip_frames(batch, 0.5, seed=0, epoch=epoch).frames
        return torch.tensor([not torch.equal(a, b) for a, b in zip(after, batch.frames, strict=True)])

    first, second = mirrored(0), mirrored(1)
    assert 160 < first.sum() < 240
    assert 140 < (first != second).sum() < 260
    assert flip_frames(batch, 0.0, seed=0, epoch=0) is batch


@given(segments=st.integers(1, 6), epoch=st.integers(0, 50), cut=st.integers(0, 5))
def test_crops_keep_segments_in_a_row_with_their_truth(segments: int, epoch: int, cut: int) -> None:
    clips, whole = 6, 6
    number = torch.arange(clips * whole).view(clips, whole)
    batch = replace(
        batch_of(clips),
        frames=number.to(torch.uint8).view(clips, whole, 1, 1, 1).expand(-1, -1, 3, 4, 4),
        spectrogram=number.float().view(clips, whole, 1, 1).expand(-1, -1, 4, 4),
        valid=number % 3 > 0,
        target=number,
    )
    kept = crop_segments(batch, segments, seed=3, epoch=epoch)
    assert kept.target is not None
    assert kept.target.shape == (clips, segments)
    assert torch.equal(kept.target, kept.target[:, :1] + torch.arange(segments))
    assert torch.equal(kept.target // whole, torch.arange(clips)[:, None].expand(-1, segments))
    assert torch.equal(kept.frames[:, :, 0, 0, 0].long(), kept.target)
    assert torch.equal(kept.spectrogram[:, :, 0, 0].long(), kept.target)
    assert torch.equal(kept.valid, kept.target % 3 > 0)
    one = replace(
        batch, names=batch.names[cut : cut + 1], frames=batch.frames[cut : cut + 1], valid=batch.valid[cut : cut + 1],
        spectrogram=batch.spectrogram[cut : cut + 1], target=number[cut : cut + 1],
    )  # fmt: skip
    alone = crop_segments(one, segments, seed=3, epoch=epoch).target
    assert alone is not None
    assert torch.equal(alone[0], kept.target[cut])


def test_crops_move_and_refuse_what_a_clip_has_not() -> None:
    batch = batch_of(2)
    starts = {int(crop_segments(replace(batch, target=torch.arange(4).view(2, 2)), 1, seed=0, epoch=e).target[0, 0])
              for e in range(20)}  # fmt: skip
    assert starts == {0, 1}
    with pytest.raises(
        AvtuneError, match=r"crop_segments is 3, and a clip has 2 segments; set it from 1 to 2"
    ):
        crop_segments(batch, 3, seed=0, epoch=0)
