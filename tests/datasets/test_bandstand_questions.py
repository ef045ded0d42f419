import json
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import groupby

import pytest

from avtune.datasets.bandstand import Program, make_program
from avtune.datasets.bandstand.questions import TEMPLATES, questions
from avtune.datasets.bandstand.scene import SECONDS

NUMBERS = ["zero", "one", "two", "three", "four", "five"]


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    return {program.name: program for program in (make_program(5, index) for index in range(600))}


@pytest.fixture(scope="module")
def rows(programs: dict[str, Program]) -> list[dict[str, object]]:
    return questions(list(programs.values()), 5)


def test_rows_have_the_form_of_music_avqa(
    rows: list[dict[str, object]], programs: dict[str, Program]
) -> None:
    kinds = {"Audio", "Visual", "Audio-Visual"}
    assert [row["question_id"] for row in rows] == list(range(len(rows)))
    for row in rows:
        modality, kind = json.loads(row["type"])
        assert modality in kinds
        assert kind in {"Counting", "Comparative", "Location", "Existential", "Temporal"}
        values = json.loads(row["templ_values"])
        assert len(values) == row["question_content"].count("<")
        assert row["question_deleted"] == 0
        assert programs[row["video_id"]].split == row["split"]
    assert {row["question_content"] for row in rows} == {template.text for template in TEMPLATES}


def test_every_answer_of_a_template_is_equally_frequent_in_every_split(rows: list[dict[str, object]]) -> None:
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["split"], row["question_content"]][row["anser"]] += 1
    for answers in counts.values():
        assert len(answers) >= 2
        assert len(set(answers.values())) == 1


def test_reading_the_question_alone_gains_nothing(rows: list[dict[str, object]]) -> None:
    def key(row: dict[str, object]) -> tuple[str, str]:
        return row["question_content"], row["templ_values"]

    known: dict[object, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row["split"] == "train":
            known[key(row)][row["anser"]] += 1
    hits, chances = [], []
    answers = defaultdict(set)
    for row in rows:
        answers[row["question_content"]].add(row["anser"])
    for row in rows:
        if row["split"] == "test":
            guess = known[key(row)].most_common(1)[0][0] if known[key(row)] else "yes"
            hits.append(guess == row["anser"])
            chances.append(1 / len(answers[row["question_content"]]))
    assert len(hits) > 500
    assert sum(hits) / len(hits) < sum(chances) / len(chances) + 0.05


def yes(condition: bool) -> str:
    return "yes" if condition else "no"


def times(program: Program, sense: str, label: str) -> set[int]:
    return {second for second in range(SECONDS) if label in getattr(program, sense)(second)}


def everything(program: Program, sense: str) -> set[str]:
    return set().union(*(getattr(program, sense)(second) for second in range(SECONDS)))


def level(program: Program, label: str) -> float:
    return max(sound.level_db for sound in program.sounds if sound.label == label)


def sides(program: Program, label: str) -> list[str]:
    return ["left" if item.look.x < 0.5 else "right" for item in program.instruments if item.label == label]


def players(program: Program) -> set[int]:
    return {number for second in range(SECONDS) for number in program.sounding(second)}


# The answers once more, read off the seconds instead of the intervals that the questions are made from.
ANSWERS: dict[str, Callable[..., str]] = {
    "How many sounds were heard throughout the video?": lambda p: NUMBERS[len(everything(p, "heard"))],
    "Is there a <Object> sound?": lambda p, a: yes(bool(times(p, "heard", a))),
    "Is the <Object> louder than the <Object>?": lambda p, a, b: yes(level(p, a) > level(p, b)),
    "Is the <Object> playing longer than the <Object>?": lambda p, a, b: yes(
        len(times(p, "heard", a)) > len(times(p, "heard", b))
    ),
    "How many instruments appeared in the entire video?": lambda p: NUMBERS[
        sum(len(sides(p, label)) for label in everything(p, "seen"))
    ],
    "Is there a <Object> in the entire video?": lambda p, a: yes(bool(times(p, "seen", a))),
    "Where is the <Object>?": lambda p, a: "".join(sides(p, a)),
    "Is the sound of the <Object> from an instrument in the video?": lambda p, a: yes(
        bool(times(p, "seen", a) & times(p, "heard", a))
    ),
    "Is the <Object> in the video always playing?": lambda p, a: yes(
        times(p, "seen", a) <= times(p, "heard", a)
    ),
    "How many instruments in the video never sound?": lambda p: NUMBERS[len(p.instruments) - len(players(p))],
    "Where is the sounding instrument?": lambda p: sides(p, p.label)[
        [i.number for i in p.instruments if i.label == p.label].index(players(p).pop())
    ],
    "Is the <Object> seen longer than it is heard?": lambda p, a: yes(
        len(times(p, "seen", a)) > len(times(p, "heard", a))
    ),
    "What is the first sound that comes in?": lambda p: min(
        (min(times(p, "heard", label)), label) for label in everything(p, "heard")
    )[1],
    "Which comes first, the sound or the sight of the <Object>?": lambda p, a: (
        "sound" if min(times(p, "heard", a)) < min(times(p, "seen", a)) else "sight"
    ),
}


def test_answers_agree_with_what_each_second_holds(
    rows: list[dict[str, object]], programs: dict[str, Program]
) -> None:
    for row in rows:
        program, values = programs[row["video_id"]], json.loads(row["templ_values"])
        if row["question_content"] == "What is the instrument on the <LR> of <Object>?":
            (answered,), (named,) = sides(program, row["anser"]), sides(program, values[1])
            assert (answered, named) == (values[0], "right" if values[0] == "left" else "left")
            assert times(program, "seen", row["anser"]) & times(program, "seen", values[1])
        else:
            assert row["anser"] == ANSWERS[row["question_content"]](program, *values), (row, program)


def test_the_choice_of_questions_depends_on_the_seed_alone(programs: dict[str, Program]) -> None:
    members = list(programs.values())[:100]
    assert questions(members, 1) == questions(members, 1)
    assert questions(members, 1) != questions(members, 2)
    for _, group in groupby(questions(members, 1), key=lambda row: (row["split"], row["question_content"])):
        videos = [row["video_id"] for row in group]
        assert videos == sorted(videos)
