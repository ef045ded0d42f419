"""Prepared clips on disk, so that later epochs and runs need not decode.

A clip is one safetensors file, named by a hash of everything that its tensors depend on: the file (path, size, time of
its last change), where the clip begins, the preprocessing and the versions of what computes it. A file that changed has
another name, so nothing is ever out of date. Files appear whole or not at all, and carry a checksum: one that does not
hold what it should is computed again.

A run reads its clips in cycles. Dropping the least recently used ones from a full cache would drop just those that are
read next, so that a cache a little too small would never be hit. Therefore only files that this run has not used yet
make room, the oldest first; where there are none, the cache stays as it is and serves what it holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from avtune.datasets.records import DatasetError, FrameFolder
from avtune.media import FilePart
from avtune.transforms import Prepared, Preprocessing

FORMAT = 2
SUFFIX = ".safetensors"
TENSORS = ("frames", "spectrogram", "has_video", "has_audio", "valid")
LEFTOVER_SECONDS = 3600
"""A partial file that nobody wrote to for so long is what a killed process left."""


@dataclass
class DiskCache:
    """A folder of prepared clips that several processes and runs may share.

    Attributes:
        folder: Where they are.
        limit_bytes: Most bytes that its whole files take together.
        started: When the run began, nanoseconds since 1970; what was used since then is never dropped.
    """

    folder: Path
    limit_bytes: int
    started: int
    _full: bool = field(default=False, repr=False)

    @classmethod
    def open(cls, folder: str | Path, gigabytes: float) -> DiskCache:
        """Make the folder if it is absent, count what it holds and remove what killed processes left.

        Args:
            folder: The folder.
            gigabytes: Most that its files take together, in units of 10^9 bytes.

        Raises:
            DatasetError: The folder cannot be written to, or the limit is not positive.
        """
        path = Path(folder).expanduser()
        if not gigabytes > 0:
            raise DatasetError(
                f"data.cache_gigabytes is {gigabytes:g}; set it above 0, or leave data.cache_folder out"
            )
        opened = cls(path, int(gigabytes * 1e9), time.time_ns())
        try:
            path.mkdir(parents=True, exist_ok=True)
            with opened._ledger() as ledger:
                ledger.write(opened._count())
        except ImportError:
            raise DatasetError(
                "data.cache_folder needs the file locks of POSIX systems; leave it out"
            ) from None
        except OSError as error:
            raise DatasetError(
                f"{path} cannot be used as data.cache_folder ({error.strerror}); name a folder that can be written to"
            ) from None
        return opened

    @property
    def used_bytes(self) -> int:
        """What its files take together."""
        with self._ledger() as ledger:
            return ledger.read()

    def get(self, key: str) -> Prepared | None:
        """A clip as it was computed, bit for bit; ``None`` where it is absent or damaged.

        Args:
            key: See :func:`clip_key`.
        """
        path = self._path(key)
        try:
            content = path.read_bytes()
            if path.stat().st_mtime_ns < self.started:
                _mark_used(path)
            return unpack(content)
        except (OSError, DatasetError):
            return None

    def put(self, key: str, prepared: Prepared) -> None:
        """Keep a clip, if there is room or room can be made. A disk that refuses it leaves the cache as it is.

        Args:
            key: See :func:`clip_key`.
            prepared: The clip.
        """
        if self._full:
            return
        path = self._path(key)
        partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.part")
        content = pack(prepared)
        try:
            path.parent.mkdir(exist_ok=True)
            partial.write_bytes(content)
            _mark_used(partial)
            with self._ledger() as ledger:
                # Another process may have kept the same clip meanwhile, and a damaged one is replaced.
                held = ledger.read() - _size(path)
                if held + len(content) > self.limit_bytes:
                    held = self._make_room(held, len(content), path)
                self._full = held + len(content) > self.limit_bytes
                if self._full:
                    ledger.write(held + _size(path))
                    return
                # Counted first: a kill in between leaves the count too high, never too low.
                ledger.write(held + len(content))
                partial.replace(path)
        except OSError:
            self._full = True
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{SUFFIX}"

    def _make_room(self, held: int, wanted: int, kept: Path) -> int:
        """Drop files that this run has not used, the oldest first; the bytes that remain."""
        idle = [
            (state.st_mtime_ns, state.st_size, path)
            for path, state in self._files()
            if state.st_mtime_ns < self.started and path != kept
        ]
        # More than is needed at once, so that the folder need not be walked for every clip.
        target = self.limit_bytes - max(wanted, self.limit_bytes // 50)
        for _, size, path in sorted(idle):
            if held <= target:
                break
            with suppress(OSError):
                path.unlink()
                held -= size
        return held

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for folder in self.folder.iterdir():
            if not folder.is_dir():
                continue
            for entry in os.scandir(folder):
                if entry.name.endswith(SUFFIX):
                    with suppress(OSError):
                        yield Path(entry.path), entry.stat()

    def _count(self) -> int:
        for partial in self.folder.glob("*/.*.part"):
            with suppress(OSError):
                if time.time() - partial.stat().st_mtime > LEFTOVER_SECONDS:
                    partial.unlink()
        return sum(state.st_size for _, state in self._files())

    @contextmanager
    def _ledger(self) -> Iterator[_Ledger]:
        """The file that holds how many bytes there are; whoever has it open is the only one.

        The lock belongs to the open file, so that the system takes it back from a killed process.
        """
        # Windows has none; everything but this cache works there.
        import fcntl

        descriptor = os.open(self.folder / "bytes", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _Ledger(descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class _Ledger:
    """A number in a locked file."""

    descriptor: int

    def read(self) -> int:
        text = os.pread(self.descriptor, 32, 0)
        return int(text) if text.strip().isdigit() else 0

    def write(self, value: int) -> None:
        os.pwrite(self.descriptor, b"%-32d" % max(value, 0), 0)


def clip_key(
    source: Path | FilePart | FrameFolder, start: float, preprocessing: Preprocessing, *, whole_file: bool
) -> str:
    """What names a prepared clip: equal keys, equal tensors.

    Args:
        source: What it is decoded from.
        start: Where the clip begins in it, seconds.
        preprocessing: How it becomes tensors.
        whole_file: Whether it is one of the sections of a file that was decoded from its beginning; the sound of a
            section decoded alone can differ in its last bits.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: A file is not there.
    """
    content = {
        "format": FORMAT,
        "files": [_identity(path) for path in _paths(source)],
        "part": (source.offset, source.size) if isinstance(source, FilePart) else None,
        "unpacked": (source.array_rate, source.seconds) if isinstance(source, FrameFolder) else None,
        "start": start,
        "whole_file": whole_file,
        "preprocessing": preprocessing.state(),
        "versions": versions(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _paths(source: Path | FilePart | FrameFolder) -> list[Path]:
    match source:
        case FrameFolder(audio=audio):
            return [audio, *source.pictures()]
        case FilePart(archive=archive):
            return [archive]
        case Path():
            return [source]


def _identity(path: Path) -> tuple[str, int, int]:
    state = path.stat()
    return os.path.abspath(path), state.st_size, state.st_mtime_ns


@cache
def versions() -> dict[str, str]:
    """Versions of what a clip's tensors depend on."""
    return {name: version(name) for name in ("avtune", "av", "numpy", "scipy", "torch")}


def _mark_used(path: Path) -> None:
    # Of the clock that runs began by; file systems have coarser ones, and their own.
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def pack(prepared: Prepared) -> bytes:
    """A clip as a safetensors file that :func:`unpack` reads."""
    tensors = {name: getattr(prepared, name).contiguous() for name in TENSORS}
    facts = {"notes": json.dumps(prepared.notes), "checksum": _checksum(tensors, prepared.notes)}
    return save(tensors, metadata=facts)


def unpack(content: bytes) -> Prepared:
    """The clip that a file holds.

    Raises:
        DatasetError: It is no such file, or its checksum is another.
    """
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        facts: dict[str, Any] = header["__metadata__"]
        notes = tuple(json.loads(facts["notes"]))
        whole = facts["checksum"] == _checksum(tensors, notes)
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        whole = False
    if not whole:
        raise DatasetError("its tensors are damaged; copy the file again, or prepare the clip anew")
    return Prepared(**{name: tensors[name] for name in TENSORS}, notes=notes)


def _checksum(tensors: dict[str, Tensor], notes: tuple[str, ...]) -> str:
    found = zlib.crc32(json.dumps(notes).encode())
    for name in TENSORS:
        tensor = tensors[name]
        found = zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"
