"""What the papers report for the rows that recipes rebuild."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

FILE = Path(__file__).parent / "published.yaml"


@dataclass(frozen=True)
class Published:
    """A row of a paper's table.

    Attributes:
        paper: Name of the paper by its method.
        table: The table, as the paper numbers it.
        accuracy: Score, % of segments (AVE) or of clips; mIoU, % (AVSBench).
        trainable: Weights trained, millions, digit for digit as printed; ``None``: not told.
        total: All weights, millions, as printed; ``None``: not told.
        trained_with_head: Whether ``trainable`` holds the task head.
        total_holds: What ``total`` holds beside all that avtune builds: ``class_heads``, the classifiers that the
            towers were pretrained with and nothing uses; ``sound_stem``, a second copy of the tower's first weights
            for the sound; ``nothing``.
        differs: Why avtune's numbers are others; empty where they agree in every printed digit.
    """

    paper: str
    table: str
    accuracy: float | None = None
    trainable: str | None = None
    total: str | None = None
    trained_with_head: bool = True
    total_holds: Literal["class_heads", "sound_stem", "nothing"] = "class_heads"
    differs: str = ""

    @property
    def counted(self) -> bool:
        """Whether a number of weights is printed."""
        return self.trainable is not None or self.total is not None

    @property
    def weights(self) -> str:
        """Trained of total, as printed, in millions; empty where neither is."""
        return f"{self.trainable or '?'} of {self.total or '?'}" if self.counted else ""

    @property
    def source(self) -> str:
        """Paper and table in words."""
        return f"{self.paper}, {self.table}"


@cache
def published() -> dict[str, Published]:
    """Published rows by the name of the recipe that rebuilds them."""
    content: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {name: Published(**row) for name, row in content.items()}


def agrees(count: int, printed: str) -> bool:
    """Whether a number of weights, rounded to the nearest or up, gives the digits that a paper printed.

    Args:
        count: Weights.
        printed: Millions as printed, such as ``10.1``.
    """
    value = Decimal(printed)
    unit = Decimal(1).scaleb(int(value.as_tuple().exponent))
    return -unit / 2 <= value - Decimal(count) / 1_000_000 < unit
