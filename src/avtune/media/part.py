"""A media file that lies within another file, such as a member of a tar archive."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from avtune.media.errors import MediaError

COPY_AGAIN = "copy or download it again"
BLOCK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class FilePart:
    """A stretch of a file that is a whole file by itself, neither compressed nor encrypted.

    Attributes:
        archive: The file that holds it.
        name: What it is called there; nothing is ever opened or written by this name.
        offset: Where it begins, bytes.
        size: Its length, bytes.
        duration: Length of what it plays, seconds; ``None``: not known.
        checksum: CRC-32 of its bytes; ``None``: not known.
    """

    archive: Path
    name: str
    offset: int
    size: int
    duration: float | None = None
    checksum: int | None = None

    @property
    def path(self) -> Path:
        """What messages call it: its name below the archive's."""
        return Path(f"{self.archive}/{self.name}")

    def read(self) -> bytes:
        """All of it.

        Raises:
            MediaError: The archive ends before it does, or cannot be read, or its bytes have another checksum.
        """
        return b"".join(self._blocks())

    def verify(self) -> None:
        """Compare its bytes with its checksum; where that is not known, nothing is read.

        Raises:
            MediaError: As for :meth:`read`.
        """
        if self.checksum is not None:
            for _ in self._blocks():
                pass

    def _blocks(self) -> Iterator[bytes]:
        """All of it, piece by piece; whether it was whole shows at the end."""
        left, found = self.size, 0
        try:
            with self.archive.open("rb") as file:
                file.seek(self.offset)
                while left:
                    block = file.read(min(left, BLOCK_BYTES))
                    if not block:
                        raise self.beyond_end()
                    left -= len(block)
                    if self.checksum is not None:
                        found = zlib.crc32(block, found)
                    yield block
        except OSError as error:
            raise MediaError(
                self.archive, f"cannot be read ({error.strerror})", "check the path and its permissions"
            ) from None
        if self.checksum not in (None, found):
            raise MediaError(self.path, "is damaged: its checksum is another", COPY_AGAIN)

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
