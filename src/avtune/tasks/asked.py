"""What a person types as a question, in a run's words."""

from __future__ import annotations

import difflib
import string
from collections.abc import Sequence

from avtune.datasets.question_text import PAD
from avtune.errors import AvtuneError

EXAMPLES = (
    "How many instruments are sounding in the video",
    "How many sounds were heard throughout the video",
    "Is there a drum sound",
)
SHOWN = 13
MARKS = "?\N{FULLWIDTH QUESTION MARK}.!"


def typed_words(question: str) -> list[str]:
    """The words of a person's question, without the marks at its end; none where nothing is asked."""
    return question.rstrip(MARKS + string.whitespace).split()


def spoken_words(question: str, words: Sequence[str]) -> list[str]:
    """A question in words that a run knows.

    Capitals do not matter: a word is taken as typed where the run knows it so, except that the first is taken as
    training questions begin.

    Args:
        question: What a person asks; the question mark may be left out.
        words: The run's words.

    Raises:
        AvtuneError: A word is unknown; the nearest known ones are given.
    """
    spellings: dict[str, list[str]] = {}
    for word in words:
        if word != PAD:
            spellings.setdefault(word.casefold(), []).append(word)
    found = []
    for place, word in enumerate(typed_words(question)):
        known = spellings.get(word.casefold())
        if known is None:
            near = difflib.get_close_matches(word.casefold(), spellings, n=3, cutoff=0.5)
            nearest = ", ".join(spellings[one][0] for one in near) or ", ".join(words[1:6])
            raise AvtuneError(f"this run knows no word {word!r}; the nearest that it knows: {nearest}")
        wanted = word[:1].upper() + word[1:] if place == 0 else word
        found.append(next((one for one in (wanted, word) if one in known), known[0]))
    return found


def example_question(words: Sequence[str]) -> str:
    """What to show to one who asked nothing.

    Args:
        words: A run's words, ``<pad>`` first.

    Returns:
        A question that the run can read; where none of those of the public datasets is, some of its words.
    """
    known = set(words)
    for example in EXAMPLES:
        if known.issuperset(example.split()):
            return f'--question "{example}?"'
    return f"--question with words that it knows: {', '.join(words[1:SHOWN])}"
