"""Classifiers over the pretrained encoders, for clips that have sound, frames or both."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from avtune.errors import AvtuneError
from avtune.pretrain.cav_mae import CavMaeEncoder
from avtune.pretrain.masking import Kept
from avtune.pretrain.objective import clip_means
from avtune.pretrain.packing import Norm, Packed
from avtune.pretrain.pairing import Pairing
from avtune.pretrain.siamese import SiameseEncoder

MissingNorms = Literal["averaged", "own"]


class AvsiamClassifier(nn.Module):
    """AVSiam fine-tuned: a head for the sound, one for the frames, one for both behind the multimodal layers.

    Args:
        encoder: The pretrained encoder, all of whose weights become trainable.
        classes: Number of classes.
    """

    def __init__(self, encoder: SiameseEncoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(True)
        widths = {"audio": encoder.dim, "video": encoder.dim, "joint": 2 * encoder.dim}
        device = encoder.audio.weight.device
        self.heads = nn.ModuleDict({name: _head(width, classes, device) for name, width in widths.items()})

    def forward(self, spectrogram: Tensor | None = None, frames: Tensor | None = None) -> Tensor:
        """Logits (clips, classes) from what there is.

        Args:
            spectrogram: (clips, mels, steps), or ``None``.
            frames: (clips, 3, height, width), or ``None``.

        Raises:
            AvtuneError: Both are ``None``.
        """
        encoder = self.encoder
        if spectrogram is not None and frames is not None:
            clips = len(frames)
            audio = Kept.everything(clips, encoder.audio.length)
            video = Kept.everything(clips, encoder.video.length)
            pairing = Pairing(audio, video)
            joint = encoder.join(encoder(spectrogram, frames, audio, video), pairing)
            heard, seen = pairing.part(joint)
            pooled = torch.cat([clip_means(heard, audio), clip_means(seen, video)], dim=1)
            logits: Tensor = self.heads["joint"](pooled)
        elif spectrogram is not None:
            logits = self.heads["audio"](encoder.embed_audio(spectrogram))
        elif frames is not None:
            logits = self.heads["video"](encoder.embed_video(frames))
        else:
            raise AvtuneError("a classifier needs sound or frames; give at least one")
        return logits


class CavMaeClassifier(nn.Module):
    """CAV-MAE fine-tuned: one head over the mean of all joint tokens.

    Args:
        encoder: The pretrained encoder, all of whose weights become trainable.
        classes: Number of classes.
        missing: What stands for the joint tokens where one modality is absent: the other's features under its own
            norms, or their mean with those under the plain norms (``averaged``), as the authors evaluate.
    """

    def __init__(self, encoder: CavMaeEncoder, classes: int, missing: MissingNorms = "averaged") -> None:
        super().__init__()
        self.encoder, self.missing = encoder.requires_grad_(True), missing
        self.head = _head(encoder.dim, classes, encoder.audio.weight.device)

    def forward(self, spectrogram: Tensor | None = None, frames: Tensor | None = None) -> Tensor:
        """Logits (clips, classes) from what there is; as :meth:`AvsiamClassifier.forward`."""
        encoder = self.encoder
        if spectrogram is not None and frames is not None:
            audio = Kept.everything(len(frames), encoder.audio.length)
            video = Kept.everything(len(frames), encoder.video.length)
            joint = encoder.join(encoder(spectrogram, frames, audio, video), Pairing(audio, video))
            # All clips are of one length and in the order of the batch.
            pooled = joint.tokens.reshape(len(frames), -1, encoder.dim).mean(dim=1)
        elif spectrogram is not None:
            kept = Kept.everything(len(spectrogram), encoder.audio.length)
            own = encoder.trunks["audio"](encoder.audio(spectrogram.unsqueeze(1), kept))
            pooled = self._alone(own, kept, "audio")
        elif frames is not None:
            kept = Kept.everything(len(frames), encoder.video.length)
            pooled = self._alone(encoder.trunks["video"](encoder.video(frames, kept)), kept, "video")
        else:
            raise AvtuneError("a classifier needs sound or frames; give at least one")
        logits: Tensor = self.head(pooled)
        return logits

    def _alone(self, packed: Packed, kept: Kept, norm: Norm) -> Tensor:
        features = clip_means(self.encoder.alone(packed, norm), kept)
        if self.missing == "averaged":
            features = (features + clip_means(self.encoder.alone(packed, "plain"), kept)) / 2
        return features


def _head(width: int, classes: int, device: torch.device) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width, device=device), nn.Linear(width, classes, device=device))
