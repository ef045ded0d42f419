"""A media file that lies within another file, such as a member of a tar archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from avtune.media.errors import MediaError

COPY_AGAIN = "copy or download it again"


@dataclass(frozen=True, slots=True)
class FilePart:
    """A stretch of a file that is a whole file by itself, neither compressed nor encrypted.

    Attributes:
        archive: The file that holds it.
        name: What it is called there; nothing is ever opened or written by this name.
        offset: Where it begins, bytes.
        size: Its length, bytes.
        duration: Length of what it plays, seconds; ``None``: not known.
    """

    archive: Path
    name: str
    offset: int
    size: int
    duration: float | None = None

    @property
    def path(self) -> Path:
        """What messages call it: its name below the archive's."""
        return Path(f"{self.archive}/{self.name}")

    def read(self) -> bytes:
        """All of it.

        Raises:
            MediaError: The archive ends before it does, or cannot be read.
        """
        try:
            with self.archive.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise MediaError(
                self.archive, f"cannot be read ({error.strerror})", "check the path and its permissions"
            ) from None
        if len(content) < self.size:
            raise self.beyond_end()
        return content

    def beyond_end(self) -> MediaError:
        """The error for an archive that ends before this part does."""
        return MediaError(
            self.path, f"lies beyond the end of {self.archive.name}, which was cut off", COPY_AGAIN
        )


MediaFile: TypeAlias = str | Path | FilePart
"""Where a media file is."""


def shown_path(file: MediaFile) -> Path:
    """What messages call a file."""
    return file.path if isinstance(file, FilePart) else Path(file)
