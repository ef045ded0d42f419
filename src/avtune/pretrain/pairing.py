"""From two modalities' packed tokens to one sequence for each clip, and back."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from avtune.pretrain.masking import Kept
from avtune.pretrain.packing import Layout, Packed, rows_of, send


class Pairing:
    """How the packed tokens of two modalities come together clip by clip: a clip's sound, then its frames.

    Args:
        audio: What is kept of the sound.
        video: What is kept of the frames of the same clips.

    Attributes:
        lengths: Tokens of each joint sequence, the shortest first.
        index: Where each joint token stands among the sound's packed tokens and then the frames', (tokens,) int64.
        clip: Index in the batch of the clip that each joint token belongs to, (tokens,) int64.
        place: Its patch among those of the sound and then the frames, (tokens,) int64.
    """

    def __init__(self, audio: Kept, video: Kept) -> None:
        self.audio, self.video = audio, video
        (audio_start, audio_count), (video_start, video_count) = _stretches(audio), _stretches(video)
        totals, order = (audio_count + video_count).sort(stable=True)
        self.lengths: tuple[int, ...] = tuple(totals.tolist())
        starts = torch.stack([audio_start, video_start + len(audio)], dim=1)[order].flatten()
        counts = torch.stack([audio_count, video_count], dim=1)[order].flatten()
        self.index = rows_of(starts, counts)
        self.clip = torch.cat([audio.clip, video.clip])[self.index]
        self.place = torch.cat([audio.position, video.position + audio.length])[self.index]

    @cached_property
    def back(self) -> Tensor:
        """The inverse of ``index``."""
        return torch.empty_like(self.index).scatter_(0, self.index, torch.arange(len(self.index)))

    def join(self, audio: Packed, video: Packed, norm: Literal["audio", "plain"]) -> Packed:
        """One sequence for each clip, those of equal length side by side; all tokens take ``norm``."""
        tokens = torch.cat([audio.tokens, video.tokens])
        joint = tokens.index_select(0, send(self.index, tokens.device))
        return Packed(joint, Layout(self.lengths, ((norm, len(joint)),)))

    def part(self, joint: Packed) -> tuple[Packed, Packed]:
        """Undo :meth:`join`: the sound's tokens and the frames', in the order in which they are packed."""
        tokens = joint.tokens.index_select(0, send(self.back, joint.tokens.device))
        audio, video = torch.split(tokens, [len(self.audio), len(self.video)])
        return (
            Packed(audio, Layout(self.audio.counts, (("audio", len(audio)),))),
            Packed(video, Layout(self.video.counts, (("video", len(video)),))),
        )


def _stretches(kept: Kept) -> tuple[Tensor, Tensor]:
    """Where each clip of the batch begins among the packed tokens, and how many it has, (clips,) int64 each."""
    counts = torch.tensor(kept.counts)
    starts = counts.cumsum(0) - counts
    return starts[kept.place], counts[kept.place]
