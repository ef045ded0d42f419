"""The JSON file of an answer: what every kind of prediction tells, around its own content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from avtune.report.timeline import FORMAT_VERSION
from avtune.tasks import Prediction


def write_answer_json(path: Path, prediction: Prediction, content: Mapping[str, object]) -> None:
    """Write a prediction's own content between what every prediction's file holds."""
    whole = {
        "format": FORMAT_VERSION, "file": prediction.path.name, **content, "notes": list(prediction.notes)
    }  # fmt: skip
    path.write_text(json.dumps(whole, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")
