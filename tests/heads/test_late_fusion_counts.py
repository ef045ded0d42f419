"""Numbers of weights, as published, from shapes alone."""

import re

import pytest
import torch
from encoded_streams import streams

from avtune.config import HeadConfig
from avtune.counting import count_parameters
from avtune.heads import HEADS
from avtune.model import AudioVisualModel
from avtune.recipes import parse_config, recipe_path

VGGISH = 128


@pytest.mark.parametrize(
    ("name", "video_dim", "published", "trained"),
    [
        ("avel", 512, 1_335_246, 1_335_246),
        ("avel", 2048, 3_694_542, 3_694_542),
        ("psp", 512, 1_667_251, 1_548_657),
        ("cmbs", 512, 13_544_537, 9_200_473),
        ("cmbs", 1536, 14_068_825, 9_724_761),
        ("cmbs", 2048, 14_330_969, 9_986_905),
    ],
)
@pytest.mark.parametrize("preset", ["paper", "official"])
def test_weights_with_those_that_the_authors_hold_unused_are_the_published_number(
    name: str, video_dim: int, published: int, trained: int, preset: str
) -> None:
    with torch.device("meta"):
        head = HEADS[name].build(VGGISH, video_dim, 29, HeadConfig(name=name, preset=preset))
    count = sum(weight.numel() for weight in head.parameters() if weight.requires_grad)
    assert count == trained
    assert count + head.unused_parameters == published


def test_the_published_millions_follow() -> None:
    rounded = []
    for name, video_dim in (("avel", 2048), ("psp", 512), ("cmbs", 2048), ("cmbs", 1536)):
        with torch.device("meta"):
            head = HEADS[name].build(VGGISH, video_dim, 29, HeadConfig(name=name))
        count = sum(weight.numel() for weight in head.parameters()) + head.unused_parameters
        rounded.append(round(count / 1e6, 1))
    # Table 1 of LAVISH: AVEL, PSP, CMBS on Swin-V2-L. CMBS on ResNet-152 is listed at 14.4; its code has 14.331.
    assert rounded == [3.7, 1.7, 14.3, 14.1]


@pytest.mark.parametrize("name", ["avel", "psp", "cmbs"])
def test_heads_run_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        head = HEADS[name].build(768, 1024, 29, HeadConfig(name=name))
    logits = head(streams(2, 10, 7, 768, 1024, device="meta"))
    assert logits.shape == (2, 10, 29)


@pytest.mark.parametrize("name", ["avel", "psp", "cmbs"])
def test_recipes_state_what_they_build(name: str) -> None:
    path = recipe_path(f"ave/{name}_swinv2_l")
    comment = " ".join(line[2:] for line in path.read_text().splitlines() if line.startswith("# "))
    stated = re.search(r"here ([\d.]+) M of ([\d.]+) M", comment)
    assert stated is not None
    model = AudioVisualModel(parse_config(base=path), tuple(map(str, range(28))), device="meta")
    counted = count_parameters(model.network)
    assert stated[1] == f"{counted.trainable / 1e6:.3f}"
    assert stated[2] == f"{counted.total_published / 1e6:.3f}"
    assert counted.trainable == counted.parts["head"]
