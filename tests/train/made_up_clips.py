"""Clips in memory. Loader processes import this module, so it imports little."""

from __future__ import annotations

import torch

from avtune.transforms import Damaged, Prepared, Sample

LABELS = ("bell", "drum")
SEGMENTS = 2


class MadeUpClips:
    """Clips in memory whose frames and sound follow from their index."""

    def __init__(
        self, count: int, *, damaged: tuple[int, ...] = (), nan: tuple[int, ...] = (), seed: int = 0
    ):
        self.clips: list[Sample | Damaged] = [self._clip(k, seed) for k in range(count)]
        for k in damaged:
            self.clips[k] = Damaged(f"clip{k}", f"clip{k}.mp4", "no media file; replace it")
        for k in nan:
            self.clips[k].prepared.spectrogram[0, 3, 3] = float("nan")

    @staticmethod
    def _clip(index: int, seed: int) -> Sample:
        generator = torch.Generator().manual_seed(1000 * seed + index)
        target = torch.randint(0, len(LABELS) + 1, (SEGMENTS,), generator=generator)
        sound = torch.randn(SEGMENTS, 64, 64, generator=generator) + target[:, None, None]
        frames = torch.randint(0, 256, (SEGMENTS, 3, 64, 64), generator=generator, dtype=torch.uint8)
        # Every third clip ends early, so that batches hold differing numbers of segments that count.
        valid = torch.tensor([True, index % 3 != 0])
        yes = torch.tensor(True)
        return Sample(f"clip{index}", Prepared(frames, sound, yes, yes, valid), target)

    @property
    def names(self) -> list[str]:
        return [f"clip{k}" for k in range(len(self))]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample | Damaged:
        return self.clips[index]
