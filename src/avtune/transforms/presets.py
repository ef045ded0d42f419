"""Named front ends: how each paper's code turns sound into the picture that its transformer reads.

Left out because their front end is not Kaldi's log-mel: DG-SCT and HTS-AT (32 kHz, librosa-style STFT and
64 mel bands inside the network) and MA-AVT on VGGSound and CREMA-D (logarithm of a linear STFT).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args

from avtune.config import AudioInput
from avtune.errors import AvtuneError
from avtune.transforms.log_mel import samples_of

SAMPLE_RATE = 16000

Pad = Literal["after_normalising", "before_normalising"]
Placement = Literal["grid", "spread", "clip"]
Rows = Literal["time", "mel"]


@dataclass(frozen=True)
class AudioPreset:
    """How the sound of one segment becomes a picture; everything at 16 kHz, mono.

    Values are ``(log_mel - mean) / (2 * std)``.

    Attributes:
        source: The paper or code whose front end this is.
        mels: Number of mel bands.
        shift_ms: Distance of two frames, milliseconds.
        seconds: Length of the sound window that one segment hears, seconds.
        steps: Frames in the finished picture: fewer are padded with zeros at the end, more are cut.
        mean: Mean of the log-mel values.
        std: Half of what the centred values are divided by.
        window_ms: Length of one frame, milliseconds.
        pad: Whether the zeros are added after normalising (they then stand for the mean) or before.
        placement: ``grid``: the window is centred on its segment, and beyond the file's ends it hears
            digital silence; ``spread``: windows spread evenly over the clip, as the LAVISH authors' code
            does; ``clip``: each segment hears the clip from its beginning on.
        rows: Axis that becomes the picture's rows: ``time`` gives (steps, mels), ``mel`` (mels, steps).
        subtract_mean: Subtract the mean of the whole file's waveform first.
    """

    source: str
    mels: int
    shift_ms: float
    seconds: float
    steps: int
    mean: float
    std: float
    window_ms: float = 25.0
    pad: Pad = "after_normalising"
    placement: Placement = "spread"
    rows: Rows = "time"
    subtract_mean: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that no sound could satisfy.

        Raises:
            AvtuneError: If a number is not positive, a word is not one of the choices, or the sound window
                is shorter than one frame.
        """
        for name in ("mels", "shift_ms", "seconds", "steps", "std", "window_ms"):
            if not getattr(self, name) > 0:
                raise AvtuneError(f"input.audio.{name} is {getattr(self, name)}; set it above zero")
        for name, choices in (("pad", Pad), ("placement", Placement), ("rows", Rows)):
            if getattr(self, name) not in get_args(choices):
                allowed = ", ".join(get_args(choices))
                raise AvtuneError(f"input.audio.{name} is {getattr(self, name)!r}; choose one of {allowed}")
        if samples_of(self.shift_ms, SAMPLE_RATE) < 1:
            raise AvtuneError(
                f"input.audio.shift_ms is {self.shift_ms}; set it to 0.0625 (one sample) or more"
            )
        if self.window_samples < self.frame_samples:
            least = self.window_ms / 1000
            raise AvtuneError(f"input.audio.seconds is {self.seconds}; set it to one frame, {least}, or more")

    @property
    def window_samples(self) -> int:
        """Samples that one segment hears."""
        return round(self.seconds * SAMPLE_RATE)

    @property
    def frame_samples(self) -> int:
        """Samples of one frame."""
        return samples_of(self.window_ms, SAMPLE_RATE)

    @property
    def real_steps(self) -> int:
        """Frames that a full window yields, before padding or cutting to ``steps``."""
        return 1 + (self.window_samples - self.frame_samples) // samples_of(self.shift_ms, SAMPLE_RATE)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the picture."""
        return (self.steps, self.mels) if self.rows == "time" else (self.mels, self.steps)


_AVE_SWIN = AudioPreset(
    source="LAVISH, AVE with Swin-V2 192: the authors' AVE dataloader",
    mels=192,
    shift_ms=5.2,
    seconds=1.0,
    steps=192,
    mean=-4.98479557,
    std=3.70797801,
)
_AVE_VIT = AudioPreset(
    source="LAVISH, AVE with ViT: the authors' AVE dataloader",
    mels=128,
    shift_ms=10.0,
    seconds=1.0,
    steps=102,
    mean=-4.1426,
    std=3.2001,
)
_AVS = AudioPreset(
    source="LAVISH, AVS: the authors' AVS dataloader (which works at the file's own rate; here 16 kHz)",
    mels=192,
    shift_ms=10.0,
    seconds=1.0,
    steps=192,
    mean=-5.21053171,
    std=3.59183145,
)
_AVQA = AudioPreset(
    source="LAVISH, MUSIC-AVQA: the authors' AVQA dataloader",
    mels=192,
    shift_ms=10.0,
    seconds=1.95,
    steps=192,
    mean=-5.38533306,
    std=3.59286380,
)
_STG_CMA_SWIN = AudioPreset(
    source="STG-CMA, AVE with Swin 224: the authors' AVE dataloader",
    mels=224,
    shift_ms=4.4,
    seconds=1.0,
    steps=224,
    mean=-4.1426,
    std=3.2001,
)
# 1024 frames need this much sound; a ten-second clip has less and is padded from 998 frames on. The code
# divides by one 4.4849, so that is twice ``std``.
_CAV_MAE = AudioPreset(
    source="CAV-MAE: the authors' dataloader, values divided by 4.4849",
    mels=128,
    shift_ms=10.0,
    seconds=10.255,
    steps=1024,
    mean=-5.081,
    std=4.4849 / 2,
    pad="before_normalising",
    placement="clip",
    rows="mel",
)

AUDIO_PRESETS: dict[str, AudioPreset] = {
    "nano": AudioPreset(
        source="avtune: one second as a square of 64 for the bundled backbone",
        mels=64,
        shift_ms=15.44,
        seconds=1.0,
        steps=64,
        # Measured over rendered bandstand clips by benchmarks/nano_log_mel_statistics.py.
        mean=-3.9,
        std=3.4,
        placement="grid",
    ),
    "ave_swin": _AVE_SWIN,
    "ave_vit": _AVE_VIT,
    "avs": _AVS,
    "avqa": _AVQA,
    "stg_cma_ave_clip": replace(_AVE_VIT, source="STG-CMA, AVE with CLIP ViT: the authors' AVE dataloader"),
    "stg_cma_ave_swin": _STG_CMA_SWIN,
    "stg_cma_avs": replace(
        _STG_CMA_SWIN,
        source="STG-CMA, AVS: the authors' AVS dataloader",
        seconds=1.95,
        mean=-5.66963,
        std=3.94838,
    ),
    "stg_cma_avqa": replace(
        _STG_CMA_SWIN,
        source="STG-CMA, MUSIC-AVQA: the authors' AVQA dataloader",
        seconds=1.95,
        mean=-5.21439,
        std=3.86991,
    ),
    "copl_ave": replace(_AVE_SWIN, source="CoPL, AVE: no code published, the paper follows LAVISH"),
    "copl_avs": replace(_AVS, source="CoPL, AVS: no code published, the paper follows LAVISH"),
    "copl_avqa": replace(_AVQA, source="CoPL, MUSIC-AVQA: no code published, the paper follows LAVISH"),
    "ma_avt_ave": replace(_STG_CMA_SWIN, source="MA-AVT, AVE: the authors' AVE dataloader, after LAVISH's"),
    "cav_mae": _CAV_MAE,
    "avsiam": replace(_CAV_MAE, source="AVSiam: the authors' dataloader, as CAV-MAE's"),
}


def resolve_audio(audio: AudioInput) -> AudioPreset:
    """Take a preset and put the fields that a recipe sets in their place.

    Args:
        audio: The recipe's section; a field that is not None overrides the preset's. No preset means
            ``nano``.

    Returns:
        The complete front end. Its ``source`` names the preset and what differs.

    Raises:
        AvtuneError: If there is no such preset or a value is impossible.
    """
    name = audio.preset or "nano"
    if name not in AUDIO_PRESETS:
        near = get_close_matches(name, AUDIO_PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(AUDIO_PRESETS)}"
        raise AvtuneError(f"input.audio.preset {name!r} is unknown; {hint}")
    preset = AUDIO_PRESETS[name]
    settable = {field.name for field in fields(AudioPreset)}
    own: dict[str, Any] = {
        setting: value
        for setting, value in asdict(audio).items()
        if setting in settable and value is not None and value != getattr(preset, setting)
    }
    if not own:
        return preset
    return replace(preset, **own, source=f"{preset.source}; own {', '.join(own)}")


def check_spectrogram_size(audio: AudioPreset, size: int, tower: str) -> None:
    """Refuse a picture that a tower with a fixed input size cannot take.

    Swin needs exactly its image size; a ViT resamples its position embedding and needs no check.

    Args:
        audio: The front end.
        size: Side of the square that the tower takes, pixels.
        tower: The tower's name, for the message.

    Raises:
        AvtuneError: If rows or columns differ from ``size``; the message names the settings to change.
    """
    if audio.shape == (size, size):
        return
    rows, columns = audio.shape
    raise AvtuneError(
        f"{tower} takes spectrograms of {size}x{size} only, this preset gives {rows}x{columns}; "
        f"set input.audio.mels={size} and input.audio.steps={size}"
    )
