"""Questions: templates and their slots, words and answers by first appearance, and the real ones."""

import json
import string
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtune.datasets.question_text import (
    PAD,
    Vocabulary,
    answer_vocabulary,
    fill,
    parse_question,
    word_vocabulary,
)
from avtune.datasets.records import DatasetError, Question

WORDS = st.text(string.ascii_letters, min_size=1, max_size=8)


@given(st.lists(st.tuples(WORDS, st.booleans()), min_size=1, max_size=10))
def test_slots_are_filled_in_order_and_nothing_else_changes(parts: list[tuple[str, bool]]) -> None:
    template = " ".join("<Object>" if slot else word for word, slot in parts) + "?"
    values = [word for word, slot in parts if slot]
    for spaces in ("", " "):
        assert fill(template + spaces, values, "here") == tuple(word for word, _ in parts)
    with pytest.raises(DatasetError, match=r"here: .* has \d+ slots and templ_values \d+ values"):
        fill(template, [*values, "more"], "here")


def test_vocabularies_number_by_first_appearance() -> None:
    questions = [Question(("Is", "it", "a", "drum"), "yes"), Question(("Is", "a", "drum", "loud"), "no")]
    words, answers = word_vocabulary(questions), answer_vocabulary([*questions, questions[0]])
    assert words.names == (PAD, "Is", "it", "a", "drum", "loud")
    assert answers.names == ("yes", "no")
    assert words.encode(questions[1].words, 6) == [1, 3, 4, 5, 0, 0]
    assert questions[0].text == "Is it a drum?"


def test_what_is_not_known_is_one_line_with_the_nearest() -> None:
    words = Vocabulary((PAD, "piano", "violin"))
    with pytest.raises(
        DatasetError, match="q 3: word 'pianos' is not in the vocabulary; did you mean 'piano'"
    ):
        words.encode(["pianos"], where="q 3")
    with pytest.raises(DatasetError, match="the question has 3 words; shorten it to 2"):
        words.encode(["piano"] * 3, 2)
    with pytest.raises(
        DatasetError, match="answer 'xyz' is not in the vocabulary; there are 2, such as 'no'"
    ):
        Vocabulary(("yes", "no"), "answer").number("xyz")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "there is no question_content"),
        ({"question_content": "  "}, "there is no question_content"),
        ({"question_content": "Is it?", "type": '["Audio"]'}, "must name what the question is about"),
        ({"question_content": "Is it?", "templ_values": "[piano]"}, "write a JSON list of texts"),
        ({"question_content": "Is <Object>?", "templ_values": "[]"}, "has 1 slots and templ_values 0 values"),
        ({"question_content": "Is it?", "templ_values": "[1]"}, "write a JSON list of texts"),
        ({"question_content": "Is it?", "question_id": "q7"}, "question_id is 'q7'; write a whole number"),
        ({"question_content": "Is it?", "question_id": 7.5}, "question_id is 7.5; write a whole number"),
        ({"question_content": "Is it?", "question_id": -2}, "question_id is -2; write a whole number"),
        (
            {"question_content": "Is it?", "answer": {"a": 1}},
            r"the answer is {'a': 1}; write a text or a number",
        ),
        ({"question_content": "Is it?", "anser": True}, "the answer is True; write a text or a number"),
    ],
)
def test_a_question_that_cannot_be_read_says_why(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=f"avqa.json question 7: .*{message}") as caught:
        parse_question(row, "avqa.json question 7")
    assert "\n" not in str(caught.value)


def test_both_spellings_of_the_answer_are_read() -> None:
    for key in ("anser", "answer"):
        row = {"question_content": "Where is it? ", "type": ["Visual", "Location"], key: "indoor"}
        question = parse_question(row, "")
        assert (question.words, question.answer) == (("Where", "is", "it"), "indoor")
        assert question.kind == ("Visual", "Location")


@pytest.mark.parametrize("nothing", [{}, {"anser": None}, {"answer": None}, {"anser": ""}])
def test_a_missing_answer_is_no_answer_and_takes_no_number(nothing: dict[str, Any]) -> None:
    row = {"question_content": "Is it?", "question_id": None}
    unanswered = parse_question({**row, **nothing}, "")
    assert (unanswered.answer, unanswered.identity) == ("", -1)
    numbers = [parse_question({**row, "answer": answer}, "") for answer in ("yes", 2, 2.5)]
    assert answer_vocabulary([unanswered, *numbers]).names == ("yes", "2", "2.5")


def test_the_real_questions(annotations_dir: Path) -> None:
    folder = annotations_dir / "music_avqa"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    for path in sorted(folder.glob("avqa-*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))
        questions = [parse_question(row, f"{path.name} question {row['question_id']}") for row in rows]
        listed = (folder / "ques_vocab.txt").read_text(encoding="utf-8").split("\n")
        # The file holds the list twice.
        words = Vocabulary(tuple(dict.fromkeys(filter(None, listed))))
        answers = Vocabulary(
            tuple(filter(None, (folder / "ans_vocab.txt").read_text(encoding="utf-8").split("\n"))), "answer"
        )
        assert (len(words), len(answers)) == (93, 42)
        for question in questions:
            assert len(words.encode(question.words)) == 14
            answers.number(question.answer)
        if path.name == "avqa-val.json":
            assert len(questions) == 4595
            assert len({question.template for question in questions}) == 33
            assert len(Counter(question.kind for question in questions)) == 9
