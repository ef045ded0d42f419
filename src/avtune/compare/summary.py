"""From runs to statements: means with intervals, and what each variant gains over a reference."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import t as student

from avtune.compare.cost import Cost
from avtune.compare.running import RunResult


@dataclass(frozen=True)
class Interval:
    """A mean and how far it can be trusted.

    Attributes:
        mean: Mean over the seeds.
        half_width: Half of the 95 % interval of the mean by Student's t distribution; ``None`` with one seed.
        count: Number of seeds.
    """

    mean: float
    half_width: float | None
    count: int

    @property
    def low(self) -> float:
        """Lower end, the mean itself with one seed."""
        return self.mean - (self.half_width or 0.0)

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + (self.half_width or 0.0)


@dataclass(frozen=True)
class Row:
    """A variant, over its seeds.

    Attributes:
        variant: Its name.
        learning_rate: Rate of the method's weights.
        score: Test score.
        gain: Score less the reference's with the same seed; ``None``: no reference, or no seed in common.
        verdict: ``better``, ``worse`` (the interval of ``gain`` leaves out zero), ``not told apart``, or ``reference``;
            empty without a reference.
        trainable: Weights that are trained, head included.
        method: Those of the method.
        cost: Memory and time of training; ``None``: not measured yet.
        seeds: Test score by seed.
        rates: Validation score by learning rate, of the seed that chose it.
    """

    variant: str
    learning_rate: float
    score: Interval
    gain: Interval | None
    verdict: str
    trainable: int
    method: int
    cost: Cost | None
    seeds: dict[int, float]
    rates: dict[float, float]


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval of independent values.

    Args:
        values: At least one.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None, len(values))
    quantile = float(student.ppf(0.975, len(values) - 1))
    return Interval(mean, quantile * statistics.stdev(values) / math.sqrt(len(values)), len(values))


def summarise(
    results: Sequence[RunResult],
    reference: str | None = None,
    searches: Mapping[str, Mapping[float, float]] | None = None,
    costs: Mapping[str, Cost] | None = None,
) -> list[Row]:
    """One row for each variant, the best first.

    Args:
        results: One for each variant and seed.
        reference: Variant that the others are held against, seed by seed: what the seeds share (order of the clips,
            initial head) then does not widen the interval.
        searches: Validation score by learning rate, by variant.
        costs: Memory and time, by variant.
    """
    by_variant: dict[str, list[RunResult]] = {}
    for result in results:
        by_variant.setdefault(result.variant, []).append(result)
    against = {result.seed: result.test for result in by_variant.get(reference or "", [])}
    rows = []
    for name, runs in by_variant.items():
        gains = [run.test - against[run.seed] for run in runs if run.seed in against]
        gain = interval(gains) if gains and name != reference else None
        rows.append(
            Row(
                variant=name,
                learning_rate=runs[0].learning_rate,
                score=interval([run.test for run in runs]),
                gain=gain,
                verdict="reference" if name == reference else _verdict(gain),
                trainable=runs[0].trainable,
                method=runs[0].trainable - runs[0].head,
                cost=(costs or {}).get(name),
                seeds={run.seed: run.test for run in runs},
                rates=dict((searches or {}).get(name, {})),
            )
        )
    return sorted(rows, key=lambda row: -row.score.mean)


def as_json(rows: Sequence[Row], **facts: Any) -> dict[str, Any]:
    """Rows and whatever else is to be known of them (command, machine, versions), JSON-able."""
    return {**facts, "rows": [asdict(row) for row in rows]}


def from_json(content: Mapping[str, Any]) -> list[Row]:
    """The rows that :func:`as_json` wrote."""
    return [_row(row) for row in content["rows"]]


def markdown(rows: Sequence[Row]) -> str:
    """The table, for documents."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEADINGS, ["---"] * len(HEADINGS))]
    lines += ["| " + " | ".join(cells_of(row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


HEADINGS = (
    "method", "score, %", "over the reference, points", "trained", "of these the head", "kept for backward, MiB",
    "peak memory, MiB", "ms per step", "learning rate", "seeds",
)  # fmt: skip


def cells_of(row: Row) -> list[str]:
    """A row as text, in the order of ``HEADINGS``."""
    gain = row.verdict
    if row.gain is not None:
        gain = (
            f"{written(row.gain, signed=True)}: {row.verdict}"
            if row.verdict
            else written(row.gain, signed=True)
        )
    return [
        row.variant,
        written(row.score),
        gain,
        f"{row.trainable / 1e6:.3f} M",
        f"{(row.trainable - row.method) / 1e6:.3f} M",
        *_costs(row.cost),
        f"{row.learning_rate:g}",
        str(row.score.count),
    ]


def written(value: Interval, *, signed: bool = False) -> str:
    """Mean and half width in percent: ``64.2 ± 3.1``."""
    mean = f"{100 * value.mean:+.1f}" if signed else f"{100 * value.mean:.1f}"
    return mean if value.half_width is None else f"{mean} ± {100 * value.half_width:.1f}"


def _costs(cost: Cost | None) -> list[str]:
    if cost is None:
        return ["", "", ""]
    peak = "" if cost.peak_mib is None else f"{cost.peak_mib:.0f}"
    return [f"{cost.saved_mib:.0f}", peak, f"{1000 * cost.seconds_per_step:.0f}"]


def _verdict(gain: Interval | None) -> str:
    if gain is None:
        return ""
    if gain.half_width is None:
        return "one seed only"
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "not told apart"


def _row(content: Mapping[str, Any]) -> Row:
    gain, cost = content["gain"], content["cost"]
    return Row(**{
        **content,
        "score": Interval(**content["score"]),
        "gain": None if gain is None else Interval(**gain),
        "cost": None if cost is None else Cost(**cost),
        "seeds": {int(seed): value for seed, value in content["seeds"].items()},
        "rates": {float(rate): value for rate, value in content["rates"].items()},
    })  # fmt: skip
