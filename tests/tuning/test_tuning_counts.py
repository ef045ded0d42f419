"""Weights of every tuning on the papers' towers: the table of its page, and the rows of LAVISH's Table 5."""

import re
from pathlib import Path

import pytest
from tuning_cases import EVERY

from avtune.config import EncoderConfig, RunConfig
from avtune.counting import count_parameters
from avtune.encoder import create_encoder
from avtune.model import AudioVisualModel
from avtune.tuning import TuningError

PAGE = Path(__file__).resolve().parents[2] / "docs/methods/tuning.md"
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| ([\d.]+|refused) \| ([\d.]+|refused) \|$", re.MULTILINE)
SWIN, VIT = "swinv2_large_window12_192.ms_in22k", "vit_base_patch16_224.augreg_in21k"
# The authors' head: 3072 channels of both streams to 512 to 29 classes.
HEAD = 3072 * 512 + 512 + 512 * 29 + 29


def weights_of(tower: str, tuning: str | None, preset: str | None, fusion: str = "frozen") -> int:
    config = EncoderConfig(tower=tower, fusion=fusion, tuning=tuning, tuning_preset=preset)
    encoder = create_encoder(config, device="meta")
    return sum(weight.numel() for weight in encoder.parameters() if weight.requires_grad)


def test_the_page_lists_every_preset_once() -> None:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert [(name, preset) for name, preset, _, _ in rows] == EVERY


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_the_page_tells_the_weights(name: str, preset: str) -> None:
    rows = {row[:2]: row[2:] for row in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    for tower, printed in zip((SWIN, VIT), rows[name, preset], strict=True):
        if printed == "refused":
            with pytest.raises(TuningError):
                weights_of(tower, name, preset)
        else:
            assert f"{weights_of(tower, name, preset) / 1e6:.3f}" == printed


@pytest.mark.parametrize(
    ("tuning", "preset", "fusion", "head", "millions"),
    [
        # Facts of the authors' modules, with their head.
        ("adapter", "lavish_table_5_lora", "frozen", HEAD, "17.744"),
        ("compacter", "lavish_table_5", "frozen", HEAD, "3.726"),
        ("prompts", "lavish_table_5", "frozen", 0, "1.155"),
        ("adapter", "lavish", "frozen", HEAD, "9.892"),
        ("adapter", "lavish", "cma", HEAD, "10.036"),
        # With a head of one stream: 1536 to 512 to 29.
        ("adapter", "lavish_table_5", "frozen", HEAD - 1536 * 512, "8.943"),
    ],
)
def test_lavishs_table_5(tuning: str, preset: str, fusion: str, head: int, millions: str) -> None:
    assert f"{(weights_of(SWIN, tuning, preset, fusion) + head) / 1e6:.3f}" == millions


def test_lavish_is_its_attention_and_its_bottleneck_in_weights_too() -> None:
    assert weights_of(SWIN, None, None, "lavish") == weights_of(SWIN, "adapter", "lavish", "cma")


@pytest.mark.parametrize(("tuning", "heads"), [("norms", 1), ("full", 2)])
def test_a_copy_of_the_norms_alone_brings_no_second_class_head(tuning: str, heads: int) -> None:
    config = RunConfig(encoder=EncoderConfig(tower=VIT, fusion="frozen", tuning=tuning))
    parameters = count_parameters(AudioVisualModel(config, ("bell",), device="meta").network)
    assert parameters.unused_head == heads * (768 * 21843 + 21843)
    assert parameters.parts["method"] == 0
    assert parameters.parts["towers"] > 0
