"""Run one function over many files in worker processes that a bad file can crash or hang without harm."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Generic, TypeVar

from avtune.datasets.records import DatasetError

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Called with the number of finished items and the number of all items."""

LIMIT_SECONDS = 900.0


@dataclass(frozen=True)
class Failure:
    """An item without a result.

    Attributes:
        reason: One line: the exception, a crash of the decoder, or the time limit.
    """

    reason: str


class _Worker(Generic[Item, Result]):
    """One process, started when it is first needed and again after a crash."""

    def __init__(self, context: SpawnContext, function: Callable[[Item], Result], limit: float) -> None:
        self._context, self._function, self._limit = context, function, limit
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def run(self, item: Item) -> Result | Failure:
        if self._process is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send(item)
            if not self._pipe.poll(self._limit):
                self.stop()
                return Failure(f"gave no result within {self._limit:g} s")
            result: Result | Failure = self._pipe.recv()
        except (EOFError, OSError):
            code = self._exit_code()
            self.stop()
            return Failure(f"the process that read it died ({code})")
        return result

    def _start(self) -> None:
        self._pipe, other = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(other, self._function), daemon=True)
        self._process.start()
        other.close()
        try:
            self._pipe.recv()
        except (EOFError, OSError):
            self.stop()
            raise DatasetError(
                "worker processes cannot start; keep your script's own code under "
                'if __name__ == "__main__": or use workers=0'
            ) from None

    def _exit_code(self) -> str:
        assert self._process is not None
        self._process.join(timeout=5)
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"

    def kill(self) -> None:
        """End the process; the only call allowed from a thread other than the one that runs items."""
        process = self._process
        if process is not None:
            process.kill()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def map_files(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    progress: Progress | None = None,
    limit_seconds: float = LIMIT_SECONDS,
) -> list[Result | Failure]:
    """Apply a function to every item; an item whose reading fails, crashes or hangs becomes a failure.

    Worker processes are spawned, never forked, so they are safe beside threads and accelerators; a script
    that calls this keeps its own code under ``if __name__ == "__main__":``.

    Args:
        function: Picklable: a function of a module, or a ``functools.partial`` of one. Its results are
            pickled, so they should hold arrays rather than tensors.
        items: What it is applied to.
        workers: Number of processes; 0 runs in this process, where only exceptions are caught.
        progress: Called in this thread after each item.
        limit_seconds: Longest time for one item before its process is ended.

    Returns:
        The results in the order of ``items``.

    Raises:
        DatasetError: No worker process can be started.
    """
    return list(stream_files(function, items, workers, progress, limit_seconds))


def stream_files(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    progress: Progress | None = None,
    limit_seconds: float = LIMIT_SECONDS,
    ahead: int | None = None,
) -> Generator[Result | Failure]:
    """:func:`map_files` for results that together do not fit in memory: they come one by one, in order.

    Args:
        function: See :func:`map_files`.
        items: Likewise.
        workers: Likewise.
        progress: Called after each item, which can be before its result comes.
        limit_seconds: Likewise.
        ahead: Most items that are begun and whose results have not been taken; ``None``: any number.

    Raises:
        DatasetError: No worker process can be started.
    """
    if workers > 0:
        yield from _from_crew(function, items, workers, progress, limit_seconds, ahead)
        return
    for index, item in enumerate(items):
        result = _guarded(function, item)
        if progress is not None:
            progress(index + 1, len(items))
        yield result


def _from_crew(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    progress: Progress | None,
    limit_seconds: float,
    ahead: int | None,
) -> Generator[Result | Failure]:
    total = len(items)
    todo: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    begun = total if ahead is None else min(ahead, total)
    for index in range(begun):
        todo.put(index)
    done: queue.SimpleQueue[tuple[int, Result | Failure] | Exception] = queue.SimpleQueue()
    context = multiprocessing.get_context("spawn")
    crew = [_Worker(context, function, limit_seconds) for _ in range(min(workers, total))]
    stopping = threading.Event()
    threads = [
        threading.Thread(target=_feed, args=(worker, items, todo, done, stopping), daemon=True)
        for worker in crew
    ]
    for thread in threads:
        thread.start()
    waiting: dict[int, Result | Failure] = {}
    try:
        for index in range(total):
            while index not in waiting:
                answer = done.get()
                if isinstance(answer, Exception):
                    raise answer
                waiting[answer[0]] = answer[1]
                if progress is not None:
                    progress(index + len(waiting), total)
            yield waiting.pop(index)
            if begun < total:
                todo.put(begun)
                begun += 1
    finally:
        stopping.set()
        for _ in crew:
            todo.put(None)
        for worker, thread in zip(crew, threads, strict=True):
            while thread.is_alive():
                worker.kill()
                thread.join(timeout=0.1)


def _feed(
    worker: _Worker[Item, Result],
    items: Sequence[Item],
    todo: queue.SimpleQueue[int | None],
    done: queue.SimpleQueue[tuple[int, Result | Failure] | Exception],
    stopping: threading.Event,
) -> None:
    try:
        while (index := todo.get()) is not None and not stopping.is_set():
            done.put((index, worker.run(items[index])))
    except Exception as error:
        done.put(error)
    finally:
        worker.stop()


def _serve(pipe: Connection, function: Callable[[Item], Result]) -> None:
    """Worker side: answer each item until the pipe closes. The parent handles an interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send("ready")
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(_guarded(function, item))


def _guarded(function: Callable[[Item], Result], item: Item) -> Result | Failure:
    try:
        return function(item)
    except Exception as error:
        return Failure(" ".join(f"{type(error).__name__}: {error}".split()))
