"""What the loop tells whoever watches it."""

from __future__ import annotations

from typing import Any


class Observer:
    """Watches a run; does nothing by itself. The command line shows progress bars through one."""

    def started(self, step: int, steps: int) -> None:
        """Training starts (or goes on) at ``step`` of ``steps``."""

    def stepped(self, row: dict[str, Any]) -> None:
        """An update was made; ``row`` is what the log holds of it."""

    def evaluated(self, row: dict[str, Any]) -> None:
        """An epoch ended; ``row`` is what the log holds of it."""

    def message(self, text: str) -> None:
        """Something that a user should read."""
