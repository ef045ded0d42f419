import dataclasses

import pytest
import torch
from torch.utils.data import DataLoader

from avtune.transforms import Damaged, Prepared, Sample, collate


def sample(value, target=None, notes=()):
    prepared = Prepared(
        frames=torch.full((4, 3, 8, 8), value, dtype=torch.uint8),
        spectrogram=torch.full((4, 6, 5), float(value)),
        has_video=torch.tensor(True),
        has_audio=torch.tensor(value % 2 == 0),
        valid=torch.tensor([True, True, True, value > 1]),
        notes=notes,
    )
    return Sample(f"clip{value}", prepared, target)


BROKEN = Damaged("clip9", "clips/clip9.mp4", "is empty")


def test_samples_are_stacked_in_order_and_damaged_ones_listed():
    samples = [
        sample(1, torch.tensor([0, 1, 1, 0])),
        BROKEN,
        sample(2, torch.tensor([2, 2, 2, 2]), ("no sound",)),
    ]
    batch = collate(samples)
    assert len(batch) == 2
    assert batch.names == ["clip1", "clip2"]
    assert batch.damaged == [BROKEN]
    assert batch.notes == [(), ("no sound",)]
    assert batch.frames.shape == (2, 4, 3, 8, 8)
    assert batch.frames.dtype is torch.uint8
    assert batch.spectrogram[:, 0, 0, 0].tolist() == [1.0, 2.0]
    assert batch.has_audio.tolist() == [False, True]
    assert batch.has_video.tolist() == [True, True]
    assert batch.valid.tolist() == [[True, True, True, False], [True] * 4]
    assert batch.target.tolist() == [[0, 1, 1, 0], [2, 2, 2, 2]]


def test_a_batch_of_nothing_but_damage_is_empty_and_says_so():
    batch = collate([BROKEN, BROKEN])
    assert len(batch) == 0
    assert batch.damaged == [BROKEN, BROKEN]
    assert batch.target is None
    assert batch.frames.shape[0] == batch.spectrogram.shape[0] == batch.valid.shape[0] == 0


def test_targets_are_all_or_none():
    assert collate([sample(1), sample(2)]).target is None
    with pytest.raises(ValueError, match="clip2 has no target"):
        collate([sample(1, torch.tensor(0)), sample(2)])


def test_moving_a_batch_moves_every_tensor_and_keeps_the_rest():
    batch = collate([sample(1, torch.tensor(3)), BROKEN])
    moved = batch.to("meta")
    for field in dataclasses.fields(batch):
        value = getattr(moved, field.name)
        if isinstance(value, torch.Tensor):
            assert value.is_meta, field.name
            assert value.shape == getattr(batch, field.name).shape
        else:
            assert value == getattr(batch, field.name)
    back = batch.to("cpu")
    assert torch.equal(back.frames, batch.frames)
    assert collate([BROKEN]).to("meta").target is None


def test_batches_come_through_worker_processes():
    samples = [sample(value, torch.tensor(value)) for value in range(5)] + [BROKEN]
    loader = DataLoader(samples, batch_size=2, collate_fn=collate, num_workers=1)
    batches = list(loader)
    assert [batch.target.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert [len(batch.damaged) for batch in batches] == [0, 0, 1]
