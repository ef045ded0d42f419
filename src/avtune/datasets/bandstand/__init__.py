"""Bandstand: the generated benchmark whose events must be both heard and seen (see ``docs/bandstand.md``)."""

from avtune.datasets.bandstand.collection import (
    VERSION,
    BandstandError,
    BandstandSummary,
    render_bandstand,
)
from avtune.datasets.bandstand.program import make_program
from avtune.datasets.bandstand.scene import CLASSES, Difficulty, Program

__all__ = [
    "CLASSES",
    "VERSION",
    "BandstandError",
    "BandstandSummary",
    "Difficulty",
    "Program",
    "make_program",
    "render_bandstand",
]
