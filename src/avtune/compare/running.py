"""Running a comparison: one run folder for each variant, rate and seed; what is finished is never run again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from avtune.compare.machine import source_commit
from avtune.compare.plan import Comparison, ComparisonError, at_rate
from avtune.config import RunConfig
from avtune.counting import count_parameters
from avtune.files import write_atomically
from avtune.model import CONFIG, AudioVisualModel
from avtune.recipes import to_yaml
from avtune.runs import Clips, RunObserver, blind_floors, fit_model, prepare_clips, read_collection
from avtune.train import evaluate
from avtune.train.log import read_log

ASKED = "asked.json"
RESULT = "result.json"
STATE = "state"


@dataclass(frozen=True)
class RunResult:
    """What one run of a comparison gave.

    Attributes:
        variant: Name of the variant.
        seed: Its seed.
        learning_rate: Rate of the method's weights.
        validation: Score on the validation split, that of the epoch whose weights were kept; ``None``: no such split.
        test: Score on the test split (where there is none: the validation split) with those weights.
        majority: Score of always giving the training clips' most frequent answer.
        score: Name of the score.
        trainable: Weights that were trained, head included.
        head: Those of the head.
        seconds: Time of the whole run.
        clips: Clips scored.
        damaged: Files that could not be read.
        commit: Commit of the code; ``None``: not known.
    """

    variant: str
    seed: int
    learning_rate: float
    validation: float | None
    test: float
    majority: float
    score: str
    trainable: int
    head: int
    seconds: float
    clips: int
    damaged: int
    commit: str | None


class CompareObserver(RunObserver):
    """Watches a comparison."""

    def running(self, variant: str, seed: int, rate: float, done: int, runs: int) -> None:
        """Run ``done`` of at most ``runs`` begins."""

    def ran(self, result: RunResult) -> None:
        """A run ended, now or in an earlier call."""

    def measuring(self, variant: str, done: int, variants: int) -> None:
        """What variant ``done`` of ``variants`` takes is about to be measured."""


def run_comparison(
    comparison: Comparison, folder: Path, observer: CompareObserver | None = None, only: Iterable[str] = ()
) -> list[RunResult]:
    """Run what is not finished yet; the same call goes on after a stop.

    Several processes may work on one folder at a time if each has variants of its own.

    Args:
        comparison: What to compare.
        folder: Where the runs go: ``<variant>/<rate>/seed_<seed>``.
        observer: Who watches.
        only: Variants to run; none: all.

    Returns:
        The results that count: for each variant and seed the one at the variant's rate.

    Raises:
        ComparisonError: The folder holds runs of another comparison, or there is no such variant.
        avtune.errors.AvtuneError: Something else is wrong that the user can mend.
    """
    observer = observer or CompareObserver()
    names = list(only) or list(comparison.variants)
    for name in names:
        # A mistake in the last variant should not show after hours.
        _sketch(comparison.variant(name))
    rates = len(comparison.learning_rates) or 1
    runs = len(names) * (rates - 1 + len(comparison.seeds))
    shelf = ClipShelf(observer)
    done = 0
    results = []
    for name in names:
        config = comparison.variant(name)
        first, *others = comparison.seeds
        tried = []
        for rate in comparison.learning_rates or (config.optimizer.lr,):
            observer.running(name, first, rate, done, runs)
            tried.append(_run(name, at_rate(config, rate), first, folder, shelf, observer))
            done += 1
        best = _best(name, tried)
        results.append(best)
        for seed in others:
            observer.running(name, seed, best.learning_rate, done, runs)
            results.append(_run(name, at_rate(config, best.learning_rate), seed, folder, shelf, observer))
            done += 1
    return results


def finished_results(
    comparison: Comparison, folder: Path
) -> tuple[list[RunResult], dict[str, dict[float, float]]]:
    """What a comparison's folder holds, finished or not.

    Returns:
        The results that count, of variants whose rate is settled, and for each such variant the validation scores of
        the rates that were tried.
    """
    results: list[RunResult] = []
    searches: dict[str, dict[float, float]] = {}
    for name, config in comparison.variants.items():
        rates = comparison.learning_rates or (config.optimizer.lr,)
        found = [_read(run_folder(folder, name, rate, comparison.seeds[0])) for rate in rates]
        tried = [result for result in found if result is not None]
        if len(tried) < len(rates):
            continue
        best = _best(name, tried)
        searches[name] = {run.learning_rate: run.validation for run in tried if run.validation is not None}
        others = [_read(run_folder(folder, name, best.learning_rate, seed)) for seed in comparison.seeds[1:]]
        results += [best, *(result for result in others if result is not None)]
    return results, searches


def variant_folder(folder: Path, variant: str) -> Path:
    """Where all of a variant's runs lie."""
    return folder / "".join(sign if sign.isalnum() or sign in "-_+." else "_" for sign in variant)


def run_folder(folder: Path, variant: str, rate: float, seed: int) -> Path:
    """Where a run of a comparison lies."""
    return variant_folder(folder, variant) / f"lr_{rate:g}" / f"seed_{seed}"


class ClipShelf:
    """Clips by what they are made of: variants that see the same tensors share them.

    Args:
        observer: Who watches the reading.
        training_clips: Keep only so many training clips, and nothing else; ``None``: all splits.
    """

    def __init__(self, observer: RunObserver, training_clips: int | None = None) -> None:
        self._observer, self._few = observer, training_clips
        self._shelf: dict[str, Clips] = {}

    def clips(self, config: RunConfig) -> Clips:
        """A configuration's clips, read where no earlier one saw the same."""
        seen = {
            "data": asdict(config.data),
            "input": _sketch(config).preprocessing.state(),
            "task": config.head.task,
        }
        key = json.dumps(seen, sort_keys=True)
        if key not in self._shelf:
            collection = read_collection(config, self._observer)
            if self._few is not None:
                collection = replace(collection, splits={"train": collection.splits["train"][: self._few]})
            model = _sketch(config, collection.labels, collection.words)
            # Only one kind is kept: two would take twice the memory.
            self._shelf = {key: prepare_clips(config, model, collection, self._observer)}
        return self._shelf[key]


def _sketch(
    config: RunConfig, labels: tuple[str, ...] = ("label",), words: tuple[str, ...] = ("word",)
) -> AudioVisualModel:
    """A configuration's model without memory: what it cannot be built of is refused, its preprocessing is known."""
    return AudioVisualModel(config, labels, words=words, device="meta")


def _run(
    variant: str, config: RunConfig, seed: int, folder: Path, shelf: ClipShelf, observer: CompareObserver
) -> RunResult:
    config = replace(config, train=replace(config.train, seed=seed, floors=False))
    place = run_folder(folder, variant, config.optimizer.lr, seed)
    _check_folder(place, config)
    result = _read(place)
    if result is None:
        result = _train(variant, config, seed, place, shelf.clips(config), observer)
        write_atomically(place / RESULT, json.dumps(asdict(result), indent=1).encode())
        # It would take more room than all else in the folder.
        shutil.rmtree(place / STATE, ignore_errors=True)
    observer.ran(result)
    return result


def _train(
    variant: str, config: RunConfig, seed: int, place: Path, clips: Clips, observer: CompareObserver
) -> RunResult:
    started = time.perf_counter()
    torch.manual_seed(seed)
    model = AudioVisualModel(config, clips.collection.labels, words=clips.collection.words)
    write_atomically(place / CONFIG, to_yaml(model.config).encode())
    damaged = fit_model(model, config, place, clips, observer)
    model.save(place)
    split = "test" if "test" in clips.splits else "validation"
    found = evaluate(model.network, model.task, clips.splits[split], batch_size=config.train.batch_size)
    if found.scores is None:
        raise ComparisonError(f"{clips.collection.root}: not one clip can be scored; run avtune check")
    parameters = count_parameters(model.network)
    log = read_log(place / "log.jsonl")
    validation = [row["validation"] for row in log if row["event"] == "epoch" and "validation" in row]
    return RunResult(
        variant, seed, config.optimizer.lr,
        max(validation, default=None),
        float(found.scores.value),
        blind_floors(model, clips, split).get("majority", 0.0),
        found.scores.name,
        parameters.trainable, parameters.parts["head"],
        round(time.perf_counter() - started, 1),
        found.clips, len({**damaged, **found.damaged}), source_commit(),
    )  # fmt: skip


def _best(variant: str, tried: list[RunResult]) -> RunResult:
    if len(tried) == 1:
        return tried[0]
    if any(result.validation is None for result in tried):
        raise ComparisonError(
            f"{variant}: learning rates are chosen on the validation split, and there is none; set "
            "data.validation_share or leave learning_rates out"
        )
    return max(tried, key=lambda result: result.validation or 0.0)


def _read(place: Path) -> RunResult | None:
    path = place / RESULT
    return RunResult(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _check_folder(place: Path, config: RunConfig) -> None:
    """A run that is there already must be of the same settings; where its clips lay may differ."""
    now = _settings(config)
    path = place / ASKED
    if not path.is_file():
        write_atomically(path, json.dumps(now, indent=1).encode())
        return
    was = json.loads(path.read_text(encoding="utf-8"))
    if differs := sorted(name for name in now.keys() | was.keys() if now.get(name) != was.get(name)):
        name = differs[0]
        raise ComparisonError(
            f"{place} holds a run with {name} {was.get(name)}, now it is {now.get(name)}; give another --out or "
            "remove that folder"
        )


def _settings(config: RunConfig) -> dict[str, Any]:
    """Every setting that makes a run what it is, by its dotted name."""
    content: Mapping[str, Mapping[str, Any]] = json.loads(json.dumps(asdict(config)))
    return {
        f"{section}.{name}": value
        for section, values in content.items()
        for name, value in values.items()
        if (section, name) not in (("data", "root"), ("data", "workers"), ("data", "cache"))
    }
