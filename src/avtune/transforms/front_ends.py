"""The ways in which sound becomes a picture, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from torch import Tensor

from avtune.transforms.librosa_log_mel import librosa_log_mel
from avtune.transforms.log_mel import log_mel
from avtune.transforms.log_stft import log_stft

FrontEndName: TypeAlias = Literal["kaldi_log_mel", "log_stft", "librosa_log_mel"]


class Compute(Protocol):
    """Waveform ``(samples,)`` to picture ``(frames, mels)``, both rates as in :func:`log_mel`."""

    def __call__(
        self, waveform: Tensor, *, sample_rate: int, mels: int, window_ms: float, shift_ms: float
    ) -> Tensor:
        """Compute it."""


@dataclass(frozen=True)
class FrontEnd:
    """One way.

    Attributes:
        compute: What it does.
        centred: Whether frames are centred on multiples of the shift, with half a frame of continuation on
            both sides; otherwise frames lie within the sound.
    """

    compute: Compute
    centred: bool

    def frames(self, samples: int, window: int, shift: int) -> int:
        """How many frames it makes.

        Args:
            samples: Length of the sound.
            window: Length of one frame, samples.
            shift: Distance of two frames, samples.
        """
        continued = samples + 2 * (window // 2) if self.centred else samples
        return 1 + (continued - window) // shift


FRONT_ENDS: dict[FrontEndName, FrontEnd] = {
    "kaldi_log_mel": FrontEnd(log_mel, centred=False),
    "log_stft": FrontEnd(log_stft, centred=True),
    "librosa_log_mel": FrontEnd(librosa_log_mel, centred=True),
}
"""What a preset's ``front_end`` names: Kaldi's log-mel, MA-AVT's linear log-STFT, HTS-AT's log-mel."""
