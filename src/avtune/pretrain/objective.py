"""What every pretraining objective is asked for, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.func import functional_call

from avtune.pretrain.contrast import Contrast, Contrasted
from avtune.pretrain.decoder import Reconstruction
from avtune.pretrain.masking import Kept
from avtune.pretrain.packing import Packed, sequence_means
from avtune.pretrain.patches import Stem


@dataclass(frozen=True)
class PretrainingLoss:
    """The losses of a micro-batch, scalars; all of them in one backward.

    Added up over the micro-batches of an update and averaged over processes, as gradients are, each is that of all the
    update's clips.

    Attributes:
        total: Their weighted sum.
        contrastive: Unweighted; ``None`` where the objective has none.
        accuracy: Share of clips whose partner is the nearest of all, for the log.
        audio_reconstruction: Unweighted.
        video_reconstruction: Unweighted.
    """

    total: Tensor
    contrastive: Tensor | None = None
    accuracy: Tensor | None = None
    audio_reconstruction: Tensor | None = None
    video_reconstruction: Tensor | None = None


@dataclass(frozen=True)
class Masks:
    """What the passes of one step see.

    Attributes:
        audio: Of the sound.
        video: Of the frames.
        reconstruction: Of sound and frames in a pass of its own for the reconstruction, where there is one.
    """

    audio: Kept
    video: Kept
    reconstruction: tuple[Kept, Kept] | None = None

    @property
    def hidden(self) -> tuple[int, int]:
        """Patches of the sound and of the frames that the reconstruction has to predict."""
        audio, video = self.reconstruction or (self.audio, self.video)
        hidden_audio, hidden_video = (len(kept.order) * kept.length - len(kept) for kept in (audio, video))
        return hidden_audio, hidden_video


@dataclass(frozen=True)
class Pull:
    """An update's contrastive loss and its gradient, where the clips come in several micro-batches.

    Attributes:
        found: The loss, without a gradient.
        audio: Its gradient by the features of this process's sounds, (clips, dim), single precision.
        video: By those of their frames.
        weights: By the loss's own weights, by name.
    """

    found: Contrasted
    audio: Tensor
    video: Tensor
    weights: Mapping[str, Tensor]

    def parts(self, clips: Sequence[int]) -> list[Pull]:
        """What each of several micro-batches of so many clips gets; the last has all that exists once an update.

        Data-parallel training exchanges gradients behind the last one, and expects one of every weight then.
        """
        nothing = Contrasted(torch.zeros_like(self.found.loss), torch.zeros_like(self.found.accuracy))
        audio, video = (torch.split(rows, list(clips)) for rows in (self.audio, self.video))
        earlier = [Pull(nothing, *rows, {}) for rows in zip(audio[:-1], video[:-1], strict=True)]
        return [*earlier, Pull(self.found, audio[-1], video[-1], self.weights)]


@dataclass(frozen=True)
class Share:
    """What a micro-batch is of an update.

    Attributes:
        audio: Its part of the hidden patches of the sound, times the number of processes, over which gradients are
            averaged. The default is that of an update that is this micro-batch alone.
        video: Likewise of the frames.
        pull: The contrastive loss's gradient; ``None``: these clips and those of the other processes are the update.
    """

    audio: float = 1.0
    video: float = 1.0
    pull: Pull | None = None


WHOLE = Share()


class Encoder(Protocol):
    """What every objective's encoder offers to those who go on with it."""

    dim: int
    audio: Stem
    video: Stem

    def embed_audio(self, spectrogram: Tensor) -> Tensor:
        """Features (clips, dim) of whole sounds (clips, mels, steps), not normalised."""
        ...

    def embed_video(self, frames: Tensor) -> Tensor:
        """Features (clips, dim) of frames (clips, 3, height, width), not normalised."""
        ...


class PretrainingModel(nn.Module, ABC):
    """What a training loop needs of an objective.

    Attributes:
        encoder: What pretraining is for.
        contrast: The contrastive loss; ``None`` where the objective has none.
    """

    encoder: Encoder
    contrast: Contrast | None

    @abstractmethod
    def draw(self, clips: int, generator: torch.Generator, own: Sequence[int] | None = None) -> Masks:
        """What an update sees.

        Args:
            clips: Clips of the update, on all processes.
            generator: Where chance comes from, on the CPU.
            own: Which of them are wanted, in this order; ``None``: all.
        """

    @abstractmethod
    def features(self, spectrogram: Tensor, frames: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """What the contrastive loss compares: a vector for each clip's sound and one for its frames, (clips, dim)."""

    @abstractmethod
    def forward(
        self, spectrogram: Tensor, frames: Tensor, masks: Masks, share: Share = WHOLE
    ) -> PretrainingLoss:
        """The losses of a micro-batch.

        Args:
            spectrogram: (clips, mels, steps).
            frames: (clips, 3, height, width) of the same clips.
            masks: What :meth:`draw` gave for them.
            share: What they are of the update.
        """

    def compare(self, audio: Tensor, video: Tensor, share: Share) -> Contrasted | None:
        """The contrastive loss of :meth:`features`; where ``share`` has its gradient, a loss that has that gradient."""
        if self.contrast is None:
            return None
        if share.pull is None:
            found: Contrasted = self.contrast(audio, video)
            return found
        pull = share.pull
        pulled = (audio.float() * pull.audio).sum() + (video.float() * pull.video).sum()
        for name, weight in self.contrast.named_parameters():
            if name in pull.weights:
                pulled = pulled + (weight * pull.weights[name]).sum()
        return Contrasted(pulled - pulled.detach() + pull.found.loss, pull.found.accuracy)

    def pull(self, audio: Tensor, video: Tensor) -> Pull:
        """The contrastive loss of all of an update's features, and its gradient.

        Args:
            audio: Features of all sounds of this process, without a gradient, (clips, dim).
            video: Of their frames.

        Raises:
            TypeError: The objective has no contrastive loss.
        """
        if self.contrast is None:
            raise TypeError("an objective without a contrastive loss has no gradient of it")
        leaves = [audio.float().requires_grad_(), video.float().requires_grad_()]
        weights = {
            name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().requires_grad_()
            for name, weight in self.contrast.named_parameters()
        }
        with torch.enable_grad():
            found: Contrasted = functional_call(self.contrast, weights, tuple(leaves))
            pulls = torch.autograd.grad(found.loss, [*leaves, *weights.values()])
        known = Contrasted(found.loss.detach(), found.accuracy)
        return Pull(known, pulls[0], pulls[1], dict(zip(weights, pulls[2:], strict=True)))


def combine(
    contrasted: Contrasted | None,
    reconstruction: Reconstruction | None,
    contrastive_weight: float,
    reconstruction_weight: float,
    share: Share,
) -> PretrainingLoss:
    """The weighted sum of what there is; the reconstruction is that of the sound plus that of the frames."""
    parts = []
    loss = accuracy = audio = video = None
    if contrasted is not None:
        loss, accuracy = contrasted.loss, contrasted.accuracy
        parts.append(contrastive_weight * loss)
    if reconstruction is not None:
        audio, video = share.audio * reconstruction.audio, share.video * reconstruction.video
        parts.append(reconstruction_weight * (audio + video))
    detached = (None if part is None else part.detach() for part in (loss, accuracy, audio, video))
    return PretrainingLoss(torch.stack(parts).sum(), *detached)


def clip_means(packed: Packed, kept: Kept) -> Tensor:
    """The mean of each clip's tokens, (clips, dim) in the order of the batch."""
    means = sequence_means(packed)
    return means[kept.place.to(means.device, non_blocking=True)]
