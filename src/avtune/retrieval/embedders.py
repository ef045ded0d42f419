"""What turns a file into vectors: the one thing that indexing and searching ask of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FileVectors:
    """Where the windows of a file lie in the space that is searched.

    Attributes:
        starts: Where each window begins in the file, seconds (windows,).
        ends: Where it ends; the last one with the file, to a segment (windows,).
        sound: Vector of each window's sound (windows, width), of unit length; ``None``: the file has none.
        picture: Vector of each window's frames, likewise.
        notes: What a person should know of the file, such as damage.
    """

    starts: Floats
    ends: Floats
    sound: Floats | None
    picture: Floats | None
    notes: tuple[str, ...] = ()


class Embedder(Protocol):
    """A model that gives vectors of sound and of frames which can be compared with each other.

    Attributes:
        run: Folder of the run that it was loaded from.
        fingerprint: Names what it computes: vectors of equal fingerprints can be compared.
        width: Length of a vector.
    """

    run: Path
    fingerprint: str
    width: int

    def embed(self, path: Path, advanced: Callable[[int], None] | None = None) -> FileVectors:
        """The vectors of a video, sound or picture of any length, window by window.

        Args:
            path: The file.
            advanced: Called with the number of windows done since the last call.

        Raises:
            avtune.media.MediaError: The file cannot be read.
        """
        ...
