"""Encoder and head as one module over a batch: what is trained, saved and run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from avtune.backbones import FrozenBlock, Tower
from avtune.encoder import DualEncoder, Encoded
from avtune.errors import AvtuneError
from avtune.fusion import Fusion, Notes
from avtune.heads.question_encoder import FrozenText
from avtune.tasks.base import Task
from avtune.tasks.repeats import Repeats
from avtune.tasks.strangers import stranger_tokens
from avtune.transforms import Batch, normalise_frames

Part = Literal["method", "head", "joint", "towers"]


def part_of(weight: str) -> Part:
    """Which part of a network a weight is in.

    Args:
        weight: Its name within the network.

    Returns:
        ``method``: fusion and tuning; ``head``; ``joint``: a whole encoder's layers over both modalities; ``towers``:
        all else.
    """
    name = weight.removeprefix("classifier.")
    if name.startswith("head."):
        return "head"
    if name.startswith(("encoder.fusion.", "encoder.tuning.")):
        return "method"
    return "joint" if name.startswith("encoder.joint.") else "towers"


class TaskNetwork(nn.Module, ABC):
    """From a batch of prepared clips to a task's outputs; what training, counting and saving ask of it.

    Attributes:
        encoder: From sound and frames to tokens.
        head: From tokens to outputs.
        skips_weights: Whether a batch may leave weights out, such as those of a stream that it lacks.
    """

    encoder: nn.Module
    head: nn.Module
    skips_weights = False

    @abstractmethod
    def forward(self, batch: Batch) -> tuple[Tensor, Encoded | None]:
        """Encode and answer.

        Args:
            batch: Prepared clips, on this module's device.

        Returns:
            The task's outputs, and the encoded streams for losses that read them, where there are any.
        """

    @property
    def towers(self) -> Mapping[str, Tower]:
        """The frozen towers by stream, ``video`` and ``audio``, the same one twice where both share it; here none."""
        return {}

    def losses(self, encoded: Encoded | None, foreground: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Losses that the network brings besides the task's, means over the batch, by name; here none.

        Args:
            encoded: What :meth:`forward` gave.
            foreground: Segments that show what is to be learned, (batch * T,) bool.
            valid: Segments that exist, (batch * T,) bool.
        """
        return {}

    def trained_state(self) -> dict[str, Tensor]:
        """What a run has to save: every weight that is trained and every running statistic beside one.

        What is frozen of the towers, and a frozen language model, is left out: their name, or their seed, says what it
        is. A weight that several modules share is there once.
        """
        frozen = tuple(
            f"{name}."
            for name, part in self.named_modules(remove_duplicate=False)
            if isinstance(part, Tower | FrozenBlock | FrozenText)
        )
        trained = {name for name, weight in self.named_parameters() if weight.requires_grad}
        once = {name for name, _ in (*self.named_parameters(), *self.named_buffers())}
        return {
            name: value
            for name, value in self.state_dict().items()
            if name in trained or (name in once and not name.startswith(frozen))
        }

    @torch.no_grad()
    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Put back what :meth:`trained_state` gave.

        Raises:
            ValueError: If names or shapes differ.
        """
        own = self.trained_state()
        if missing := sorted(own.keys() - state.keys()) + sorted(state.keys() - own.keys()):
            raise ValueError(f"weights differ in {len(missing)} names, first {missing[0]}")
        for name, value in own.items():
            if value.shape != state[name].shape:
                raise ValueError(
                    f"weight {name} is {tuple(state[name].shape)}, expected {tuple(value.shape)}"
                )
            value.copy_(state[name])


class Network(TaskNetwork):
    """Frozen towers with a method between them, and a head.

    Args:
        encoder: The towers and the method between them.
        task: Gives the head.
        mean: Mean per channel that the video tower wants, RGB in [0, 1].
        std: Standard deviation per channel.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        task: Task,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.encoder: DualEncoder = encoder
        encoder.keep_stages = task.needs_stages
        self.head = task.build_head(encoder.audio_tower, encoder.video_tower)
        self.strangers = task.strangers
        self.streams_apart = task.streams_apart
        if self.streams_apart and type(encoder.fusion).losses is not Fusion.losses:
            raise AvtuneError(
                f"the task {task.head.task} encodes each stream without the other, and this method has a loss that "
                "compares both; choose another encoder.fusion, such as lavish or frozen"
            )
        self.mean, self.std = mean, std

    def forward(self, batch: Batch) -> tuple[Tensor, Encoded]:
        """As the base class states; a stream that a clip lacks is all zeros, an average picture or spectrogram."""
        frames = normalise_frames(batch.frames, self.mean, self.std)
        frames = frames * batch.has_video.view(-1, 1, 1, 1, 1)
        spectrogram = batch.spectrogram * batch.has_audio.view(-1, 1, 1, 1)
        # A method's own losses are means over all clips of the batch.
        shared = batch.question is not None and type(self.encoder.fusion).losses is Fusion.losses
        repeats = Repeats.find(spectrogram, frames) if shared else Repeats()
        encoded: Encoded = replace(
            repeats.streams(self._encode(spectrogram[repeats.places], frames[repeats.places])),
            valid=batch.valid,
            has_audio=batch.has_audio,
            has_video=batch.has_video,
            question=batch.question,
        )
        if (kind := self.strangers(self.training)) is not None:
            seen = encoded.video
            if kind == "plain":
                with torch.no_grad():
                    plain = self.encoder.video_tower(frames[repeats.places].flatten(0, 1))
                seen = repeats.tokens(plain, frames.shape[1])
            encoded.stranger = stranger_tokens(seen, batch)
        return self.head(encoded), encoded

    def _encode(self, spectrogram: Tensor, frames: Tensor) -> Encoded:
        if not (self.streams_apart and self.encoder.fusion.exchanges):
            encoded: Encoded = self.encoder(spectrogram, frames)
            return encoded
        # Each stream beside zeros in the other's place. One walk for both: what a method averages over a batch in
        # training is then what its running statistics hold.
        silence, dark = torch.zeros_like(spectrogram), torch.zeros_like(frames)
        both: Encoded = self.encoder(torch.cat([spectrogram, silence]), torch.cat([dark, frames]))
        clips, segments = frames.shape[:2]
        return replace(
            both,
            audio=both.audio[: clips * segments],
            video=both.video[clips * segments :],
            audio_pooled=both.audio_pooled[:clips],
            video_pooled=both.video_pooled[clips:],
            notes=Notes(segments),
            video_stages=tuple(stage[clips * segments :] for stage in both.video_stages),
        )

    @property
    def towers(self) -> Mapping[str, Tower]:
        """The encoder's."""
        return {"video": self.encoder.video_tower, "audio": self.encoder.audio_tower}

    def losses(self, encoded: Encoded | None, foreground: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """The method's own."""
        assert encoded is not None
        own: dict[str, Tensor] = self.encoder.fusion.losses(encoded.notes, foreground, valid)
        return own
