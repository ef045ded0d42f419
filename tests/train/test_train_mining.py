"""Mismatched pairs reach the training and follow from the seed."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from made_up_clips import LABELS, MadeUpClips
from training_case import WITHOUT_BATCH_NORM, small_config, small_trainer

from avtune.train.log import read_log
from avtune.transforms import Batch, mine_foreground


def losses(folder: Path, **train: object) -> list[float]:
    config = small_config(WITHOUT_BATCH_NORM, epochs=1, **train)
    small_trainer(config, folder, MadeUpClips(8)).fit()
    return [row["loss"] for row in read_log(folder / "log.jsonl") if row["event"] == "step"]


def test_mined_pairs_change_the_run_and_repeat_with_its_seed(tmp_path: Path) -> None:
    off = losses(tmp_path / "off")
    mined = losses(tmp_path / "mined", mining="paper", mining_share=1.0)
    assert mined != off
    assert mined == losses(tmp_path / "again", mining="paper", mining_share=1.0)
    assert off == losses(tmp_path / "no_share", mining="paper", mining_share=0.0)


@pytest.mark.parametrize(("mining", "relabel_only"), [("paper", False), ("official", True)])
def test_the_loop_asks_for_what_the_recipe_states(tmp_path: Path, mining: str, relabel_only: bool) -> None:
    asked: list[dict[str, object]] = []

    def note(batch: Batch, share: float, **how: object) -> Batch:
        asked.append({"share": share, **how})
        return mine_foreground(batch, share, **how)  # type: ignore[arg-type]

    with patch("avtune.train.augmentation.mine_foreground", note):
        losses(tmp_path, mining=mining, mining_share=0.3, seed=5)
    assert len(asked) == 2
    for how in asked:
        assert how == {
            "share": 0.3, "background": len(LABELS), "relabel_only": relabel_only, "seed": 5, "epoch": 0
        }  # fmt: skip
