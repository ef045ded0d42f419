"""The contrastive losses against their formulas, on one process and on two."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pretrain_contrast_driver as driver
import pytest
import torch

from avtune.pretrain.contrast import Contrast
from torchrun import run_on_two_processes


def test_two_processes_average_to_one_that_holds_all(tmp_path: Path) -> None:
    out = tmp_path / "means.json"
    run_on_two_processes(driver.__file__, out)
    for name, measured in json.loads(out.read_text()).items():
        alone, largest = driver.own_part(name, list(range(driver.CLIPS)))
        # Single precision; the gradient of the sum of 24 rows.
        assert measured["values"] == pytest.approx(alone.tolist(), rel=1e-4, abs=1e-5), name
        assert largest == driver.CLIPS**2
        assert measured["largest"] == len(driver.OWN[0]) * driver.CLIPS


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    audio = torch.randn(5, 4, generator=generator)
    return audio, audio + torch.randn(5, 4, generator=generator)


def cosines(audio: torch.Tensor, video: torch.Tensor) -> list[list[float]]:
    return [[float(a @ v / (a.norm() * v.norm())) for v in video] for a in audio]


@pytest.mark.parametrize("directions", ["both", "audio_to_video", "video_to_audio"])
def test_softmax_is_equation_1(features: tuple[torch.Tensor, torch.Tensor], directions: str) -> None:
    table = cosines(*features)
    transposed = [list(column) for column in zip(*table, strict=True)]
    losses = []
    for chosen, rows in (("audio_to_video", table), ("video_to_audio", transposed)):
        shares = [math.exp(row[i] / 0.1) / sum(math.exp(s / 0.1) for s in row) for i, row in enumerate(rows)]
        if directions in (chosen, "both"):
            losses.append(-sum(map(math.log, shares)) / len(rows))
    ours = Contrast("softmax", directions, 0.1)(*features)  # type: ignore[arg-type]
    assert float(ours.loss) == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    found = [max(row) == row[i] for rows in (table, transposed) for i, row in enumerate(rows)]
    assert float(ours.accuracy) == pytest.approx(sum(found) / len(found))


def test_sigmoid_judges_each_pair_by_itself(features: tuple[torch.Tensor, torch.Tensor]) -> None:
    losses = [
        math.log1p(math.exp(-(1 if i == j else -1) * (10 * cosine - 10)))
        for i, row in enumerate(cosines(*features))
        for j, cosine in enumerate(row)
    ]
    contrast = Contrast("sigmoid", "both", 0.05)
    loss = contrast(*features).loss
    assert float(loss.detach()) == pytest.approx(sum(losses) / 5, rel=1e-5)
    loss.backward()
    assert contrast.bias.grad is not None
    assert contrast.log_scale.grad is not None
    assert contrast.bias.grad != 0
    assert contrast.log_scale.grad != 0


def test_the_length_of_features_does_not_matter(features: tuple[torch.Tensor, torch.Tensor]) -> None:
    contrast = Contrast("softmax", "both", 0.05)
    torch.testing.assert_close(contrast(*features).loss, contrast(features[0] * 7, features[1] * 0.1).loss)
