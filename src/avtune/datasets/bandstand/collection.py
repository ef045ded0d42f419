"""Rendering a whole bandstand set to a folder: in parallel, resumable, and the same for the same seed."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avtune.datasets.bandstand import truth
from avtune.datasets.bandstand.program import make_program
from avtune.datasets.bandstand.render import prepare
from avtune.datasets.bandstand.scene import (
    CLASSES,
    SAMPLE_RATE,
    SECONDS,
    SPLITS,
    Difficulty,
    Program,
)
from avtune.errors import AvtuneError
from avtune.media import write_video

VERSION = 1
"""Rises whenever the same seed would give other clips."""

_SETTINGS = "bandstand.json"
_QUALITY = 26
# Room for any clip: pictures take a half of this per pixel and frame, ten seconds of AAC at most 120 kB.
_BYTES_PER_PIXEL = 0.04
_SOUND_BYTES = 150_000
# Starting a process costs more than rendering a handful of clips.
_CLIPS_WORTH_A_POOL = 8


class BandstandError(AvtuneError):
    """A set that cannot be rendered as asked; the message says what to change."""


@dataclass(frozen=True)
class BandstandSummary:
    """What a call of ``render_bandstand`` did.

    Attributes:
        root: Folder of the set.
        clips: Clips in the set.
        rendered: Clips that this call rendered; the others were there already.
        splits: Clips per split.
        labels: Names of the event classes; background is implicit and last.
        event_share: Share of seconds that are event, the others being background.
        seconds: Wall time of the call.
    """

    root: Path
    clips: int
    rendered: int
    splits: dict[str, int]
    labels: tuple[str, ...]
    event_share: float
    seconds: float


@dataclass(frozen=True)
class _Job:
    """One clip to render; small enough to be sent to a process."""

    out: Path
    index: int
    seed: int
    shares: tuple[float, float, float]
    difficulty: Difficulty
    size: int
    rate: float


def render_bandstand(
    out: Path,
    clips: int,
    *,
    seed: int = 0,
    size: int = 160,
    rate: float = 10,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    split_shares: tuple[float, float, float] = (0.7, 0.1, 0.2),
    difficulty: Difficulty | None = None,
) -> BandstandSummary:
    """Render a bandstand set: mp4 files in the layout of AVE, and the truth about them in plain files.

    The same arguments give the same bytes whatever the number of workers, on the same version of the encoder.
    Clip k depends on the seed and k alone: a larger set begins with the smaller one, and rendering into a
    folder that holds fewer clips adds the missing ones. An interrupted call is continued by the same call.

    Args:
        out: Folder of the set; made if absent.
        clips: Number of ten-second clips, at least 1.
        seed: Seed of everything, at least 0.
        size: Side of the picture, pixels; even, at least 32.
        rate: Frames per second, 2 to 60; ten seconds must hold a whole number of frames.
        workers: Processes that render; 1 renders in this one.
        progress: Called as ``progress(done, clips)`` after each clip.
        split_shares: Shares of training, validation and test.
        difficulty: How hard the set is; ``None``: the defaults.

    Returns:
        What there is now.

    Raises:
        BandstandError: An argument is out of range, ``out`` holds something else or a set made with other
            settings, or a rendering process died.
        MediaError: A file cannot be written.
    """
    began = time.monotonic()
    out = Path(out)
    difficulty = difficulty or Difficulty()
    _check_arguments(clips, seed, size, rate, workers, split_shares)
    settings = {
        "version": VERSION,
        "seed": seed,
        "size": size,
        "rate": rate,
        "sample_rate": SAMPLE_RATE,
        "seconds": SECONDS,
        "quality": _QUALITY,
        "split_shares": list(split_shares),
        "difficulty": json.loads(json.dumps(asdict(difficulty))),
    }
    _claim(out, clips, settings)
    jobs = [_Job(out, index, seed, split_shares, difficulty, size, rate) for index in range(clips)]
    pending = [job for job in jobs if not _finished(job)]
    done = clips - len(pending)
    if progress is not None and done:
        progress(done, clips)
    for _ in _render(pending, workers):
        done += 1
        if progress is not None:
            progress(done, clips)
    programs = [make_program(seed, k, shares=split_shares, difficulty=difficulty) for k in range(clips)]
    truth.write_indexes(out, programs, seed)
    summary = _summary(out, programs, len(pending), time.monotonic() - began)
    _write_settings(out, settings, clips, summary)
    return summary


def _check_arguments(
    clips: int, seed: int, size: int, rate: float, workers: int, shares: tuple[float, float, float]
) -> None:
    if clips < 1 or seed < 0 or workers < 1:
        raise BandstandError(f"clips {clips}, seed {seed}, workers {workers}: give at least 1, 0 and 1")
    if size < 32 or size % 2:
        raise BandstandError(f"size {size}: give an even number of pixels, at least 32")
    if not 2 <= rate <= 60 or round(SECONDS * rate, 6) % 1:
        raise BandstandError(
            f"rate {rate}: give 2 to 60 frames a second, a whole number of them in {SECONDS} s"
        )
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise BandstandError(f"split_shares {shares}: give three shares of at least 0 that add up to 1")


def _claim(out: Path, clips: int, settings: dict[str, Any]) -> None:
    """Make the folder ours, or find that it is another's."""
    file = out / _SETTINGS
    if not file.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise BandstandError(f"{out} holds other files: give an empty or new folder")
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / "AVE").mkdir(exist_ok=True)
        except OSError as error:
            raise BandstandError(f"{out} cannot be made ({error.strerror}): give another folder") from error
        _write_settings(out, settings, clips, None)
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        there, count = found["settings"], int(found["clips"])
    except (ValueError, KeyError, TypeError) as error:
        raise BandstandError(f"{file} is damaged: give a new folder") from error
    differing = sorted(key for key in settings if there.get(key) != settings[key])
    if differing:
        what = ", ".join(f"{key} {there.get(key)} instead of {settings[key]}" for key in differing)
        raise BandstandError(f"{out} was rendered with other settings ({what}): give a new folder")
    if count > clips and found["complete"]:
        raise BandstandError(
            f"{out} holds {count} clips, more than {clips}: ask for as many or give a new folder"
        )


def _write_settings(
    out: Path, settings: dict[str, Any], clips: int, summary: BandstandSummary | None
) -> None:
    content: dict[str, Any] = {
        "name": "bandstand",
        "complete": summary is not None,
        "clips": clips,
        "labels": list(CLASSES),
        "settings": settings,
    }
    if summary is not None:
        content |= {"splits": summary.splits, "event_share": round(summary.event_share, 4)}
    truth.write_text(out / _SETTINGS, json.dumps(content, indent=1) + "\n")


def _finished(job: _Job) -> bool:
    name = make_program(job.seed, job.index, shares=job.shares, difficulty=job.difficulty).name
    return truth.clip_truth(job.out, name).is_file() and truth.clip_video(job.out, name).is_file()


def _render(jobs: list[_Job], workers: int) -> Iterator[int]:
    """Render clips, giving each one's index when it is done."""
    if workers == 1 or len(jobs) < _CLIPS_WORTH_A_POOL:
        for job in jobs:
            yield _render_clip(job)
        return
    # Spawned, not forked: a forked copy of a process whose libraries run threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_one_thread) as pool:
        futures = [pool.submit(_render_clip, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise BandstandError(
                "a rendering process died (perhaps for want of memory): call again with workers=1 to continue"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _render_clip(job: _Job) -> int:
    program = make_program(job.seed, job.index, shares=job.shares, difficulty=job.difficulty)
    rendering = prepare(program, job.difficulty, job.size, job.rate)
    write_video(
        truth.clip_video(job.out, program.name),
        rendering.frames(),
        job.rate,
        rendering.waveform,
        SAMPLE_RATE,
        quality=_QUALITY,
    )
    _pad(truth.clip_video(job.out, program.name), job.size, job.rate)
    truth.write_clip_truth(job.out, rendering)
    return job.index


def _pad(video: Path, size: int, rate: float) -> None:
    """Make all clips of a set equally long in bytes, for sounds and pictures compress unequally well.

    The padding is a ``free`` box, which players skip. A kill in between does no harm: the clip's truth is
    missing then, so that it is rendered again.
    """
    step = _SOUND_BYTES + int(_BYTES_PER_PIXEL * size * size * rate * SECONDS)
    missing = -video.stat().st_size % step
    if missing < 8:
        missing += step
    with video.open("ab") as file:
        file.write(missing.to_bytes(4, "big") + b"free" + bytes(missing - 8))


def _summary(out: Path, programs: list[Program], rendered: int, seconds: float) -> BandstandSummary:
    splits = Counter(program.split for program in programs)
    return BandstandSummary(
        root=out,
        clips=len(programs),
        rendered=rendered,
        splits={split: splits[split] for split in SPLITS},  # type: ignore[index]
        labels=CLASSES,
        event_share=sum(p.event[1] - p.event[0] for p in programs) / (SECONDS * len(programs)),
        seconds=seconds,
    )
