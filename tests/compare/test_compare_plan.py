"""Comparisons as files and by name."""

from pathlib import Path

import pytest

from avtune.compare import Comparison, ComparisonError, compare_methods, comparison_names, read_comparison
from avtune.compare.plan import at_rate, merged
from avtune.config import OptimizerConfig, RunConfig
from avtune.recipes import ConfigError

FILE = """
base: bandstand/lavish_nano
settings:
  train: {epochs: 2}
seeds: [3, 4]
learning_rates: [0.01, 1e-3]
reference: plain
variants:
  plain: {encoder: {fusion: lavish, options: {direction: none}}}
  one latent: {encoder: {fusion: lavish, preset: official_ave, options: {latents: 1}}, train: {epochs: 3}}
  as the base:
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_gives_variants_that_differ_in_what_is_compared_alone(tmp_path):
    found = read_comparison(written(tmp_path, FILE), ["--data.root=clips"])
    assert found.name == "mine"
    assert found.seeds == (3, 4)
    assert found.learning_rates == (0.01, 0.001)
    assert found.reference == "plain"
    plain, one, base = found.variants.values()
    assert (plain.encoder.options, plain.encoder.preset, plain.train.epochs) == (
        {"direction": "none"},
        None,
        2,
    )
    assert (one.encoder.options, one.encoder.preset, one.train.epochs) == ({"latents": 1}, "official_ave", 3)
    assert (base.encoder.fusion, base.encoder.tower, base.encoder.options) == ("lavish", "nano", {})
    for config in found.variants.values():
        assert (config.data.root, config.optimizer.lr, config.head.hidden) == ("clips", 0.003, 128)


def test_a_variants_method_is_stated_whole(tmp_path):
    text = FILE.replace("train: {epochs: 2}", "encoder: {fusion: lavish, options: {latents: 7}}")
    plain, _, base = read_comparison(written(tmp_path, text)).variants.values()
    assert plain.encoder.options == {"direction": "none"}
    assert base.encoder.options == {"latents": 7}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds: [3, 4]", "seeds: [3, 3]"), "the same seed twice"),
        (("reference: plain", "reference: plane"), "did you mean 'plain'"),
        (("reference: plain", "colour: red"), "no field 'colour'"),
        (
            ("base: bandstand/lavish_nano", "base: bandstand/lavish_nno"),
            "did you mean 'bandstand/lavish_nano'",
        ),
        (("epochs: 2", "epoch: 2"), "did you mean 'train.epochs'"),
        (("variants:", "variance:"), "it must hold variants"),
        (("[3, 4]", "[3, 4"), "not YAML"),
    ],
)
def test_files_with_mistakes_are_refused_in_one_line(tmp_path, change, message):
    with pytest.raises((ComparisonError, ConfigError), match=message) as caught:
        read_comparison(written(tmp_path, FILE.replace(*change)))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_with_the_nearest():
    for name in comparison_names():
        assert read_comparison(name).variants
    with pytest.raises(ComparisonError, match="did you mean 'bandstand_nano'"):
        read_comparison("bandstand_nan")


def test_methods_by_name():
    found = compare_methods(["lavish:official_ave", "frozen"], [0, 1], ["--train.epochs=7"])
    assert list(found.variants) == ["lavish:official_ave", "frozen"]
    first, second = found.variants.values()
    assert (first.encoder.fusion, first.encoder.preset) == ("lavish", "official_ave")
    assert (second.encoder.fusion, second.encoder.preset) == ("frozen", None)
    assert first.train.epochs == second.train.epochs == 7


@pytest.mark.parametrize("empty", [{"variants": {}}, {"seeds": ()}])
def test_nothing_to_compare_is_refused(empty):
    with pytest.raises(ComparisonError):
        Comparison(**{"name": "none", "variants": {"a": RunConfig()}, "seeds": (0,), **empty})


def test_rates_keep_their_ratio():
    config = at_rate(RunConfig(optimizer=OptimizerConfig(lr=0.003, lr_gate=0.03, lr_head=0.0003)), 0.01)
    rates = config.optimizer
    assert (rates.lr, rates.lr_tower) == (0.01, None)
    assert (rates.lr_gate, rates.lr_head) == pytest.approx((0.1, 0.001))


def test_merging_leaves_both_as_they_were():
    under, over = {"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 3}, "d": {"e": 1}}
    result = merged(under, over)
    assert result == {"a": {"b": 3, "c": [1]}, "d": {"e": 1}}
    result["a"]["c"].append(2)
    assert under == {"a": {"b": 1, "c": [1]}, "d": 2}
    assert over == {"a": {"b": 3}, "d": {"e": 1}}
