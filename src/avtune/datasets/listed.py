"""What readers share: where a list lies, rows of a CSV file, and where a clip's media lie."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from avtune.datasets.records import VIDEO_SUFFIXES, DatasetError, FrameFolder, file_name


def csv_rows(path: Path, fields: int) -> Iterator[tuple[list[str], str]]:
    """The rows of a CSV file without a header.

    Args:
        path: UTF-8; empty lines and lines that begin with ``#`` are skipped.
        fields: Fields that each row has to have.

    Yields:
        The fields, stripped, and where they stand (``train.csv line 3``).

    Raises:
        DatasetError: The file is unreadable or a row has another number of fields; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as UTF-8 text ({error}); restore the file") from None
    reader = csv.reader(text.splitlines(), skipinitialspace=True)
    try:
        for row in reader:
            where = f"{path.name} line {reader.line_num}"
            if not row or row[0].startswith("#"):
                continue
            if len(row) != fields:
                raise DatasetError(
                    f"{where}: expected {fields} fields, found {len(row)}: {','.join(row)[:80]!r}"
                )
            yield [field.strip() for field in row], where
    except csv.Error as error:
        raise DatasetError(f"{path.name} line {reader.line_num}: {error}; mend the row") from None


def first_file(folders: Iterable[Path], *names: str) -> Path | None:
    """The first file of one of some names, in the first folder that holds one."""
    paths = (folder / name for folder in folders for name in names)
    return next((path for path in paths if path.is_file()), None)


class MediaFolders:
    """Finds a clip's file by its name without suffix, in folders that are listed once.

    Args:
        root: Folder of the dataset.
        names: Folders below it, in order of preference.
        suffixes: Suffixes of files that count.
    """

    def __init__(self, root: Path, names: Sequence[str], suffixes: frozenset[str] = VIDEO_SUFFIXES) -> None:
        self._files: dict[str, Path] = {}
        present = [root / name for name in names if (root / name).is_dir()]
        self._default = present[0] if present else root / names[0]
        self._suffix = ".mp4" if ".mp4" in suffixes else min(suffixes)
        for folder in present:
            for name in sorted(entry.name for entry in os.scandir(folder)):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in suffixes:
                    self._files.setdefault(stem, folder / name)

    def __len__(self) -> int:
        """How many files there are."""
        return len(self._files)

    def __contains__(self, stem: str) -> bool:
        """Whether there is a file of this name."""
        return stem in self._files

    def file(self, stem: str, where: str) -> Path:
        """A clip's file; where there is none, the path at which it would be looked for.

        Args:
            stem: Name of the clip, read from an annotation.
            where: What the error names.

        Raises:
            DatasetError: The name is not the plain name of a file.
        """
        name = file_name(stem, where)
        return self._files.get(name, self._default / f"{name}{self._suffix}")


def clip_source(
    root: Path, videos: Sequence[str], unpacked: Sequence[tuple[str, str]]
) -> Callable[[str, str], Path | FrameFolder]:
    """Map a clip's name, and where it was read, to its media: videos, or unpacked clips where there is no video.

    Args:
        root: Folder of the dataset.
        videos: Folders of videos below it, in order of preference.
        unpacked: Folders of pictures (``<clip>/*.jpg``) and of sound (``<clip>.wav``), in order of preference.
    """
    media = MediaFolders(root, videos)
    layouts = [(root / frames, root / sound) for frames, sound in unpacked]
    present = [layout for layout in layouts if all(folder.is_dir() for folder in layout)]
    if len(media) or not present:
        return media.file
    frames, sound = present[0]

    def source(clip: str, where: str) -> FrameFolder:
        name = file_name(clip, where)
        return FrameFolder(frames / name, sound / f"{name}.wav")

    return source
