"""What a bandstand clip is made from: instruments, sounds, and the dataclass that holds them all."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from avtune.errors import AvtuneError

CLASSES: tuple[str, ...] = (
    "bell",
    "bird",
    "car",
    "drum",
    "guitar",
    "horn",
    "rain",
    "siren",
    "voice",
    "xylophone",
)
SECONDS = 10
SAMPLE_RATE = 16000
SPLITS: tuple[str, ...] = ("train", "validation", "test")

Interval = tuple[int, int]
"""Whole seconds [first, last + 1)."""

Split = Literal["train", "validation", "test"]


def inside(second: int, interval: Interval) -> bool:
    """Whether a second lies in an interval."""
    return interval[0] <= second < interval[1]


@dataclass(frozen=True)
class Difficulty:
    """How hard the set is; the defaults are what every published bandstand number uses.

    Attributes:
        runs: Probability of (runs of hearing, runs of sight), as ((hearing, sight, probability), ...).
        match_share: Share of clips whose target runs have the same class; the others have no event.
        silence_share: Probability that a run of hearing that is not the target's is silent.
        empty_share: Probability that a run of sight that is not the target's shows an empty stage.
        second_instrument_share: Share of clips with a second, silent instrument on the stage.
        twin_share: Share of those whose second instrument is of the same class as the first.
        second_sound_share: Share of clips with a second sound, from off the stage.
        animated_share: Share of instruments that move as if they were played, sounding or not.
        size_range: Height of an instrument as a share of the picture's side, lowest and highest.
        clutter: Largest number of meaningless shapes in the background.
        level_range_db: Root mean square of a sound relative to full scale, decibels, lowest and highest.
        noise_range_db: The same of the noise floor, which every clip has throughout.
        boundary_jitter: Largest distance of a boundary from its whole second, seconds (at most 0.2).
    """

    runs: tuple[tuple[int, int, float], ...] = (
        (1, 1, 0.26),
        (1, 2, 0.25),
        (2, 1, 0.25),
        (2, 2, 0.08),
        (1, 3, 0.08),
        (3, 1, 0.08),
    )
    match_share: float = 0.9
    silence_share: float = 0.3
    empty_share: float = 0.3
    second_instrument_share: float = 0.3
    twin_share: float = 0.3
    second_sound_share: float = 0.2
    animated_share: float = 0.6
    size_range: tuple[float, float] = (0.46, 0.6)
    clutter: int = 7
    level_range_db: tuple[float, float] = (-26.0, -20.0)
    noise_range_db: tuple[float, float] = (-52.0, -44.0)
    boundary_jitter: float = 0.1

    def __post_init__(self) -> None:
        total = sum(probability for _, _, probability in self.runs)
        if abs(total - 1) > 1e-9 or any(p < 0 or a < 1 or v < 1 for a, v, p in self.runs):
            raise AvtuneError(f"Difficulty.runs must hold probabilities that add up to 1, not {total:g}")
        # An instrument may take 0.25 s to come in, and must be there in the middle of its second.
        if not 0 <= self.boundary_jitter <= 0.2:
            raise AvtuneError(f"Difficulty.boundary_jitter must be in [0, 0.2], not {self.boundary_jitter}")


@dataclass(frozen=True)
class Timbre:
    """What distinguishes two sounds of one class; every value in [0, 1).

    Attributes:
        pitch: Position in the class's range of pitch. The middle fifth of each third is kept for testing.
        brightness: Weight of the high partials.
        rhythm: Position in the class's range of onset rates.
    """

    pitch: float
    brightness: float
    rhythm: float


@dataclass(frozen=True)
class Look:
    """How an instrument is drawn; drawn from one distribution for every class.

    Attributes:
        hue: Colour of the body, [0, 1) around the colour circle.
        accent: Colour of the details, likewise.
        saturation: Of the body, [0, 1].
        value: Brightness of the body, [0, 1].
        x: Centre, share of the picture's width.
        y: Centre, share of the picture's height.
        size: Height of the drawing, share of the picture's side.
        rotation: Degrees, counter-clockwise.
        rocking: Amplitude of its slow turning to and fro about that, degrees.
        mirrored: Whether left and right are exchanged.
        sway: Amplitude of its slow drift to the right and down, shares of the side.
        sway_period: Of the drift and, 1.3 times as long, of the rocking; seconds.
        bounce: Amplitude of its bounce, share of the side.
        bounce_rate: Bounces per second.
        phase: Of both motions, radians.
        entrance: How it comes and goes where that happens within the clip.
    """

    hue: float
    accent: float
    saturation: float
    value: float
    x: float
    y: float
    size: float
    rotation: float
    rocking: float
    mirrored: bool
    sway: tuple[float, float]
    sway_period: float
    bounce: float
    bounce_rate: float
    phase: float
    entrance: Literal["cut", "fade", "slide"]


@dataclass(frozen=True)
class Instrument:
    """Something that is seen.

    Attributes:
        number: Its place in ``Program.instruments``; later ones are drawn over earlier ones.
        label: Class.
        start: When it appears, seconds.
        end: When it is gone, seconds.
        seen: The whole seconds of which it is seen at least half, [first, last + 1).
        animated: Whether it moves as if played: at its sound's onsets while it sounds, at made-up ones else.
        look: How it is drawn.
    """

    number: int
    label: str
    start: float
    end: float
    seen: Interval
    animated: bool
    look: Look


@dataclass(frozen=True)
class Sound:
    """Something that is heard.

    Attributes:
        number: Its place in ``Program.sounds``.
        label: Class.
        instrument: Number of the instrument that makes it; ``None``: it comes from off the stage.
        start: When it begins, seconds.
        end: When it stops, seconds.
        heard: The whole seconds of which it is heard at least half, [first, last + 1).
        level_db: Root mean square while it lasts, decibels relative to full scale.
        timbre: How it sounds.
    """

    number: int
    label: str
    instrument: int | None
    start: float
    end: float
    heard: Interval
    level_db: float
    timbre: Timbre


@dataclass(frozen=True)
class Program:
    """Everything that a clip is made from; rendering adds nothing but the seeds derived from ``index``.

    Attributes:
        index: Number of the clip in its set.
        seed: Seed of the set.
        name: File name without its ending.
        split: Which split the clip belongs to.
        label: The clip's class.
        event: The seconds in which an instrument of ``label`` is both heard and seen, [start, end);
            start == end: there is none.
        instruments: Everything seen, in drawing order.
        sounds: Everything heard.
        noise_db: Root mean square of the noise floor, decibels relative to full scale.
        noise_slope: Exponent of its power spectrum, 1/f**slope.
        reverberation: Share of reverberated sound in the mix.
        decay: Time in which the reverberation falls by 60 decibels, seconds.
    """

    index: int
    seed: int
    name: str
    split: Split
    label: str
    event: Interval
    instruments: tuple[Instrument, ...]
    sounds: tuple[Sound, ...]
    noise_db: float
    noise_slope: float
    reverberation: float
    decay: float

    def player(self, number: int) -> Sound | None:
        """The sound that an instrument makes, or ``None`` if it is silent throughout."""
        return next((sound for sound in self.sounds if sound.instrument == number), None)

    def sounding(self, second: int) -> tuple[int, ...]:
        """Numbers of the instruments that are seen and make a sound in a second."""
        return tuple(
            instrument.number
            for instrument in self.instruments
            if inside(second, instrument.seen)
            and (sound := self.player(instrument.number)) is not None
            and inside(second, sound.heard)
        )

    def heard(self, second: int) -> frozenset[str]:
        """Classes heard in a second, from the stage or from off it."""
        return frozenset(sound.label for sound in self.sounds if inside(second, sound.heard))

    def seen(self, second: int) -> frozenset[str]:
        """Classes seen in a second, sounding or silent."""
        return frozenset(item.label for item in self.instruments if inside(second, item.seen))

    def as_dict(self) -> dict[str, Any]:
        """The program as plain values, as ``truth/<name>.json`` holds it."""
        return asdict(self)


def generator(seed: int, index: int, stream: Literal["program", "look", "sound"]) -> np.random.Generator:
    """The random generator of one aspect of one clip; the three streams know nothing of each other.

    Args:
        seed: Seed of the set, at least 0.
        index: Number of the clip.
        stream: Which aspect.
    """
    key = (index, ("program", "look", "sound").index(stream))
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))
