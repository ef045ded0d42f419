"""Named front ends: how each paper's code turns sound into the picture that its transformer reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args

from avtune.config import AudioInput
from avtune.errors import AvtuneError
from avtune.transforms.front_ends import FRONT_ENDS, FrontEndName
from avtune.transforms.librosa_log_mel import HIGHEST_HZ
from avtune.transforms.log_mel import samples_of

Pad = Literal["after_normalising", "before_normalising"]
Placement = Literal["grid", "spread", "clip"]
Rows = Literal["time", "mel"]
Beyond = Literal["silence", "loop"]


WORDS: dict[str, tuple[str, ...]] = {
    "pad": get_args(Pad),
    "placement": get_args(Placement),
    "rows": get_args(Rows),
    "beyond": get_args(Beyond),
    "front_end": tuple(FRONT_ENDS),
}


@dataclass(frozen=True)
class AudioPreset:
    """How the sound of one segment, mono, becomes a picture.

    Values are ``(energy - mean) / (2 * std)``, with the energies that ``front_end`` computes: logarithms of
    mel bands or of frequencies. With a mean of 0 and a deviation of 0.5 they stay as they are.

    Attributes:
        source: The paper or code whose front end this is.
        mels: Number of mel bands; of frequencies for ``log_stft``.
        shift_ms: Distance of two frames, milliseconds.
        seconds: Length of the sound window that one segment hears, seconds.
        steps: Frames in the finished picture: fewer are padded with zeros at the end, more are cut.
        mean: Mean of the energies.
        std: Half of what the centred values are divided by.
        window_ms: Length of one frame, milliseconds.
        pad: Whether the zeros are added after normalising (they then stand for the mean) or before.
        placement: ``grid``: the window is centred on its segment, and beyond the file's ends it hears
            digital silence; ``spread``: windows spread evenly over the clip, as the LAVISH authors' code
            does; ``clip``: each segment hears the clip from its beginning on.
        rows: Axis that becomes the picture's rows: ``time`` gives (steps, mels), ``mel`` (mels, steps).
        subtract_mean: Subtract the mean of the whole file's waveform first.
        front_end: Name in :data:`avtune.transforms.front_ends.FRONT_ENDS`.
        sample_rate: Samples per second that the sound is decoded to.
        beyond: What continues a file that is too short for a window: digital ``silence``, or the file
            again from its beginning (``loop``).
        tile_seconds: Length to which the sound that one segment hears is repeated, seconds; None: it is heard
            once.
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
    front_end: FrontEndName = "kaldi_log_mel"
    sample_rate: int = 16000
    beyond: Beyond = "silence"
    tile_seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that no sound could satisfy.

        Raises:
            AvtuneError: If a number is not positive, a word is not one of the choices, the sound window is
                shorter than one frame, or the numbers do not suit the front end.
        """
        for name in ("mels", "shift_ms", "seconds", "steps", "std", "window_ms", "sample_rate"):
            if not getattr(self, name) > 0:
                raise AvtuneError(f"input.audio.{name} is {getattr(self, name)}; set it above zero")
        for name, choices in WORDS.items():
            if getattr(self, name) not in choices:
                raise AvtuneError(
                    f"input.audio.{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}"
                )
        if self.shift_samples < 1:
            least = 1000 / self.sample_rate
            raise AvtuneError(
                f"input.audio.shift_ms is {self.shift_ms}; set it to {least:g} (one sample) or more"
            )
        if self.window_samples < self.frame_samples:
            least = self.window_ms / 1000
            raise AvtuneError(f"input.audio.seconds is {self.seconds}; set it to one frame, {least}, or more")
        if self.tile_seconds is not None and self.tile_seconds < self.seconds:
            raise AvtuneError(
                f"input.audio.seconds is {self.seconds}, but the preset repeats the sound to "
                f"{self.tile_seconds} seconds; set it to that or less"
            )
        self._check_front_end()

    def _check_front_end(self) -> None:
        frequencies = self.frame_samples // 2 + 1
        if self.front_end == "log_stft" and self.mels != frequencies:
            raise AvtuneError(
                f"input.audio.mels is {self.mels}, but this preset has no mel bands: its frames of "
                f"{self.frame_samples} samples have {frequencies} frequencies; set it to {frequencies}"
            )
        if self.front_end == "librosa_log_mel" and self.sample_rate < 2 * HIGHEST_HZ:
            raise AvtuneError(
                f"input.audio.sample_rate is {self.sample_rate}, but the bands of librosa_log_mel reach up to "
                f"{HIGHEST_HZ:g} Hz; set it to {2 * HIGHEST_HZ:g} or more"
            )

    @property
    def window_samples(self) -> int:
        """Samples that one segment hears."""
        return round(self.seconds * self.sample_rate)

    @property
    def frame_samples(self) -> int:
        """Samples of one frame."""
        return samples_of(self.window_ms, self.sample_rate)

    @property
    def shift_samples(self) -> int:
        """Samples between the starts of two frames."""
        return samples_of(self.shift_ms, self.sample_rate)

    @property
    def tiled_samples(self) -> int:
        """Samples that the front end is given: what one segment hears, repeated where that is asked for."""
        return round((self.tile_seconds or self.seconds) * self.sample_rate)

    @property
    def real_steps(self) -> int:
        """Frames that a full window yields, before padding or cutting to ``steps``."""
        front_end = FRONT_ENDS[self.front_end]
        return front_end.frames(self.tiled_samples, self.frame_samples, self.shift_samples)

    @property
    def blank(self) -> float:
        """Value of the steps that fill up a short sound."""
        return -self.mean / (2 * self.std) if self.pad == "before_normalising" else 0.0

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
# As CAV-MAE's, but for the statistics; its code divides by twice the deviation itself.
_AST = replace(_CAV_MAE, source="AST, AudioSet: the authors' dataloader", mean=-4.2677393, std=4.5689974)
_HTSAT = AudioPreset(
    source="HTS-AT, AudioSet: ten seconds of 32 kHz, decibels that the network normalises band by band",
    mels=64,
    shift_ms=10.0,
    seconds=10.0,
    steps=1001,
    mean=0.0,
    std=0.5,
    window_ms=32.0,
    placement="clip",
    subtract_mean=False,
    front_end="librosa_log_mel",
    sample_rate=32000,
    tile_seconds=10.0,
)
# 446 and 447 samples, 358 and 296 samples: 224 frequencies of 224 frames each.
_MA_AVT_VGGSOUND = AudioPreset(
    source="MA-AVT, VGGSound: the authors' dataloader (five of ten seconds, standardised log-STFT)",
    mels=224,
    shift_ms=22.376,
    seconds=5.0,
    steps=224,
    mean=0.0,
    std=0.5,
    window_ms=27.876,
    placement="grid",
    rows="mel",
    subtract_mean=False,
    front_end="log_stft",
    beyond="loop",
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
    "ma_avt_vggsound": _MA_AVT_VGGSOUND,
    "ma_avt_crema_d": replace(
        _MA_AVT_VGGSOUND,
        source="MA-AVT, CREMA-D: the authors' dataloader (the first three seconds, standardised log-STFT)",
        shift_ms=13.4241,
        seconds=3.0,
        window_ms=20.2722,
        placement="clip",
        sample_rate=22050,
    ),
    "ast": _AST,
    "ast_second": replace(
        _AST,
        source="AST on one second per segment, frames as LAVISH's for ViT",
        seconds=1.0,
        steps=102,
        placement="grid",
    ),
    "htsat": _HTSAT,
    "dg_sct": replace(
        _HTSAT,
        source="DG-SCT, HTS-AT: each second is repeated ten times",
        seconds=1.0,
        placement="grid",
    ),
}


OWN = "; own "
SETTABLE = tuple(field.name for field in fields(AudioInput) if field.name != "preset")
"""Fields of a front end that a recipe can set beside the preset's name."""


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
    own: dict[str, Any] = {
        setting: value
        for setting, value in asdict(audio).items()
        if setting in SETTABLE and value is not None and value != getattr(preset, setting)
    }
    if not own:
        return preset
    return replace(preset, **own, source=f"{preset.source}{OWN}{', '.join(own)}")


def stated_audio(audio: AudioPreset) -> AudioInput:
    """What a recipe has to state so that :func:`resolve_audio` gives ``audio``.

    Args:
        audio: What :func:`resolve_audio` gave.

    Raises:
        AvtuneError: It is from no preset of this version.
    """
    source = audio.source.split(OWN)[0]
    for name, preset in AUDIO_PRESETS.items():
        if preset.source == source:
            own = {setting: getattr(audio, setting) for setting in SETTABLE}
            stated = AudioInput(name, **{k: v for k, v in own.items() if v != getattr(preset, k)})
            if resolve_audio(stated) == audio:
                return stated
    raise AvtuneError(f"the sound was prepared by a preset of another version ({source}); use that version")


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
