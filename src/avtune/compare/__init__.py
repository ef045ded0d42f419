"""Methods under one ruler: the same data, head, schedule and seeds."""

from avtune.compare.cost import Cost, finished_costs, measure_costs
from avtune.compare.figure import comparison_png
from avtune.compare.machine import processor_name, source_commit
from avtune.compare.plan import (
    Comparison,
    ComparisonError,
    compare_methods,
    comparison_names,
    read_comparison,
)
from avtune.compare.running import CompareObserver, RunResult, finished_results, run_comparison
from avtune.compare.summary import Interval, Row, as_json, from_json, interval, markdown, summarise

__all__ = [
    "CompareObserver",
    "Comparison",
    "ComparisonError",
    "Cost",
    "Interval",
    "Row",
    "RunResult",
    "as_json",
    "compare_methods",
    "comparison_names",
    "comparison_png",
    "finished_costs",
    "finished_results",
    "from_json",
    "interval",
    "markdown",
    "measure_costs",
    "processor_name",
    "read_comparison",
    "run_comparison",
    "source_commit",
    "summarise",
]
