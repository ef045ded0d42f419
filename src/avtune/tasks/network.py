"""Encoder and head as one module over a batch: what is trained, saved and run."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from avtune.backbones import FrozenBlock, Tower
from avtune.encoder import DualEncoder, Encoded
from avtune.errors import AvtuneError
from avtune.fusion import Fusion, Notes
from avtune.heads.question_encoder import FrozenText
from avtune.tasks.base import Task
from avtune.tasks.strangers import stranger_tokens
from avtune.transforms import Batch, normalise_frames


class Network(nn.Module):
    """From a batch of prepared clips to a task's outputs.

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
        self.encoder = encoder
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
        """Encode and answer.

        A stream that a clip lacks is all zeros, the value of an average picture or spectrogram.

        Args:
            batch: Prepared clips, on this module's device.

        Returns:
            The head's outputs, and the encoded streams for losses that read them.
        """
        frames = normalise_frames(batch.frames, self.mean, self.std)
        frames = frames * batch.has_video.view(-1, 1, 1, 1, 1)
        spectrogram = batch.spectrogram * batch.has_audio.view(-1, 1, 1, 1)
        encoded: Encoded = replace(
            self._encode(spectrogram, frames),
            valid=batch.valid,
            has_audio=batch.has_audio,
            has_video=batch.has_video,
            question=batch.question,
        )
        if (kind := self.strangers(self.training)) is not None:
            seen = encoded.video
            if kind == "plain":
                with torch.no_grad():
                    seen = self.encoder.video_tower(frames.flatten(0, 1))
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
