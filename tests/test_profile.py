import json
from dataclasses import replace
from pathlib import Path

import pytest

from avtune.counting import count_parameters
from avtune.model import create_model
from avtune.profile import measure
from avtune.profile_all import ProfileRow, Refusal, grid_methods, profile_all, profile_grid
from avtune.recipes import parse_config, recipe_names, recipe_path
from avtune.recipes.published import agrees, published

ROOT = Path(__file__).parents[1]
LABELS = [f"label {k}" for k in range(28)]


@pytest.mark.parametrize(
    ("recipe", "trainable", "total"),
    [
        ("ave/lavish_vit_b", 4.645, 107.241),
        ("ave/lavish_vit_l", 14.458, 340.149),
        ("ave/lavish_swinv2_b", 4.951, 114.232),
        ("ave/lavish_swinv2_l", 10.036, 238.809),
    ],
)
@pytest.mark.parametrize("preset", ["official_ave", "paper"])
def test_weights_are_those_of_the_papers_table(
    recipe: str, trainable: float, total: float, preset: str
) -> None:
    encoder = parse_config(base=recipe_path(recipe)).encoder
    model = create_model(encoder.tower, labels=LABELS, preset=preset, device="meta")
    parameters = count_parameters(model.network)
    assert round(parameters.trainable / 1e6, 3) == trainable
    assert round(parameters.total_published / 1e6, 3) == total
    assert parameters.total == parameters.total_published - parameters.unused_head
    assert sum(parameters.parts.values()) == parameters.trainable


def test_multiply_adds_of_lavish_and_avish_are_those_of_the_paper() -> None:
    # Section 5.4: 11 against 217 "GFLOPs" of the adapters alone, which are multiply-adds per clip of ten segments.
    for recipe, gmacs in (("ave/lavish_swinv2_l", 11.3), ("ave/avish_swinv2_l", 216.9)):
        cost = measure(parse_config(base=recipe_path(recipe)), tuple(LABELS))
        assert cost.method_gmacs == pytest.approx(gmacs, abs=0.05)
        assert cost.saved_mib > cost.tower_saved_mib > 0


def test_time_is_measured_only_when_asked_for() -> None:
    config = parse_config(["--input.segments", "2", "--encoder.pretrained", "false"])
    assert measure(config, ("a", "b"), depth=1).seconds is None
    seconds = measure(config, ("a", "b"), depth=1, repeats=1).seconds
    assert seconds is not None
    assert seconds > 0


def test_the_summary_tells_weights_with_and_without_the_unused_head_and_multiply_adds() -> None:
    model = create_model("vit_base_patch16_224.augreg_in21k", labels=LABELS, device="meta")
    lines = dict(line.split("  ", 1) for line in model.summary().splitlines() if not line.startswith(" "))
    assert lines["trainable"].strip() == "4.645 M"
    assert lines["total"].strip() == "90.444 M"
    assert lines["total as published"].startswith("107.241 M")
    assert lines["multiply-adds"].strip() == "222.70 G per clip of 10 segments"


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, object]]:
    content = json.loads((ROOT / "benchmarks/results/profile_all.json").read_text(encoding="utf-8"))
    return {row["recipe"]: row for row in content["rows"]}


@pytest.mark.parametrize("name", recipe_names())
def test_weights_agree_with_the_printed_ones_or_the_table_says_why_not(
    name: str, recorded: dict[str, dict[str, object]]
) -> None:
    (row,) = profile_all([name], costs=False)
    printed, now = row.published, row.as_json()
    assert now == {field: recorded[name][field] for field in now}, (
        "run: avtune profile --all --json benchmarks/results/profile_all.json"
    )
    assert row.stands, f"{row.parameters.trainable} of {row.total}, printed {printed}"
    if printed is not None and printed.differs:
        # A reason without a difference would be one that nobody needs.
        assert not row.equals(printed)


def test_every_published_row_has_its_recipe() -> None:
    assert set(published()) <= set(recipe_names())
    assert {name for name in recipe_names() if name.startswith("ave/")} <= set(published())


@pytest.mark.parametrize(
    ("count", "printed", "expected"),
    [
        (10_036_000, "10.1", True),
        (10_150_000, "10.1", True),
        (10_151_000, "10.1", False),
        (10_000_001, "10.1", True),
        (10_000_000, "10.1", False),
        (3_530_400, "3.530", True),
        (171_000_001, "172", True),
        (172_600_000, "172", False),
    ],
)
def test_printed_numbers_are_compared_in_their_own_digits(count: int, printed: str, expected: bool) -> None:
    assert agrees(count, printed) is expected


def test_a_row_that_disagrees_without_reason_does_not_stand() -> None:
    (row,) = profile_all(["ave/lavish_vit_b"], costs=False)
    assert row.stands
    assert row.published is not None
    assert not replace(row, published=replace(row.published, trainable="4.9")).stands
    assert not replace(row, published=replace(row.published, total="107.4")).stands
    assert replace(row, published=replace(row.published, trainable="4.9", differs="a reason")).stands
    assert not replace(row, published=replace(row.published, trainable=None, total="107.4")).stands
    assert row.trainable_without_head + row.parameters.parts["head"] == row.parameters.trainable
    alone = replace(row.published, trainable="3.9", trained_with_head=False)
    assert replace(row, published=alone).stands
    for holds in ("nothing", "sound_stem"):
        assert not replace(row, published=replace(row.published, total_holds=holds)).stands


def test_methods_that_do_not_walk_a_tower_are_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("avtune.profile_all.GRID_TOWERS", {"Swin-V2-T": "swinv2_tiny_window8_256"})
    begun: list[str] = []
    found = list(profile_grid(costs=False, began=begun.append))
    assert len(begun) == len(found) == len(grid_methods())
    refused = {one.method: one.reason for one in found if isinstance(one, Refusal)}
    assert refused.keys() == {"ma_avt", "mbt"}
    assert "take a ViT" in refused["ma_avt"]
    counted = {one.method: one.trainable_without_head for one in found if isinstance(one, ProfileRow)}
    assert counted["frozen"] == 0
    assert all(count > 0 for method, count in counted.items() if method != "frozen")
