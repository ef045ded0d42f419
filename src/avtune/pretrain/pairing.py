"""From two modalities' packed tokens to one sequence for each clip, and back."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from avtune.pretrain.masking import Kept
from avtune.pretrain.packing import Layout, Packed


class Pairing:
    """How the packed tokens of two modalities come together clip by clip: a clip's sound, then its frames.

    Args:
        audio: What is kept of the sound.
        video: What is kept of the frames of the same clips.
    """

    def __init__(self, audio: Kept, video: Kept) -> None:
        self.audio, self.video = audio, video
        clips = len(audio.order)
        clip = torch.cat([audio.clip, video.clip])
        place = torch.cat([audio.position, video.position + audio.length])
        totals, order = torch.bincount(clip, minlength=clips).sort(stable=True)
        self.index = order.argsort()[clip].argsort(stable=True)
        self.lengths: tuple[int, ...] = tuple(totals.tolist())
        self.clip, self.place = clip[self.index], place[self.index]

    @cached_property
    def back(self) -> Tensor:
        """The inverse of ``index``."""
        return self.index.argsort()

    def join(self, audio: Packed, video: Packed, norm: Literal["audio", "plain"]) -> Packed:
        """One sequence for each clip, those of equal length side by side; all tokens take ``norm``."""
        tokens = torch.cat([audio.tokens, video.tokens])
        index = self.index.to(tokens.device, non_blocking=True)
        return Packed(tokens[index], Layout(self.lengths, ((norm, len(index)),)))

    def part(self, joint: Packed) -> tuple[Packed, Packed]:
        """Undo :meth:`join`: the sound's tokens and the frames', in the order in which they are packed."""
        tokens = joint.tokens[self.back.to(joint.tokens.device, non_blocking=True)]
        audio, video = torch.split(tokens, [len(self.audio), len(self.video)])
        return (
            Packed(audio, Layout(self.audio.counts, (("audio", len(audio)),))),
            Packed(video, Layout(self.video.counts, (("video", len(video)),))),
        )
