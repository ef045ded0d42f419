"""Drawing the scene program of a clip by chance, so that hearing and sight are both needed.

A clip has two tracks of ten whole seconds. The track of sight is cut into one to three runs, each showing one
instrument or an empty stage; the track of hearing is cut independently, each run sounding one class or none.
One run of each track is the target's: both have the clip's class, all other runs have classes of their own.
The event is where the two target runs overlap. A second lies in exactly one pair (i, j) of runs, and the
target pair is drawn uniformly, so the event covers every second equally often, and neither track alone tells
which of its runs is the target's.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import numpy as np

from avtune.datasets.bandstand.scene import (
    CLASSES,
    SECONDS,
    Difficulty,
    Instrument,
    Interval,
    Look,
    Program,
    Sound,
    Split,
    Timbre,
    generator,
)


def clip_class(seed: int, index: int) -> str:
    """The class of a clip: each block of ten consecutive clips holds every class once, in random order."""
    block, place = divmod(index, len(CLASSES))
    order = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(block, 3))).permutation(
        len(CLASSES)
    )
    return CLASSES[int(order[place])]


def clip_split(seed: int, index: int, shares: tuple[float, float, float]) -> Split:
    """The split of a clip, a function of seed and index alone, so a longer set begins with the shorter one.

    The n-th clip of a class gets the position x = 0.d1d2d3 in [0, 1) whose decimal digits run through all
    values as n grows (a radical inverse); x falls into one of three stretches as long as the shares. With
    shares in tenths every block of ten clips, and every ten clips of one class, are divided exactly.

    Args:
        seed: Seed of the set.
        index: Number of the clip.
        shares: Shares of training, validation and test, adding up to 1.
    """
    count, digits = len(CLASSES), len(CLASSES)
    offsets = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(0, 4))).permutation(count)
    round_number = index // count
    offset = int(offsets[CLASSES.index(clip_class(seed, index))])
    position, remainder, weight = 0.0, round_number, 1.0
    for place in range(3):
        digit = (remainder * (7 if place == 0 else 1) + offset) % digits
        weight /= digits
        position += digit * weight
        remainder //= digits
    # Half of the last digit's weight keeps sums of shares such as 0.7 + 0.1 off the lattice of positions.
    position += weight / 2
    if position < shares[0]:
        return "train"
    return "validation" if position < shares[0] + shares[1] else "test"


@dataclass
class _Run:
    """A stretch of one track under construction."""

    start: int
    end: int
    label: str | None = None
    target: bool = False


@dataclass
class _Draft:
    """The two tracks and what comes on top of them."""

    hearing: list[_Run]
    sight: list[_Run]
    second_sound: _Run | None = None
    second_instrument: _Run | None = None
    twins: bool = False
    spare: list[str] = field(default_factory=list)


def make_program(
    seed: int,
    index: int,
    *,
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2),
    difficulty: Difficulty | None = None,
) -> Program:
    """Draw the scene program of one clip.

    Args:
        seed: Seed of the set, at least 0.
        index: Number of the clip, at least 0.
        shares: Shares of training, validation and test.
        difficulty: How hard the set is; ``None``: the defaults.
    """
    difficulty = difficulty or Difficulty()
    rng = generator(seed, index, "program")
    label, split = clip_class(seed, index), clip_split(seed, index, shares)
    draft = _draft(rng, label, difficulty)
    instruments, playing = _instruments(rng, draft, difficulty)
    sounds = _sounds(rng, draft, playing, instruments, split, difficulty)
    # The order of drawing and of listing must not tell the target from the rest.
    order = rng.permutation(len(instruments))
    place = {int(old): new for new, old in enumerate(order)}
    instruments = [replace(instruments[int(old)], number=place[int(old)]) for old in order]
    shuffled = [sounds[int(old)] for old in rng.permutation(len(sounds))]
    sounds = [
        replace(sound, number=number, instrument=_mapped(sound.instrument, place))
        for number, sound in enumerate(shuffled)
    ]
    return Program(
        index=index,
        seed=seed,
        name=f"clip{index:06d}",
        split=split,
        label=label,
        event=_event(instruments, sounds, label),
        instruments=tuple(instruments),
        sounds=tuple(sounds),
        noise_db=float(rng.uniform(*difficulty.noise_range_db)),
        noise_slope=float(rng.uniform(0.0, 1.5)),
        reverberation=float(rng.uniform(0.03, 0.2)),
        decay=float(rng.uniform(0.08, 0.25)),
    )


def _mapped(number: int | None, place: dict[int, int]) -> int | None:
    return None if number is None else place[number]


def _cut(rng: np.random.Generator, count: int) -> list[_Run]:
    """Cut the ten seconds into runs at distinct whole seconds, uniformly."""
    cuts = sorted(int(cut) for cut in rng.choice(np.arange(1, SECONDS), size=count - 1, replace=False))
    edges = [0, *cuts, SECONDS]
    return [_Run(start, end) for start, end in itertools.pairwise(edges)]


def _draft(rng: np.random.Generator, label: str, difficulty: Difficulty) -> _Draft:
    """Cut both tracks and give every run its class."""
    choice = int(rng.choice(len(difficulty.runs), p=[probability for _, _, probability in difficulty.runs]))
    hearing_runs, sight_runs, _ = difficulty.runs[choice]
    draft = _Draft(_cut(rng, hearing_runs), _cut(rng, sight_runs))
    draft.spare = [str(name) for name in rng.permutation([name for name in CLASSES if name != label])]
    heard_target = draft.hearing[int(rng.integers(hearing_runs))]
    seen_target = draft.sight[int(rng.integers(sight_runs))]
    heard_target.target = seen_target.target = True
    heard_target.label = seen_target.label = label
    if rng.random() >= difficulty.match_share:
        stranger = heard_target if rng.random() < 0.5 else seen_target
        stranger.label = draft.spare.pop()
    for track, share in ((draft.hearing, difficulty.silence_share), (draft.sight, difficulty.empty_share)):
        for run in track:
            if not run.target and rng.random() >= share:
                run.label = draft.spare.pop()
    if rng.random() < difficulty.second_sound_share:
        draft.second_sound = _some_run(rng)
        draft.second_sound.label = draft.spare.pop()
    if rng.random() < difficulty.second_instrument_share:
        if rng.random() < difficulty.twin_share:
            shown = [run for run in draft.sight if run.label is not None]
            twin = shown[int(rng.integers(len(shown)))]
            draft.second_instrument = _Run(twin.start, twin.end, twin.label)
            draft.twins = True
        else:
            draft.second_instrument = _some_run(rng)
            draft.second_instrument.label = draft.spare.pop()
    return draft


def _some_run(rng: np.random.Generator) -> _Run:
    """A stretch distributed as a track's runs are: the whole clip, or either side of a cut."""
    runs = _cut(rng, int(rng.integers(1, 3)))
    return runs[int(rng.integers(len(runs)))]


def _jittered(rng: np.random.Generator, run: _Run, jitter: float) -> tuple[float, float]:
    """Boundaries in seconds, off the whole second except at the clip's own ends."""
    shifts = rng.uniform(-jitter, jitter, size=2)
    start = run.start + (float(shifts[0]) if run.start > 0 else 0.0)
    end = run.end + (float(shifts[1]) if run.end < SECONDS else 0.0)
    return round(start, 4), round(end, 4)


def _covered(start: float, end: float) -> Interval:
    """The whole seconds of which [start, end) covers at least half."""
    covered = [t for t in range(SECONDS) if min(end, t + 1) - max(start, t) >= 0.5]
    return (covered[0], covered[-1] + 1) if covered else (0, 0)


def _instruments(
    rng: np.random.Generator, draft: _Draft, difficulty: Difficulty
) -> tuple[list[Instrument], int | None]:
    """Everything seen, and the number of the target."""
    runs = [run for run in draft.sight if run.label is not None]
    if draft.second_instrument is not None:
        runs.append(draft.second_instrument)
    first_side = int(rng.integers(2))
    instruments: list[Instrument] = []
    target: int | None = None
    for number, run in enumerate(runs):
        side = 1 - first_side if run is draft.second_instrument else first_side
        start, end = _jittered(rng, run, difficulty.boundary_jitter)
        if run.target:
            target = number
        assert run.label is not None
        instruments.append(
            Instrument(
                number=number,
                label=run.label,
                start=start,
                end=end,
                seen=_covered(start, end),
                # Of two of a kind only the rhythm tells which one plays, so both must have one to see.
                animated=bool(rng.random() < difficulty.animated_share) or draft.twins,
                look=_look(rng, side, difficulty),
            )
        )
    return instruments, target


def _look(rng: np.random.Generator, side: int, difficulty: Difficulty) -> Look:
    return Look(
        hue=float(rng.random()),
        accent=float(rng.random()),
        saturation=float(rng.uniform(0.45, 0.95)),
        value=float(rng.uniform(0.55, 1.0)),
        x=float(rng.uniform(0.25, 0.33) if side == 0 else rng.uniform(0.67, 0.75)),
        y=float(rng.uniform(0.36, 0.64)),
        size=float(rng.uniform(*difficulty.size_range)),
        rotation=float(rng.uniform(-14, 14)),
        rocking=float(rng.uniform(0, 14)),
        mirrored=bool(rng.random() < 0.5),
        sway=(float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.12, 0.12))),
        sway_period=float(rng.uniform(3, 8)),
        bounce=float(rng.uniform(0.0, 0.04) if rng.random() < 0.5 else 0.0),
        bounce_rate=float(rng.uniform(0.6, 1.6)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        entrance=("cut", "fade", "slide")[int(rng.integers(3))],
    )


def held_out_pitch(pitch: float) -> bool:
    """Whether a pitch position lies in the middle fifth of its third, which only test clips use."""
    return 0.4 <= (pitch * 3) % 1 < 0.6


def held_out_combination(label: str, hue: float, pitch: float) -> bool:
    """Whether only test clips pair this third of the hues with this third of the pitches for a class."""
    return (int(hue * 3) + int(pitch * 3) + CLASSES.index(label)) % 3 == 0


def _timbre(rng: np.random.Generator, label: str, hue: float | None, split: Split) -> Timbre:
    """A timbre that its split allows, by rejection."""
    testing = split == "test"
    while True:
        pitch, brightness, rhythm = (float(value) for value in rng.random(3))
        if held_out_pitch(pitch) != testing:
            continue
        if hue is None or held_out_combination(label, hue, pitch) == testing:
            return Timbre(pitch, brightness, rhythm)


def _sounds(
    rng: np.random.Generator,
    draft: _Draft,
    target: int | None,
    instruments: list[Instrument],
    split: Split,
    difficulty: Difficulty,
) -> list[Sound]:
    """Everything heard; the target's sound belongs to the instrument of the same class, if that is shown."""
    runs = [run for run in draft.hearing if run.label is not None]
    if draft.second_sound is not None:
        runs.append(draft.second_sound)
    sounds: list[Sound] = []
    for number, run in enumerate(runs):
        assert run.label is not None
        source = (
            target if run.target and target is not None and instruments[target].label == run.label else None
        )
        start, end = _jittered(rng, run, difficulty.boundary_jitter)
        sounds.append(
            Sound(
                number=number,
                label=run.label,
                instrument=source,
                start=start,
                end=end,
                heard=_covered(start, end),
                level_db=float(rng.uniform(*difficulty.level_range_db)),
                timbre=_timbre(
                    rng, run.label, None if source is None else instruments[source].look.hue, split
                ),
            )
        )
    return sounds


def _event(instruments: list[Instrument], sounds: list[Sound], label: str) -> Interval:
    """Where an instrument of the class is heard and seen; (0, 0) if nowhere."""
    for sound in sounds:
        if sound.instrument is not None and sound.label == label:
            seen = instruments[sound.instrument].seen
            start, end = max(seen[0], sound.heard[0]), min(seen[1], sound.heard[1])
            if start < end:
                return start, end
    return 0, 0
