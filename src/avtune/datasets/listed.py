"""What readers share: where a list lies, its lines and rows, and where a clip's media lie."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from avtune.datasets.records import VIDEO_SUFFIXES, DatasetError, FrameFolder, file_name


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Args:
        path: UTF-8, any line ends.

    Raises:
        DatasetError: The file is unreadable.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as UTF-8 text ({error}); restore the file") from None


def csv_rows(path: Path, fields: int) -> Iterator[tuple[list[str], str]]:
    """The rows of a CSV file without a header.

    Args:
        path: UTF-8; rows in which nothing stands and lines that begin with ``#`` are skipped.
        fields: Fields that each row has to have.

    Yields:
        The fields, stripped, and where they stand (``train.csv line 3``).

    Raises:
        DatasetError: The file is unreadable or a row has another number of fields; the message names the line.
    """
    for row, where in _rows(path, ","):
        if row[0].startswith("#"):
            continue
        _check_width(row, fields, where)
        yield row, where


def table_rows(
    path: Path, columns: Sequence[str], delimiter: str = ","
) -> Iterator[tuple[dict[str, str], str]]:
    """The rows of a CSV file with a header.

    Args:
        path: UTF-8; rows in which nothing stands are skipped.
        columns: Columns that have to be there, among others.
        delimiter: What stands between two fields.

    Yields:
        The fields by the names of their columns, in their order, stripped, and where they stand (``votes.csv line 3``).

    Raises:
        DatasetError: The file is unreadable, a column is absent or a row has not one field for each; the message names
            the line.
    """
    rows = _rows(path, delimiter)
    header, where = next(rows, ([], f"{path.name} line 1"))
    if absent := [name for name in columns if name not in header]:
        raise DatasetError(f"{where}: column {absent[0]!r} is absent; restore the file")
    for row, where in rows:
        _check_width(row, len(header), where)
        yield dict(zip(header, row, strict=True)), where


def _rows(path: Path, delimiter: str) -> Iterator[tuple[list[str], str]]:
    reader = csv.reader(read_lines(path), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if any(fields):
                yield fields, f"{path.name} line {reader.line_num}"
    except csv.Error as error:
        raise DatasetError(f"{path.name} line {reader.line_num}: {error}; mend the row") from None


def _check_width(row: Sequence[str], fields: int, where: str) -> None:
    if len(row) != fields:
        raise DatasetError(
            f"{where}: expected {fields} fields, found {len(row)}: {','.join(row)[:80]!r}; mend the row"
        )


def listed_labels(text: str, where: str) -> list[str]:
    """The labels of a clip that has several.

    Args:
        text: Labels with commas between them; one too many at the end does no harm.
        where: What the error names.

    Raises:
        DatasetError: There is none.
    """
    labels = [label for part in text.split(",") if (label := part.strip())]
    if not labels:
        raise DatasetError(f"{where}: there is no label; give the clip its labels, or remove the row")
    return labels


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
