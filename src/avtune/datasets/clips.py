"""Records to samples: what a data loader draws from."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from avtune.datasets.disk_cache import DiskCache, clip_key, unpack
from avtune.datasets.pool import Failure, Progress, map_files
from avtune.datasets.records import ClipSource, DatasetError, FrameFolder, PreparedFile, Record
from avtune.datasets.unpacked import due_pictures, read_picture, read_sound
from avtune.media import FilePart, MediaError
from avtune.transforms import Damaged, Prepared, Preprocessing, Sample
from avtune.transforms.preprocessing import damage_notes


class _Packed(Sequence[Record]):
    """Records as bytes, block by block: a loader process is given millions of them in an instant, and draws few."""

    block = 16

    def __init__(self, records: Sequence[Record]) -> None:
        self._length = len(records)
        self._blocks = [
            pickle.dumps(records[first : first + self.block]) for first in range(0, len(records), self.block)
        ]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        return pickle.loads(self._blocks[index // self.block])[index % self.block]


class ClipDataset(Dataset[Sample | Damaged]):
    """Clips with their truth, by index.

    A clip that cannot be read is returned as ``Damaged``, never raised and never left out, so that indices
    and epoch lengths do not depend on the state of the files.

    Attributes:
        records: The clips, in order.
        preprocessing: How a file becomes tensors.
        cached: Whether the clips are in memory; drawing one is then a look-up, and a data loader needs no worker
            processes of its own.
    """

    def __init__(
        self,
        records: Sequence[Record],
        preprocessing: Preprocessing,
        target: Callable[[Record], Tensor] | None = None,
        question: Callable[[Record], Tensor | None] | None = None,
        prepared: Sequence[Prepared | Damaged] | None = None,
        disk: DiskCache | None = None,
    ) -> None:
        """Take the clips.

        Args:
            records: The clips.
            preprocessing: How a file becomes tensors.
            target: Truth of a record, a tensor of the task's shape; ``None``: samples without target.
            question: What is asked about a record, as word numbers; ``None``: nothing.
            prepared: What :func:`prepare_all` made of the clips; ``None``: each is read whenever it is drawn.
            disk: Where clips that are read are kept and looked for; ``None``: nowhere.

        Raises:
            ValueError: There are not as many prepared clips as records.
        """
        if prepared is not None and len(prepared) != len(records):
            raise ValueError(f"{len(prepared)} prepared clips for {len(records)} records")
        self.records: Sequence[Record] = tuple(records)
        self.preprocessing = preprocessing
        self.cached = prepared is not None
        self._target, self._question = target, question
        self._prepared, self._disk = prepared, disk

    @cached_property
    def _packed(self) -> _Packed:
        return self.records if isinstance(self.records, _Packed) else _Packed(self.records)

    def __getstate__(self) -> dict[str, Any]:
        """What a loader process is given."""
        return {**vars(self), "records": self._packed}

    def unread(self) -> ClipDataset:
        """The same clips with their truths and questions but with blanks for frames and sound, for who looks at none.

        All segments are taken to exist, since no file is opened.
        """
        segments, here = self.preprocessing.segments, torch.ones((), dtype=torch.bool)
        blank = Prepared(
            torch.zeros(segments, 3, 1, 1, dtype=torch.uint8), torch.zeros(segments, 1, 1), here, here,
            torch.ones(segments, dtype=torch.bool),
        )  # fmt: skip
        return ClipDataset(
            self.records, self.preprocessing, self._target, self._question, [blank] * len(self.records)
        )

    def __len__(self) -> int:
        """Number of clips, damaged ones included."""
        return len(self.records)

    def __getitem__(self, index: int) -> Sample | Damaged:
        """The clip at an index, read now or from memory."""
        record = self.records[index]
        stored = self._prepared
        prepared = prepare(record, self.preprocessing, self._disk) if stored is None else stored[index]
        if isinstance(prepared, Damaged):
            return prepared
        try:
            target = None if self._target is None else self._target(record)
            question = None if self._question is None else self._question(record)
        except DatasetError as error:
            # A truth of its own file, such as a mask, can be damaged as the clip can, and a question be unreadable.
            return Damaged(record.name, str(record.path), str(error))
        return Sample(record.name, prepared, target, question, str(record.path))


def clip_bytes(preprocessing: Preprocessing) -> int:
    """Memory that one prepared clip takes, bytes: T pictures of 3 bytes a pixel, spectrograms of floats."""
    rows, columns = preprocessing.spectrogram_shape
    return 3 * preprocessing.segments * preprocessing.size**2 + 4 * preprocessing.sounds * rows * columns


def prepare(
    record: Record, preprocessing: Preprocessing, disk: DiskCache | None = None
) -> Prepared | Damaged:
    """Read one clip; whatever is wrong with its file becomes ``Damaged``.

    Args:
        record: The clip.
        preprocessing: How its file becomes tensors.
        disk: Where it is looked for first, and kept.
    """
    key = _key(record, preprocessing, disk, whole_file=False)
    if disk is not None and key is not None and (stored := disk.get(key)) is not None:
        return stored
    try:
        match record.source:
            case FrameFolder() as folder:
                prepared = _load_unpacked(record, folder, preprocessing)
            case PreparedFile(part=part):
                return unpack(part.read())
            case FilePart() as part:
                part.verify()
                prepared = preprocessing.load(part, record.start)
            case Path() as file:
                prepared = preprocessing.load(file, record.start)
    except Exception as error:
        return _damaged(record, error)
    if disk is not None and key is not None:
        disk.put(key, prepared)
    return prepared


def distinct_clips(records: Sequence[Record]) -> int:
    """How many stretches of files the records show; several questions about one are one."""
    return len({_stretch(record) for record in records})


def prepare_all(
    records: Sequence[Record],
    preprocessing: Preprocessing,
    workers: int = 0,
    progress: Progress | None = None,
    disk: DiskCache | None = None,
) -> list[Prepared | Damaged]:
    """Read all clips, a file of several clips only once; records of the same stretch of a file share its tensors.

    Args:
        records: The clips.
        preprocessing: How a file becomes tensors.
        workers: Processes that read; a file that crashes or hangs its process is damaged. 0: this process.
        progress: Called with the number of prepared and of all files.
        disk: Where clips are looked for first, and kept.

    Returns:
        The clips in the order of ``records``.

    Raises:
        DatasetError: No worker process can be started.
    """
    by_file: dict[ClipSource, dict[Stretch, Record]] = {}
    for record in records:
        by_file.setdefault(record.source, {}).setdefault(_stretch(record), record)
    groups = [list(clips.values()) for clips in by_file.values()]
    read = partial(_prepare_file, preprocessing=preprocessing, disk=disk)
    results: dict[Stretch, Prepared | Damaged] = {}
    for group, answer in zip(groups, map_files(read, groups, workers, progress), strict=True):
        for place, record in enumerate(group):
            if isinstance(answer, Failure):
                results[_stretch(record)] = Damaged(record.name, str(record.path), answer.reason)
            else:
                packed = answer[place]
                results[_stretch(record)] = packed if isinstance(packed, Damaged) else _unpack(packed)
    return [_named(results[_stretch(record)], record) for record in records]


Stretch: TypeAlias = tuple[ClipSource, float]
"""A file and where a clip begins in it."""


def _stretch(record: Record) -> Stretch:
    return record.source, record.start


def _named(prepared: Prepared | Damaged, record: Record) -> Prepared | Damaged:
    return replace(prepared, name=record.name) if isinstance(prepared, Damaged) else prepared


def _prepare_file(
    records: Sequence[Record], *, preprocessing: Preprocessing, disk: DiskCache | None
) -> list[dict[str, Any] | Damaged]:
    """Worker side: all clips of one file, tensors as arrays, which cross a pipe without shared memory."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
    sections: dict[float, Prepared] = {}
    file = records[0].source
    if len(records) > 1 and isinstance(file, Path | FilePart):
        try:
            sections = _sections(records, file, preprocessing, disk)
        except Exception as error:
            return [_damaged(record, error) for record in records]
    prepared = [sections.get(record.start) or prepare(record, preprocessing, disk) for record in records]
    return [clip if isinstance(clip, Damaged) else _pack(clip) for clip in prepared]


def _sections(
    records: Sequence[Record], file: Path | FilePart, preprocessing: Preprocessing, disk: DiskCache | None
) -> dict[float, Prepared]:
    """Clips of a long file by where they begin; it is decoded unless all that are asked for are on disk."""
    keys = {record.start: _key(record, preprocessing, disk, whole_file=True) for record in records}
    if disk is not None:
        stored = {start: disk.get(key) for start, key in keys.items() if key is not None}
        found = {start: clip for start, clip in stored.items() if clip is not None}
        if len(found) == len(records):
            return found
    if isinstance(file, FilePart):
        file.verify()
    sections = dict(preprocessing.load_windows(file))
    for start, clip in sections.items():
        if disk is not None and (key := keys.get(start)) is not None:
            disk.put(key, clip)
    return sections


def _key(
    record: Record, preprocessing: Preprocessing, disk: DiskCache | None, *, whole_file: bool
) -> str | None:
    """A clip's name in the cache; ``None`` where there is no cache, or nothing to be decoded."""
    if disk is not None and not isinstance(record.source, PreparedFile):
        with suppress(OSError):
            return clip_key(record.source, record.start, preprocessing, whole_file=whole_file)
    return None


def _pack(prepared: Prepared) -> dict[str, Any]:
    return {
        name: value.numpy() if isinstance(value, Tensor) else value for name, value in vars(prepared).items()
    }


def _unpack(packed: dict[str, Any]) -> Prepared:
    fields: dict[str, Any] = {
        name: torch.from_numpy(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value
        for name, value in packed.items()
    }
    return Prepared(**fields)


def _damaged(record: Record, error: Exception) -> Damaged:
    path = record.path
    if isinstance(error, MediaError):
        return Damaged(record.name, str(error.path), f"{error.problem}; {error.remedy}")
    if isinstance(error, DatasetError):
        return Damaged(record.name, str(path), str(error))
    return Damaged(record.name, str(path), " ".join(f"{type(error).__name__}: {error}".split()))


def _load_unpacked(record: Record, folder: FrameFolder, preprocessing: Preprocessing) -> Prepared:
    """Pictures and sound; a clip whose sound cannot be read lasts as long as one input of the model."""
    notes: list[str] = []
    waveform: npt.NDArray[np.float32] | None = None
    duration = record.start + preprocessing.seconds
    try:
        waveform, damage = read_sound(folder, preprocessing.audio.sample_rate)
        duration = len(waveform) / preprocessing.audio.sample_rate
        notes.extend(damage_notes(damage))
    except MediaError as error:
        notes.append(f"{error.path.name}: {error.problem}")
    if folder.seconds is not None:
        # Each picture keeps its second, however long the sound is.
        duration = float(folder.seconds)
    pictures = due_pictures(folder)
    frames = None
    if pictures:
        indices = preprocessing.frame_indices(len(pictures), duration, record.start)
        frames = _frames([pictures[index] for index in indices], notes, folder.seconds is None)
    return preprocessing.from_arrays(
        frames, waveform, duration=duration, start=record.start, source=folder.frames, notes=tuple(notes)
    )


def _frames(paths: Sequence[Path], notes: list[str], replaceable: bool) -> list[npt.NDArray[np.uint8]] | None:
    """The pictures; a damaged one that is replaceable is replaced by the nearest good one, all damaged give none."""
    found: dict[int, npt.NDArray[np.uint8]] = {}
    for place, path in enumerate(paths):
        try:
            found[place] = read_picture(path)
        except MediaError as error:
            if not replaceable:
                raise
            notes.append(f"{error.path.name}: {error.problem}")
    if not found:
        return None
    return [found[min(found, key=lambda good: (abs(good - place), good))] for place in range(len(paths))]
