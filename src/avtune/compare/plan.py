"""What a comparison compares: methods that differ in a few settings, everything else held equal."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from avtune.config import RunConfig
from avtune.errors import AvtuneError
from avtune.recipes import parse_config, recipe_path

FOLDER = Path(__file__).parent / "packaged"
FIELDS = ("base", "settings", "seeds", "learning_rates", "reference", "variants")
METHOD_SETTINGS = ("fusion", "preset", "options", "tuning", "tuning_preset", "tuning_options")
RATES = ("lr_gate", "lr_head", "lr_tower", "lr_joint")


class ComparisonError(AvtuneError):
    """A comparison that does not exist, is not well-formed or does not belong to its folder."""


@dataclass(frozen=True)
class Comparison:
    """Variants of one run, each trained with the same seeds.

    Attributes:
        name: What it is called.
        variants: Configuration of each variant by name; they differ in what is compared alone.
        seeds: Seeds that every variant is trained with, at least one.
        learning_rates: Rates tried for each variant with the first seed; the best on validation trains the other
            seeds. Empty: the configuration's own. A variant's other rates keep their ratio to ``optimizer.lr``.
        reference: Variant that the others are held against, seed by seed.
    """

    name: str
    variants: Mapping[str, RunConfig]
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...] = ()
    reference: str | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be run.

        Raises:
            ComparisonError: Nothing to compare, a seed or rate twice, or a reference that is no variant.
        """
        if not self.variants:
            raise ComparisonError(f"{self.name}: there is nothing to compare; name some variants")
        if not self.seeds:
            raise ComparisonError(f"{self.name}: no seeds; give at least one, better five")
        for what, values in (("seed", self.seeds), ("learning rate", self.learning_rates)):
            if len(set(values)) < len(values):
                raise ComparisonError(f"{self.name}: the same {what} twice; leave one out")
        if self.reference is not None:
            self.variant(self.reference)

    def variant(self, name: str) -> RunConfig:
        """A variant's configuration.

        Raises:
            ComparisonError: There is no such variant; the nearest name is given.
        """
        if name in self.variants:
            return self.variants[name]
        close = difflib.get_close_matches(name, self.variants, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(self.variants)}"
        raise ComparisonError(f"{self.name} has no variant {name!r}; {hint}")


def comparison_names() -> list[str]:
    """Names of the packaged comparisons."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_comparison(name: str, settings: Sequence[str] = ()) -> Comparison:
    """Read a comparison.

    Args:
        name: A packaged name or a YAML file. Its fields: ``base`` (a recipe), ``settings`` (over the base, for
            all variants), ``seeds``, ``learning_rates``, ``reference``, and ``variants``: settings by name. Where
            a variant has an ``encoder`` section, that states its method whole: the base's method, preset and
            options do not carry over.
        settings: ``--section.field value`` for all variants, over everything.

    Raises:
        ComparisonError: There is no such comparison, or the file has other fields or forms.
        avtune.recipes.ConfigError: A setting does not exist or does not fit.
    """
    path = FOLDER / f"{name}.yaml" if name in comparison_names() else Path(name)
    if not path.is_file():
        close = difflib.get_close_matches(name, comparison_names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"packaged are {', '.join(comparison_names())}"
        raise ComparisonError(f"no comparison is called {name!r}; {hint}, or give a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ComparisonError(f"{path}: not YAML ({' '.join(str(error).split())}); mend the file") from error
    if not isinstance(content, dict) or not isinstance(content.get("variants"), dict):
        raise ComparisonError(f"{path}: not a comparison; it must hold variants: with settings by name")
    if unknown := [field for field in content if field not in FIELDS]:
        raise ComparisonError(
            f"{path}: there is no field {unknown[0]!r}; a comparison has {', '.join(FIELDS)}"
        )
    base = yaml.safe_load(recipe_path(content["base"]).read_text("utf-8")) if content.get("base") else {}
    shared = merged(base, content.get("settings") or {})
    variants = {
        str(variant): parse_config(settings, _of_variant(shared, own or {}))
        for variant, own in content["variants"].items()
    }
    return Comparison(
        path.stem,
        variants,
        tuple(content.get("seeds") or (0,)),
        tuple(float(rate) for rate in content.get("learning_rates") or ()),
        content.get("reference"),
    )


def compare_methods(names: Sequence[str], seeds: Sequence[int], settings: Sequence[str] = ()) -> Comparison:
    """A comparison of methods by name, everything else at its default or as ``settings`` say.

    Args:
        names: ``fusion``, ``fusion:preset``, ``fusion+tuning`` or ``fusion:preset+tuning:preset``.
        seeds: Seeds of each.
        settings: ``--section.field value`` for all.

    Raises:
        avtune.recipes.ConfigError: A setting does not exist or does not fit.
    """
    variants = {name: parse_config(settings, {"encoder": _method(name)}) for name in names}
    return Comparison("methods", variants, tuple(seeds))


def at_rate(config: RunConfig, rate: float) -> RunConfig:
    """A configuration with another learning rate; the rates of single parts keep their ratio to it."""
    factor = rate / config.optimizer.lr
    scaled: dict[str, Any] = {"lr": rate}
    for name in RATES:
        if (value := getattr(config.optimizer, name)) is not None:
            scaled[name] = value * factor
    return replace(config, optimizer=replace(config.optimizer, **scaled))


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings as one; where both have a value, that of ``over`` holds."""
    result = deepcopy(dict(under))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else deepcopy(value)
    return result


def _of_variant(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    if "encoder" in own:
        kept = {k: v for k, v in shared.get("encoder", {}).items() if k not in METHOD_SETTINGS}
        shared = {**shared, "encoder": kept}
    return merged(shared, own)


def _method(name: str) -> dict[str, str]:
    found = {}
    for kind, part in zip(("fusion", "tuning"), name.split("+", 1), strict=False):
        method, _, preset = part.partition(":")
        found[kind] = method
        if preset:
            found["preset" if kind == "fusion" else "tuning_preset"] = preset
    return found
