from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avtune.datasets.bandstand import CLASSES, Difficulty, Program, make_program
from avtune.datasets.bandstand.ceilings import single_sense_ceiling
from avtune.datasets.bandstand.program import clip_split, held_out_combination, held_out_pitch
from avtune.datasets.bandstand.scene import SECONDS
from avtune.errors import AvtuneError

SAMPLE = 10_000
LOOKS = [
    "hue",
    "accent",
    "saturation",
    "value",
    "x",
    "y",
    "size",
    "rotation",
    "rocking",
    "mirrored",
    "sway_period",
    "bounce",
    "bounce_rate",
    "phase",
]
seeds = st.integers(0, 2**32 - 1)
indexes = st.integers(0, 10**6)


@pytest.fixture(scope="module")
def programs() -> list[Program]:
    return [make_program(11, index) for index in range(SAMPLE)]


def event_matrix(programs: list[Program]) -> np.ndarray:
    matrix = np.zeros((len(programs), SECONDS), bool)
    for row, program in zip(matrix, programs, strict=True):
        row[slice(*program.event)] = True
    return matrix


def covered(start: float, end: float, second: int) -> bool:
    return min(end, second + 1) - max(start, second) >= 0.5


@settings(max_examples=300, deadline=None)
@given(seeds, indexes)
def test_event_is_where_the_class_is_heard_and_seen_and_no_other_second_is(seed: int, index: int) -> None:
    program = make_program(seed, index)
    for second in range(SECONDS):
        heard = {s.label for s in program.sounds if covered(s.start, s.end, second)}
        seen = {i.label for i in program.instruments if covered(i.start, i.end, second)}
        assert heard == program.heard(second)
        assert seen == program.seen(second)
        inside = program.event[0] <= second < program.event[1]
        assert heard & seen == ({program.label} if inside else set())
        sources = [program.instruments[number] for number in program.sounding(second)]
        assert [source.label for source in sources] == ([program.label] if inside else [])


@settings(max_examples=200, deadline=None)
@given(seeds, indexes)
@example(237, 237)  # ends 0.1 behind its second to the digit: 2.1 - 2 is 0.10000000000000009
def test_intervals_are_whole_seconds_within_the_clip_and_boundaries_stay_near_them(
    seed: int, index: int
) -> None:
    program = make_program(seed, index)
    assert 0 <= program.event[0] <= program.event[1] <= SECONDS
    assert [i.number for i in program.instruments] == list(range(len(program.instruments)))
    assert [s.number for s in program.sounds] == list(range(len(program.sounds)))
    labels = [sound.label for sound in program.sounds]
    assert len(set(labels)) == len(labels)
    for item, whole in [(i, i.seen) for i in program.instruments] + [(s, s.heard) for s in program.sounds]:
        assert 0 <= whole[0] < whole[1] <= SECONDS
        assert whole[0] - 0.1 <= item.start <= whole[0] + 0.1
        assert whole[1] - 0.1 <= item.end <= whole[1] + 0.1
        assert (item.start == 0) == (whole[0] == 0)
        assert (item.end == SECONDS) == (whole[1] == SECONDS)


@settings(max_examples=60, deadline=None)
@given(seeds, indexes)
def test_the_same_seed_draws_the_same_program_and_another_seed_another(seed: int, index: int) -> None:
    program = make_program(seed, index)
    assert program == make_program(seed, index)
    assert program.sounds != make_program(seed + 1, index).sounds


@settings(max_examples=12, deadline=None)
@given(seeds)
def test_classes_and_splits_are_divided_exactly(seed: int) -> None:
    programs = [make_program(seed, index) for index in range(100)]
    assert Counter((p.label, p.split) for p in programs) == {
        (label, split): count
        for label in CLASSES
        for split, count in (("train", 7), ("validation", 1), ("test", 2))
    }
    for block in range(0, 100, 10):
        splits = Counter(p.split for p in programs[block : block + 10])
        assert splits == {"train": 7, "validation": 1, "test": 2}


@pytest.mark.parametrize(
    "shares", [(0.55, 0.2, 0.25), (0.333, 0.333, 0.334), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)]
)
def test_any_shares_are_kept(shares: tuple[float, float, float]) -> None:
    found = Counter(clip_split(3, index, shares) for index in range(2000))
    for split, share in zip(("train", "validation", "test"), shares, strict=True):
        assert abs(found[split] / 2000 - share) < 0.02


def test_background_is_half_and_every_second_and_class_equally_often_event(programs: list[Program]) -> None:
    event = event_matrix(programs)
    assert 0.49 <= event.mean() <= 0.55
    # Five standard errors of a share over this many clips.
    assert np.abs(event.mean(0) - event.mean()).max() < 5 * 0.5 / SAMPLE**0.5
    seconds = {
        label: np.mean([e.mean() for e, p in zip(event, programs, strict=True) if p.label == label])
        for label in CLASSES
    }
    assert max(seconds.values()) - min(seconds.values()) < 0.06
    assert 0.08 <= np.mean([p.event[0] == p.event[1] for p in programs]) <= 0.16


def test_every_class_is_as_often_heard_unseen_and_seen_unheard(programs: list[Program]) -> None:
    unseen, unheard = Counter(), Counter()
    for program in programs:
        for second in range(SECONDS):
            unseen.update(program.heard(second) - program.seen(second))
            unheard.update(program.seen(second) - program.heard(second))
    for counts in (unseen, unheard):
        assert set(counts) == set(CLASSES)
        assert max(counts.values()) < 1.15 * min(counts.values())
        assert sum(counts.values()) > 0.3 * SAMPLE * SECONDS


@pytest.mark.parametrize("sense", ["heard", "seen"])
def test_one_perfect_sense_alone_cannot_tell_the_events(programs: list[Program], sense: str) -> None:
    ceiling = single_sense_ceiling(programs, sense)
    majority = 1 - event_matrix(programs).mean()
    assert majority < ceiling.naming < 0.60
    assert majority + 0.05 < ceiling.guessing < 0.65


def test_the_ceiling_notices_a_set_that_one_sense_solves() -> None:
    easy = Difficulty(runs=((1, 2, 1.0),), match_share=1.0, empty_share=1.0, second_instrument_share=0.0)
    solvable = [make_program(2, index, difficulty=easy) for index in range(2000)]
    assert single_sense_ceiling(solvable, "seen").guessing > 0.99
    assert single_sense_ceiling(solvable, "heard").guessing < 0.65


def looks(program: Program) -> list[tuple[bool, list[float]]]:
    twins = len({i.label for i in program.instruments}) < len(program.instruments)
    return [
        (
            any(item.number in program.sounding(second) for second in range(SECONDS)),
            [
                *(float(getattr(item.look, name)) for name in LOOKS),
                *item.look.sway,
                item.look.entrance == "cut",
                item.look.entrance == "fade",
                item.animated,
            ],
        )
        for item in program.instruments
        if not twins
    ]


def test_no_look_or_motion_tells_who_sounds(programs: list[Program]) -> None:
    rows = [row for program in programs for row in looks(program)]
    sounding = np.array([row[0] for row in rows])
    values = np.array([row[1] for row in rows], float)
    gap = values[sounding].mean(0) - values[~sounding].mean(0)
    error = values.std(0) * np.sqrt(1 / sounding.sum() + 1 / (~sounding).sum())
    assert np.all(np.abs(gap) < 4.5 * error)


def test_no_look_is_particular_to_a_class(programs: list[Program]) -> None:
    items = [item for program in programs for item in program.instruments]
    rows = [(item.label, [getattr(item.look, name) for name in LOOKS]) for item in items]
    values = np.array([row[1] for row in rows])
    labels = np.array([row[0] for row in rows])
    for label in CLASSES:
        mine = values[labels == label]
        assert np.all(np.abs(mine.mean(0) - values.mean(0)) < 5 * values.std(0) / len(mine) ** 0.5)


def test_drawing_order_level_and_noise_do_not_tell_who_is_on_stage(programs: list[Program]) -> None:
    pairs = [p for p in programs if len(p.instruments) == 2 and p.event[0] < p.event[1]]
    first = np.mean([p.sounding(p.event[0])[0] == 0 for p in pairs])
    assert abs(first - 0.5) < 5 * 0.5 / len(pairs) ** 0.5
    on = np.array([s.level_db for p in programs for s in p.sounds if s.instrument is not None])
    off = np.array([s.level_db for p in programs for s in p.sounds if s.instrument is None])
    assert abs(on.mean() - off.mean()) < 5 * on.std() * (1 / len(on) + 1 / len(off)) ** 0.5
    length = event_matrix(programs).sum(1)
    for value in (
        [p.noise_db for p in programs],
        [p.noise_slope for p in programs],
        [p.reverberation for p in programs],
    ):
        assert abs(np.corrcoef(value, length)[0, 1]) < 5 / SAMPLE**0.5


def test_two_of_a_kind_occur_with_one_or_none_of_them_playing_and_both_moving(
    programs: list[Program],
) -> None:
    outcome = Counter()
    for program in programs:
        labels = [i.label for i in program.instruments]
        for one, other in pairwise(sorted(program.instruments, key=lambda item: item.label)):
            if one.label == other.label:
                assert labels.count(one.label) == 2
                assert one.animated
                assert other.animated
                assert one.seen == other.seen
                outcome[sum(program.player(item.number) is not None for item in (one, other))] += 1
    assert set(outcome) == {0, 1}
    assert outcome[0] > 0.1 * outcome[1] > 20


def test_test_clips_have_timbres_and_combinations_that_training_has_not(programs: list[Program]) -> None:
    for program in programs:
        testing = program.split == "test"
        for sound in program.sounds:
            assert held_out_pitch(sound.timbre.pitch) == testing
            if sound.instrument is not None:
                hue = program.instruments[sound.instrument].look.hue
                assert held_out_combination(sound.label, hue, sound.timbre.pitch) == testing


def test_holding_out_combinations_leaves_hue_and_pitch_uniform_in_every_class(
    programs: list[Program],
) -> None:
    for label in CLASSES:
        playing = [
            (program.instruments[sound.instrument].look.hue, sound.timbre.pitch)
            for program in programs
            for sound in program.sounds
            if sound.instrument is not None and sound.label == label and program.split == "train"
        ]
        for values in np.array(playing).T:
            thirds = np.histogram(values, 3, (0, 1))[0] / len(playing)
            assert np.abs(thirds - 1 / 3).max() < 5 * 0.48 / len(playing) ** 0.5


@pytest.mark.parametrize(
    "options", [{"runs": ((1, 1, 0.5),)}, {"runs": ((0, 1, 1.0),)}, {"boundary_jitter": 0.3}]
)
def test_impossible_difficulties_are_refused_in_one_line(options: dict[str, object]) -> None:
    with pytest.raises(AvtuneError, match=r"^Difficulty\.[^\n]+$"):
        Difficulty(**options)
