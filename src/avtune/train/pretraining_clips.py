"""What pretraining takes of a clip: its sound and one of its frames."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.utils.data import Dataset

from avtune.train.evaluate import Clips
from avtune.transforms import Damaged, Sample
from avtune.transforms.augment import draw


class OneFrame(Dataset[Sample | Damaged]):
    """Clips with one of their frames and the sound that it stands beside.

    Clips that lack a stream are damaged here: there is nothing to compare in them.

    Args:
        clips: Whole clips, whose segments all hear the same.
        seed: Seed of the choice among a clip's frames, which depends on it, the epoch and the clip's name alone;
            ``None``: the middle one.
        epoch: Index of the epoch, from 0.
    """

    def __init__(self, clips: Clips, seed: int | None = None, epoch: int = 0) -> None:
        self.clips, self.seed, self.epoch = clips, seed, epoch

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample | Damaged:
        """The clip at an index; T is 1."""
        sample = self.clips[index]
        if isinstance(sample, Damaged):
            return sample
        whole = sample.prepared
        for has, stream in ((whole.has_audio, "sound"), (whole.has_video, "frames")):
            if not has:
                return Damaged(sample.name, sample.source, f"has no {stream}, and pretraining needs both")
        present = whole.valid.nonzero().flatten()
        share = 0.5 if self.seed is None else draw(sample.name, self.seed, self.epoch, 1)
        place = present[int(share * len(present))]
        one = replace(
            whole,
            frames=whole.frames[place][None],
            spectrogram=whole.spectrogram[:1],
            valid=torch.ones(1).bool(),
        )
        return replace(sample, prepared=one)
