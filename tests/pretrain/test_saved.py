"""A pretrained model on disk: read back bit for bit, and refused by one line where it is not whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avtune.config import AudioInput, InputConfig, PretrainingConfig
from avtune.pretrain.saved import (
    PREPROCESSING,
    WEIGHTS,
    PretrainedError,
    build_model,
    holds_pretrained,
    load_pretrained,
    read_pretrained,
    save_pretrained,
)
from avtune.transforms import Preprocessing

CONFIG = PretrainingConfig(
    "avsiam", "nano", depth=1, pretrained=False,
    options={"joint_blocks": 1, "decoder_depth": 1, "decoder_width": 16, "decoder_heads": 4},
)  # fmt: skip
INPUT = InputConfig(audio=AudioInput(preset="nano", placement="clip"))
PREPARED = Preprocessing.from_config(INPUT, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = build_model(CONFIG, PREPARED, pretrained=False)
    save_pretrained(tmp_path / "run", model.state_dict(), CONFIG, PREPARED)
    return tmp_path / "run"


def test_what_is_saved_is_read_back(folder: Path) -> None:
    found = read_pretrained(folder)
    assert (found.config, found.preprocessing) == (CONFIG, PREPARED)
    torch.manual_seed(0)
    fresh = build_model(CONFIG, PREPARED, pretrained=False).state_dict()
    kept = load_pretrained(folder).state_dict()
    assert kept.keys() == fresh.keys()
    assert all(torch.equal(kept[name], fresh[name]) for name in fresh)
    assert not found.model.training
    assert holds_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == [PREPROCESSING, WEIGHTS]


def other_weights(folder: Path) -> None:
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS)


def fewer_weights(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["decoder.mask_token"]
    save_pretrained(folder, weights, CONFIG, PREPARED)


def cut_short(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-10])


def other_size(folder: Path) -> None:
    state = json.loads((folder / PREPROCESSING).read_text())
    state["audio"]["steps"] = 128
    (folder / PREPROCESSING).write_text(json.dumps(state))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_weights, "is of no pretraining run"),
        (fewer_weights, "does not fit"),
        (cut_short, "damaged"),
        (other_size, "does not fit"),
        (lambda folder: (folder / PREPROCESSING).write_text("{"), "damaged"),
        (lambda folder: (folder / WEIGHTS).unlink(), "this is no finished pretraining run"),
    ],
    ids=["other run", "fewer weights", "cut short", "other size", "no json", "absent"],
)
def test_a_folder_that_is_not_whole_is_refused_by_one_line(
    folder: Path, change: Callable[[Path], object], words: str
) -> None:
    change(folder)
    with pytest.raises(PretrainedError, match=words) as caught:
        load_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_other_folders_hold_nothing_pretrained(folder: Path, tmp_path: Path) -> None:
    other_weights(folder)
    assert not holds_pretrained(folder)
    assert not holds_pretrained(tmp_path)
