"""How an answer is shown: the card with its heat maps, the JSON file."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avtune.report import ShownClip, write_prediction
from avtune.report.answers import HOT, MAP_SIDE, answer_card, heat_map
from avtune.tasks import AnswerPrediction


def prediction_of(segments: int = 3, answers: tuple[str, ...] = ("yes", "no <b>", "two")) -> AnswerPrediction:
    grounding = np.full((segments, 2, 2), 0.25, dtype=np.float32)
    grounding[1] = [[0.55, 0.15], [0.15, 0.15]]
    frames = np.zeros((segments, 8, 8, 3), dtype=np.uint8)
    shares = np.array([0.2, 0.7, 0.1], dtype=np.float32)[: len(answers)]
    return AnswerPrediction(
        Path("clip.mp4"),
        answers,
        2.0,
        "Is there a <drum>?" if answers else "",
        shares,
        grounding,
        frames,
        notes=("no sound",),
    )


def pictures(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def test_the_card_tells_question_answer_truth_and_where_the_sound_was_looked_for(tmp_path: Path) -> None:
    html = answer_card(ShownClip("clip", prediction_of(), None, np.array([0, 65])), tmp_path, "h3").html
    assert "Is there a &lt;drum&gt;? <b>no &lt;b&gt;</b> 70.0% · true: yes" in html
    assert "from 0.60 (dark) to 2.20 (yellow) times an even spread over 2 × 2 cells" in html
    assert [label in html for label in ("0:00<", "0:02<", "0:04<", "no sound")] == [True] * 4
    shown = pictures(html)
    assert [picture.size for picture in shown] == [(MAP_SIDE, MAP_SIDE)] * 3
    # The strongest cell is the upper left one of the second.
    second = np.asarray(shown[1], dtype=int)
    assert second[10, 10].sum() > second[-10, -10].sum()
    assert second[10, 10, 0] > second[10, 10, 2]


def test_an_answer_unknown_in_training_and_a_run_without_answers_are_told(tmp_path: Path) -> None:
    html = answer_card(ShownClip("clip", prediction_of(), None, np.array([-1])), tmp_path, "").html
    assert "true: an answer that no training question has" in html
    html = answer_card(ShownClip("clip", prediction_of(answers=())), tmp_path, "").html
    assert "it answers no questions" in html
    assert len(pictures(html)) == 3


def test_of_a_long_file_the_first_segments_are_shown(tmp_path: Path) -> None:
    html = answer_card(ShownClip("clip", prediction_of(70)), tmp_path, "").html
    assert len(pictures(html)) == 60
    assert "The first 60 of 70 segments are shown" in html


@pytest.mark.parametrize(
    ("heat", "expected"), [(1.0, 0.45 * 100 + 0.55 * HOT), (0.0, np.full(3, 0.35 * 100))]
)
def test_heat_dims_what_is_not_looked_at_and_colours_what_is(heat: float, expected: np.ndarray) -> None:
    frame = np.full((4, 4, 3), 100, dtype=np.uint8)
    shown = np.asarray(heat_map(frame, np.full((2, 2), heat)), dtype=float)
    np.testing.assert_allclose(shown, np.broadcast_to(expected, shown.shape), atol=1)


def test_the_file_holds_question_answers_and_weights(tmp_path: Path) -> None:
    page = write_prediction(prediction_of(), tmp_path, "clip", {"Run": "x"})
    assert "data:image/png;base64," in page.read_text(encoding="utf-8")
    written = json.loads((tmp_path / "clip.json").read_text(encoding="utf-8"))
    assert written["question"] == "Is there a <drum>?"
    assert written["answers"][0] == {"answer": "no <b>", "probability": 0.7}
    assert np.array(written["grounding"]).shape == (3, 2, 2)
    assert written["notes"] == ["no sound"]
