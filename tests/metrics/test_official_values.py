"""Scores against values that the datasets' own functions gave."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avtune.metrics.parsing import event_scores, runs, segment_scores
from avtune.metrics.retrieval import official_ranks, partner_ranks, retrieval_scores
from avtune.metrics.segmentation import MaskSums, f_curves, f_score, mask_ious
from avtune.metrics.semantic_segmentation import ClassSums

Values = dict[str, Any]


@pytest.fixture(scope="module")
def official(golden_dir: Path) -> Values:
    path = golden_dir / "data" / "metrics.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    values: Values = json.loads(path.read_text(encoding="utf-8"))
    return values


def close(value: float) -> Any:
    # The recorded sums were taken in float32.
    return pytest.approx(value, abs=1e-6)


def masks() -> dict[str, torch.Tensor]:
    empty = torch.zeros(1, 8, 8)
    half, quarter = empty.clone(), empty.clone()
    half[:, :, :4] = 1
    quarter[:, :4, :4] = 1
    return {"empty": empty, "half": half, "quarter": quarter, "full": torch.ones(1, 8, 8)}


def test_single_masks(official: Values) -> None:
    known = masks()
    for name, recorded in official["avs_single"].items():
        words = name.split("_")
        true, guess = ("half", "half") if name == "perfect" else (words[0], words[2])
        probabilities = torch.where(known[guess] > 0, 10.0, -10.0).sigmoid()
        assert mask_ious(probabilities, known[true])[0] == close(recorded["mask_iou"]), name
        assert f_score(*f_curves(probabilities, known[true])) == close(recorded["F"]), name


def test_random_masks_whole_and_video_by_video(official: Values) -> None:
    torch.manual_seed(0)
    probabilities = torch.randn(20, 8, 8).sigmoid()
    true = (torch.rand(20, 8, 8) > 0.6).float()
    true[3] = true[15:20] = 0
    recorded = official["avs_random"]
    assert mask_ious(probabilities, true).mean() == close(recorded["mask_iou_all20"])
    curves, sounding = f_curves(probabilities, true)
    assert f_score(curves, sounding) == close(recorded["F_all20"])
    videos = [MaskSums.of_video(probabilities[k : k + 5], true[k : k + 5]) for k in range(0, 20, 5)]
    assert [video.miou for video in videos] == [close(value) for value in recorded["mask_iou_per5"]]
    assert [video.f for video in videos] == [close(value) for value in recorded["F_per5"]]
    summed = MaskSums.from_array(np.sum([video.as_array() for video in videos], axis=0))
    assert summed.miou == close(recorded["mask_iou_all20"])
    assert summed.f == close(np.mean(recorded["F_per5"]))
    assert summed.pooled_f == close(recorded["F_all20"])


def test_semantic_masks(official: Values) -> None:
    torch.manual_seed(1)
    logits = torch.randn(4, 5, 8, 8)
    target = torch.randint(0, 3, (4, 8, 8))
    recorded = official["avss"]
    sums = ClassSums.of_frames(logits.argmax(1), target, 5)
    np.testing.assert_allclose(sums.iou, recorded["ious_sum"], atol=1e-6)
    np.testing.assert_allclose(sums.f, recorded["fscore_sum"], atol=1e-6)
    np.testing.assert_array_equal(sums.frames, recorded["cls_count"])
    assert sums.miou == pytest.approx(
        np.mean(np.array(recorded["ious_sum"]) / recorded["cls_count"]), abs=1e-6
    )


def test_video_parsing(official: Values) -> None:
    heard, seen, true_heard, true_seen = np.random.RandomState(0).rand(4, 25, 10) > 0.85
    recorded = official["llp"]
    for level, score in (("segment", segment_scores), ("event", event_scores)):
        found = score(heard, seen, true_heard, true_seen)
        values = [found.audio, found.video, found.event, found.audio_video]
        assert values == [close(value) for value in recorded[level]], level
    nothing = np.zeros((25, 10), dtype=bool)
    found = segment_scores(nothing, nothing, nothing, nothing)
    assert [found.audio, found.video, found.event, found.audio_video] == recorded["all_empty_segment"]
    example = recorded["event_example"]
    expected = [np.flatnonzero(run) for run in example["extract"]]
    assert runs(example["pred_row0"]) == [(int(run[0]), int(run[-1]) + 1) for run in expected]


def test_retrieval(official: Values) -> None:
    tables = {
        "rand20": np.random.RandomState(0).randn(20, 20),
        "all_ties_4x4": np.ones((4, 4)),
        "constant_row_ties": np.array([[1, 1, 0], [0, 1, 0], [1, 0, 1]]),
    }
    for name, recorded in official["retrieval"].items():
        scores = retrieval_scores(official_ranks(tables[name]))
        found = (scores.recall_at_1, scores.recall_at_5, scores.recall_at_10, scores.median_rank)
        assert found == tuple(close(recorded[key]) for key in ("R1", "R5", "R10", "MR")), name
    # Without ties both agree; with ties, a model that tells nothing apart finds nothing.
    assert np.array_equal(partner_ranks(tables["rand20"]), official_ranks(tables["rand20"]))
    assert retrieval_scores(partner_ranks(np.ones((4, 4)))).recall_at_1 == 0
