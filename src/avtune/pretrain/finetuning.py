"""A whole pretrained encoder and its classifiers as the network of a run (AVSiam, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtune.pretrain.classifiers import ClipClassifier
from avtune.tasks.network import TaskNetwork
from avtune.transforms import Batch, normalise_frames


class FinetunedNetwork(TaskNetwork):
    """From a batch of prepared clips to what each of them is, all weights trained.

    A clip is one stretch of sound and some frames. Each frame is classified together with the whole sound, as if it
    alone were seen, and the clip's probabilities are the mean over its frames that exist. A clip that lacks a stream is
    classified from the other one alone, and what it lacks is not computed.

    Args:
        classifier: Encoder and heads.
        multi_label: Whether probabilities are sigmoids of single classes, not a softmax over all.
        mean: Mean per channel that the encoder wants, RGB in [0, 1].
        std: Standard deviation per channel.
    """

    skips_weights = True

    def __init__(
        self,
        classifier: ClipClassifier,
        multi_label: bool,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.classifier, self.multi_label = classifier, multi_label
        self.mean, self.std = mean, std

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The pretrained encoder."""
        return self.classifier.encoder

    @property
    def head(self) -> nn.Module:  # type: ignore[override]
        """What is new: the classifiers."""
        return self.classifier.head

    def forward(self, batch: Batch) -> tuple[Tensor, None]:
        """Classify.

        Args:
            batch: Prepared clips whose segments all hear the same sound, on this module's device.

        Returns:
            Logits (batch, classes) of the clips' mean probabilities.
        """
        clips: dict[tuple[bool, bool], list[int]] = {}
        for place, has in enumerate(_streams(batch)):
            # What has neither is answered as silence in the dark.
            clips.setdefault(has if any(has) else (True, True), []).append(place)
        if len(clips) == 1:
            ((heard, seen),) = clips
            return self._classify(batch, slice(None), heard, seen), None
        parts, order = [], []
        for (heard, seen), places in clips.items():
            parts.append(self._classify(batch, places, heard, seen))
            order += places
        back = torch.tensor(order, device=batch.valid.device).argsort()
        return torch.cat(parts)[back], None

    def _classify(self, batch: Batch, clips: slice | list[int], heard: bool, seen: bool) -> Tensor:
        """Logits of clips that have the same streams."""
        sound = frames = None
        valid = batch.valid[clips]
        if heard:
            # Where there is neither stream, both are zeros.
            sound = batch.spectrogram[clips, 0] * batch.has_audio[clips].view(-1, 1, 1)
        if seen:
            frames = normalise_frames(
                batch.frames[clips], self.mean, self.std, batch.has_video[clips]
            ).flatten(0, 1)
        logits: Tensor = self.classifier(sound, frames)
        if not seen:
            return logits
        return mean_probability_logits(logits.view(*valid.shape, -1), valid, self.multi_label)


def _streams(batch: Batch) -> list[tuple[bool, bool]]:
    """Whether each clip has sound, and frames; where only shapes are counted, both."""
    if batch.has_audio.is_meta:
        return [(True, True)] * len(batch)
    return list(zip(batch.has_audio.tolist(), batch.has_video.tolist(), strict=True))


def mean_probability_logits(logits: Tensor, valid: Tensor, multi_label: bool) -> Tensor:
    """Logits of the mean of several answers' probabilities.

    Args:
        logits: (clips, frames, classes).
        valid: Which frames count, (clips, frames) bool; where none does, all do.
        multi_label: Mean of sigmoids; otherwise of softmaxes, and the result is the logarithm of the mean.

    Returns:
        (clips, classes), whose sigmoid or softmax is the mean; single precision.
    """
    logits = logits.float()
    weights = (valid | ~valid.any(dim=1, keepdim=True)).float()
    shares = (weights / weights.sum(dim=1, keepdim=True)).log().unsqueeze(-1)
    if not multi_label:
        return torch.logsumexp(F.log_softmax(logits, dim=-1) + shares, dim=1)
    yes, no = (torch.logsumexp(F.logsigmoid(sign * logits) + shares, dim=1) for sign in (1, -1))
    return yes - no
