"""The one kind of error that reading or writing a media file raises."""

from pathlib import Path

from avtune.errors import AvtuneError


class MediaError(AvtuneError):
    """A media file cannot be read or written at all.

    Raised only where nothing usable can be had: partial damage is reported in
    :class:`avtune.media.Damage` instead. ``str(error)`` is one line, ``<path>: <problem>; <remedy>``.

    Attributes:
        path: The file.
        problem: What is wrong with it.
        remedy: What the user can do.
    """

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        # All three go to Exception.args, which is what pickling between worker processes restores from.
        super().__init__(path, problem, remedy)
        self.path = path
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        """The message on one line, whatever the path contains."""
        return " ".join(f"{self.path}: {self.problem}; {self.remedy}".splitlines())
