"""Weights and multiply-adds of every packaged recipe, counted on the meta device (no weights, no data needed).

python benchmarks/recipe_costs.py     # writes benchmarks/results/recipe_costs.json
"""

from __future__ import annotations

import json
from pathlib import Path

from avtune.profile import measure
from avtune.recipes import parse_config, recipe_names, recipe_path

RESULT = Path(__file__).parent / "results" / "recipe_costs.json"
AVE_LABELS = 28


def main() -> None:
    labels = tuple(f"label {k}" for k in range(AVE_LABELS))
    recipes = {}
    for name in recipe_names():
        cost = measure(parse_config((), recipe_path(name)), labels)
        recipes[name] = {
            "trainable": cost.parameters.trainable,
            "parts": cost.parameters.parts,
            "total": cost.parameters.total,
            "total_published": cost.parameters.total_published,
            "tower_gmacs": round(cost.tower_gmacs, 3),
            "method_gmacs": round(cost.method_gmacs, 3),
            "saved_mib": round(cost.saved_mib, 1),
            "tower_saved_mib": round(cost.tower_saved_mib, 1),
        }
        print(name, recipes[name])
    RESULT.write_text(
        json.dumps({"labels": AVE_LABELS, "recipes": recipes}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
