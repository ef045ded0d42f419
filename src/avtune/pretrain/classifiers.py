"""Classifiers over the pretrained encoders, for clips that have sound, frames or both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from avtune.errors import AvtuneError
from avtune.pretrain.cav_mae import CavMaeEncoder
from avtune.pretrain.masking import Kept
from avtune.pretrain.objective import Encoder, clip_means
from avtune.pretrain.packing import Norm, Packed, repeated
from avtune.pretrain.pairing import Pairing
from avtune.pretrain.siamese import SiameseEncoder, Streams

MissingNorms = Literal["averaged", "own"]


class ClipClassifier(nn.Module, ABC):
    """A pretrained encoder, all of whose weights become trainable, and a head.

    Attributes:
        encoder: The encoder.
        head: What is new.
    """

    encoder: nn.Module
    head: nn.Module

    def forward(self, spectrogram: Tensor | None = None, frames: Tensor | None = None) -> Tensor:
        """Logits (clips, classes) from what there is.

        Args:
            spectrogram: (clips, mels, steps), or ``None``.
            frames: (clips, 3, height, width), or ``None``. Beside a spectrogram there may be as many frames for each
                clip, those of a clip next to each other: each gives logits (frames, classes) together with its clip's
                sound, which is encoded once.

        Raises:
            AvtuneError: Both are ``None``.
        """
        if spectrogram is not None and frames is not None:
            return self._both(spectrogram, frames)
        if spectrogram is not None:
            return self._sound(spectrogram)
        if frames is not None:
            return self._frames(frames)
        raise AvtuneError("a classifier needs sound or frames; give at least one")

    @abstractmethod
    def _both(self, spectrogram: Tensor, frames: Tensor) -> Tensor: ...

    @abstractmethod
    def _sound(self, spectrogram: Tensor) -> Tensor: ...

    @abstractmethod
    def _frames(self, frames: Tensor) -> Tensor: ...


class AvsiamClassifier(ClipClassifier):
    """AVSiam fine-tuned: a head for the sound, one for the frames, one for both behind the multimodal layers.

    Args:
        encoder: The pretrained encoder; a second transformer that only its reconstruction pass used is let go.
        classes: Number of classes.
    """

    def __init__(self, encoder: SiameseEncoder, classes: int) -> None:
        super().__init__()
        if "second_sound" in encoder.trunks:
            del encoder.trunks["second_sound"]
        self.encoder: SiameseEncoder = encoder.requires_grad_(True)
        widths = {"audio": encoder.dim, "video": encoder.dim, "joint": 2 * encoder.dim}
        device = encoder.audio.weight.device
        self.head: nn.ModuleDict = nn.ModuleDict(
            {name: _head(width, classes, device) for name, width in widths.items()}
        )

    def _both(self, spectrogram: Tensor, frames: Tensor) -> Tensor:
        encoder = self.encoder
        streams, audio, video = _paired(encoder, spectrogram, frames)
        pairing = Pairing(audio, video)
        heard, seen = pairing.part(encoder.join(streams, pairing))
        pooled = torch.cat([clip_means(heard, audio), clip_means(seen, video)], dim=1)
        logits: Tensor = self.head["joint"](pooled)
        return logits

    def _sound(self, spectrogram: Tensor) -> Tensor:
        logits: Tensor = self.head["audio"](self.encoder.embed_audio(spectrogram))
        return logits

    def _frames(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.head["video"](self.encoder.embed_video(frames))
        return logits


class CavMaeClassifier(ClipClassifier):
    """CAV-MAE fine-tuned: one head over the mean of all joint tokens.

    Args:
        encoder: The pretrained encoder.
        classes: Number of classes.
        missing: What stands for the joint tokens where one modality is absent: the other's features under its own
            norms, or their mean with those under the plain norms (``averaged``), as the authors evaluate.
    """

    def __init__(self, encoder: CavMaeEncoder, classes: int, missing: MissingNorms = "averaged") -> None:
        super().__init__()
        self.encoder: CavMaeEncoder = encoder.requires_grad_(True)
        self.missing = missing
        self.head: nn.Sequential = _head(encoder.dim, classes, encoder.audio.weight.device)

    def _both(self, spectrogram: Tensor, frames: Tensor) -> Tensor:
        streams, audio, video = _paired(self.encoder, spectrogram, frames)
        joint = self.encoder.join(streams, Pairing(audio, video))
        # All clips are of one length and in the order of the batch.
        pooled = joint.tokens.reshape(len(frames), -1, self.encoder.dim).mean(dim=1)
        logits: Tensor = self.head(pooled)
        return logits

    def _sound(self, spectrogram: Tensor) -> Tensor:
        encoder, kept = self.encoder, Kept.everything(len(spectrogram), self.encoder.audio.length)
        own = encoder.trunks["audio"](encoder.audio(spectrogram.unsqueeze(1), kept))
        return self._alone(own, kept, "audio")

    def _frames(self, frames: Tensor) -> Tensor:
        encoder, kept = self.encoder, Kept.everything(len(frames), self.encoder.video.length)
        return self._alone(encoder.trunks["video"](encoder.video(frames, kept)), kept, "video")

    def _alone(self, packed: Packed, kept: Kept, norm: Norm) -> Tensor:
        features = clip_means(self.encoder.alone(packed, norm), kept)
        if self.missing == "averaged":
            features = (features + clip_means(self.encoder.alone(packed, "plain"), kept)) / 2
        logits: Tensor = self.head(features)
        return logits


def create_classifier(encoder: Encoder, classes: int) -> ClipClassifier:
    """The classifier that belongs to a pretrained encoder.

    Args:
        encoder: Of one of ``avtune.pretrain.OBJECTIVES``.
        classes: Number of classes.
    """
    if isinstance(encoder, CavMaeEncoder):
        return CavMaeClassifier(encoder, classes)
    assert isinstance(encoder, SiameseEncoder)
    return AvsiamClassifier(encoder, classes)


def _paired(
    encoder: SiameseEncoder | CavMaeEncoder, spectrogram: Tensor, frames: Tensor
) -> tuple[Streams, Kept, Kept]:
    """Both streams, the sound once for each frame beside it, and what each frame's pair holds."""
    heard = Kept.everything(len(spectrogram), encoder.audio.length)
    seen = Kept.everything(len(frames), encoder.video.length)
    streams = encoder(spectrogram, frames, heard, seen)
    if len(frames) == len(spectrogram):
        return streams, heard, seen
    sound = repeated(streams.audio, len(frames) // len(spectrogram))
    return Streams(sound, streams.video), Kept.everything(len(frames), encoder.audio.length), seen


def _head(width: int, classes: int, device: torch.device) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width, device=device), nn.Linear(width, classes, device=device))
