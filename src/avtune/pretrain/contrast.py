"""Sound and frames of a clip near each other, those of other clips apart: Equation 1 of AVSiam, over all processes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.errors import AvtuneError
from avtune.fusion.contrastive import gather_rows

Kind = Literal["softmax", "sigmoid"]
Directions = Literal["both", "audio_to_video", "video_to_audio"]
SIGMOID_SCALE, SIGMOID_BIAS = 10.0, -10.0
"""Where SigLIP begins: factor of the cosine and what is added to it."""


@dataclass(frozen=True)
class Contrasted:
    """A contrastive loss.

    Attributes:
        loss: A scalar whose mean over the processes is that of all their clips.
        accuracy: A scalar whose mean over the processes is the share of all queries whose partner is nearest, mean of
            the directions; no gradient.
    """

    loss: Tensor
    accuracy: Tensor


class Contrast(nn.Module):
    """The contrastive loss over the clips of all processes.

    Each process compares its own clips with everyone's, so that its memory grows with its own batch times the whole
    one, and no process holds the square of the whole. Gradients of the others' vectors go back to where they came
    from: with gradients averaged over processes, as data-parallel training does, they are those of one process that
    holds all clips.

    Args:
        kind: ``softmax``: cross-entropy of each clip's partner among everyone's. ``sigmoid``: each pair by itself is
            told to belong together or not (SigLIP), with a learned factor and bias.
        directions: Of the softmax: each sound among all frames (``audio_to_video``, Equation 1), each clip's
            frames among all sounds (``video_to_audio``, CAV-MAE), or the mean of the two.
        temperature: tau of the softmax.

    Raises:
        AvtuneError: ``temperature`` is not above 0.
    """

    def __init__(self, kind: Kind, directions: Directions, temperature: float) -> None:
        super().__init__()
        if not temperature > 0:
            raise AvtuneError(f"temperature is {temperature:g}; set it to a number above 0")
        self.kind, self.directions, self.temperature = kind, directions, temperature
        if kind == "sigmoid":
            # Of one dimension, since weights without any cannot be spread over processes.
            self.log_scale = nn.Parameter(torch.tensor([math.log(SIGMOID_SCALE)]))
            self.bias = nn.Parameter(torch.tensor([SIGMOID_BIAS]))

    def forward(self, audio: Tensor, video: Tensor) -> Contrasted:
        """Compare the clips' features.

        Args:
            audio: (clips, dim) of this process, of any length.
            video: (clips, dim), partner by partner.
        """
        # Half precision keeps three digits of a cosine, which the temperature then multiplies by twenty.
        with torch.autocast(audio.device.type, enabled=False):
            audio, video = F.normalize(audio.float(), dim=1), F.normalize(video.float(), dim=1)
            all_audio, all_video = gather_rows(torch.cat([audio, video], dim=1)).chunk(2, dim=1)
            partner = _first_own_row(audio) + torch.arange(len(audio), device=audio.device)
            # Processes may hold differing numbers of clips.
            share = (dist.get_world_size() if dist.is_initialized() else 1) / len(all_audio)
            to_video, to_audio = audio @ all_video.T, video @ all_audio.T
            if self.kind == "sigmoid":
                loss = self._pairs(to_video, partner)
            else:
                loss = self._cross_entropy(to_video, to_audio, partner)
            found = [(similarity.argmax(1) == partner).float().sum() for similarity in (to_video, to_audio)]
        return Contrasted(loss * share, torch.stack(found).mean() * share)

    def _cross_entropy(self, to_video: Tensor, to_audio: Tensor, partner: Tensor) -> Tensor:
        chosen = {"audio_to_video": [to_video], "video_to_audio": [to_audio], "both": [to_video, to_audio]}
        losses = [
            F.cross_entropy(similarity / self.temperature, partner, reduction="sum")
            for similarity in chosen[self.directions]
        ]
        return torch.stack(losses).mean()

    def _pairs(self, to_video: Tensor, partner: Tensor) -> Tensor:
        logits = to_video * self.log_scale.exp() + self.bias
        sign = 2 * F.one_hot(partner, logits.shape[1]).type_as(logits) - 1
        return -F.logsigmoid(sign * logits).sum()


def _first_own_row(rows: Tensor) -> Tensor:
    """Where this process's rows begin among all that ``gather_rows`` brings together, a scalar."""
    if not dist.is_initialized():
        return torch.zeros((), dtype=torch.int64, device=rows.device)
    rank = dist.get_rank()
    ranks = gather_rows(torch.full((len(rows),), float(rank), device=rows.device))
    return (ranks < rank).sum()
