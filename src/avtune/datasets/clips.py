"""Records to samples: what a data loader draws from."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from avtune.datasets.pool import Failure, Progress, map_files
from avtune.datasets.records import DatasetError, FrameFolder, Record
from avtune.datasets.unpacked import read_picture, read_sound
from avtune.media import MediaError
from avtune.transforms import Damaged, Prepared, Preprocessing, Sample
from avtune.transforms.preprocessing import damage_notes


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
    ) -> None:
        """Take the clips.

        Args:
            records: The clips.
            preprocessing: How a file becomes tensors.
            target: Truth of a record, a tensor of the task's shape; ``None``: samples without target.
            question: What is asked about a record, as word numbers; ``None``: nothing.
            prepared: What :func:`prepare_all` made of the clips; ``None``: each is read whenever it is drawn.

        Raises:
            ValueError: There are not as many prepared clips as records.
        """
        if prepared is not None and len(prepared) != len(records):
            raise ValueError(f"{len(prepared)} prepared clips for {len(records)} records")
        self.records = tuple(records)
        self.preprocessing = preprocessing
        self.cached = prepared is not None
        self._target, self._question = target, question
        self._prepared = prepared

    def __len__(self) -> int:
        """Number of clips, damaged ones included."""
        return len(self.records)

    def __getitem__(self, index: int) -> Sample | Damaged:
        """The clip at an index, read now or from memory."""
        record = self.records[index]
        stored = self._prepared
        prepared = prepare(record, self.preprocessing) if stored is None else stored[index]
        if isinstance(prepared, Damaged):
            return prepared
        try:
            target = None if self._target is None else self._target(record)
        except DatasetError as error:
            # A truth of its own file, such as a mask, can be damaged as the clip can.
            return Damaged(record.name, str(record.files[0]), str(error))
        question = None if self._question is None else self._question(record)
        return Sample(record.name, prepared, target, question, str(record.files[0]))


def clip_bytes(preprocessing: Preprocessing) -> int:
    """Memory that one prepared clip takes, bytes: T pictures of 3 bytes a pixel, T spectrograms of floats."""
    rows, columns = preprocessing.spectrogram_shape
    return preprocessing.segments * (3 * preprocessing.size**2 + 4 * rows * columns)


def prepare(record: Record, preprocessing: Preprocessing) -> Prepared | Damaged:
    """Read one clip; whatever is wrong with its file becomes ``Damaged``."""
    try:
        if isinstance(record.source, FrameFolder):
            return _load_unpacked(record, record.source, preprocessing)
        return preprocessing.load(record.source, record.start)
    except Exception as error:
        return _damaged(record, error)


def prepare_all(
    records: Sequence[Record],
    preprocessing: Preprocessing,
    workers: int = 0,
    progress: Progress | None = None,
) -> list[Prepared | Damaged]:
    """Read all clips, a file of several clips only once.

    Args:
        records: The clips.
        preprocessing: How a file becomes tensors.
        workers: Processes that read; a file that crashes or hangs its process is damaged. 0: this process.
        progress: Called with the number of prepared and of all files.

    Returns:
        The clips in the order of ``records``.

    Raises:
        DatasetError: No worker process can be started.
    """
    by_file: dict[tuple[str, ...], list[int]] = {}
    for index, record in enumerate(records):
        by_file.setdefault(tuple(map(str, record.files)), []).append(index)
    groups = [[records[index] for index in indices] for indices in by_file.values()]
    answers = map_files(partial(_prepare_file, preprocessing=preprocessing), groups, workers, progress)
    results: dict[int, Prepared | Damaged] = {}
    for indices, answer in zip(by_file.values(), answers, strict=True):
        for place, index in enumerate(indices):
            if isinstance(answer, Failure):
                results[index] = Damaged(records[index].name, str(records[index].files[0]), answer.reason)
            else:
                packed = answer[place]
                results[index] = packed if isinstance(packed, Damaged) else _unpack(packed)
    return [results[index] for index in range(len(records))]


def _prepare_file(
    records: Sequence[Record], *, preprocessing: Preprocessing
) -> list[dict[str, Any] | Damaged]:
    """Worker side: all clips of one file, tensors as arrays, which cross a pipe without shared memory."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
    sections: dict[float, Prepared] = {}
    if len(records) > 1 and not isinstance(records[0].source, FrameFolder):
        try:
            sections = dict(preprocessing.load_windows(records[0].source))
        except Exception as error:
            return [_damaged(record, error) for record in records]
    prepared = [sections.get(record.start) or prepare(record, preprocessing) for record in records]
    return [clip if isinstance(clip, Damaged) else _pack(clip) for clip in prepared]


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
    path = record.files[0]
    if isinstance(error, MediaError):
        return Damaged(record.name, str(error.path), f"{error.problem}; {error.remedy}")
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
    pictures = folder.pictures()
    frames = None
    if pictures:
        indices = preprocessing.frame_indices(len(pictures), duration, record.start)
        frames = _frames([pictures[index] for index in indices], notes)
    return preprocessing.from_arrays(
        frames, waveform, duration=duration, start=record.start, source=folder.frames, notes=tuple(notes)
    )


def _frames(paths: Sequence[Any], notes: list[str]) -> list[npt.NDArray[np.uint8]] | None:
    """The pictures; a damaged one is replaced by the nearest good one, all damaged give none."""
    found: dict[int, npt.NDArray[np.uint8]] = {}
    for place, path in enumerate(paths):
        try:
            found[place] = read_picture(path)
        except MediaError as error:
            notes.append(f"{error.path.name}: {error.problem}")
    if not found:
        return None
    return [found[min(found, key=lambda good: (abs(good - place), good))] for place in range(len(paths))]
