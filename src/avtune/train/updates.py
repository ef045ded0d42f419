"""The updates of a run, one after the other: deterministic from its seed, and resumable at any of them."""

from __future__ import annotations

import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from avtune.config import PretrainingRunConfig, RunConfig
from avtune.errors import AvtuneError
from avtune.train.evaluate import Clips, loader
from avtune.train.log import RunLog
from avtune.train.observer import Observer
from avtune.train.optimizer import build_optimizer, schedule_factor
from avtune.train.order import Order, epoch_windows, update_seed
from avtune.train.repeatable import repeatable
from avtune.train.state import Progress, ResumeError, RunState, load_state, run_identity, save_state
from avtune.train.stop import Stopped, StopRequest
from avtune.transforms import Batch, Sample, collate

MOST_NAMES = 20
Config = TypeVar("Config", bound=RunConfig | PretrainingRunConfig)


class NonFiniteLossError(AvtuneError):
    """The loss or its gradient became NaN or infinite; the message names the clips of the update."""


@dataclass(frozen=True)
class Gradients:
    """What an update found before it changes a weight.

    Attributes:
        loss: Over all clips of all processes.
        norm: Of the gradient, before it was clipped.
        facts: Further values for the log, by name.
    """

    loss: float
    norm: float
    facts: dict[str, float] = field(default_factory=dict)


class UpdateLoop(ABC, Generic[Config]):
    """Goes through the updates of a run in a run folder; a subclass says how gradients come about.

    Args:
        network: What is trained.
        config: ``train`` and ``optimizer`` are read here; all of it marks which run a saved state belongs to.
        folder: The run folder; ``state/`` and ``log.jsonl`` live there.
        clips: Training clips.
        names: Their names, to tell a resumed run from one on other clips.
        order: Draws an epoch's clips; ``None``: each once, shuffled.
        observer: Who watches.
        workers: Loader processes.
        skips_weights: Whether a batch may leave weights of the network out.

    Raises:
        AvtuneError: There is no clip, or the machine cannot train in the precision asked for.
    """

    def __init__(
        self,
        network: nn.Module,
        config: Config,
        folder: Path,
        clips: Clips,
        *,
        names: list[str],
        order: Order | None = None,
        observer: Observer | None = None,
        workers: int = 0,
        skips_weights: bool = False,
    ) -> None:
        if not len(clips):
            raise AvtuneError("there is no clip to train on; check data.root and data.name")
        self.network, self.folder = network, folder
        self.config: Config = config
        self.clips, self.order, self.workers = clips, order, workers
        self.observer = observer or Observer()
        self.accelerator = _accelerator(config.train.precision, skips_weights)
        self.model, self.optimizer = self._place()
        updates_per_epoch = len(self._windows(0))
        self.steps = updates_per_epoch * config.train.epochs
        self.factor = schedule_factor(config.optimizer, steps=self.steps, steps_per_epoch=updates_per_epoch)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self.identity = run_identity(config, names, self.accelerator.num_processes)
        self.request = StopRequest()
        self.log: RunLog | None = None

    @abstractmethod
    def _gradients(self, window: list[Batch]) -> Gradients:
        """Leave in every weight the gradient, clipped, of the loss over all micro-batches of all processes."""

    @abstractmethod
    def _weights(self) -> dict[str, Tensor]:
        """What a saved state has to hold of the network; every process calls it."""

    @abstractmethod
    def _load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put back what :meth:`_weights` gave.

        Raises:
            ValueError: Names or shapes differ.
        """

    def _place(self) -> tuple[nn.Module, Any]:
        """The network spread over the processes, and its optimiser."""
        with warnings.catch_warnings():
            # Newer PyTorch versions rename the option that _accelerator sets; Accelerate knows only the old name.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            optimizer = build_optimizer(self.network, self.config.optimizer)
            model, optimizer = self.accelerator.prepare(self.network, optimizer)
        return model, optimizer

    def _optimizer_state(self) -> dict[str, Any]:
        """What a saved state has to hold of the optimiser; every process calls it."""
        state: dict[str, Any] = self.optimizer.state_dict()
        return state

    def _load_optimizer_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)

    def _drawn(self) -> Clips:
        """The training clips as the epoch under way sees them."""
        return self.clips

    def _score_epoch(self) -> dict[str, Any]:
        """Look at what an epoch brought; what the log shall hold of it."""
        return {}

    def _is_enough(self) -> bool:
        """Whether to end before the last epoch."""
        return False

    def _run(self) -> None:
        """Train to the end, going on from a saved state if there is one; a finished run is left as it is.

        Raises:
            NonFiniteLossError: The loss is no number; the last good state stays on disk.
            Stopped: The process was asked to stop; the state was saved first.
            avtune.train.state.ResumeError: The saved state is of another run.
        """
        try:
            self._resume()
            if not self.progress.finished:
                with repeatable(self.accelerator.device):
                    self._train()
        finally:
            # In half precision Accelerate replaces the network's forward; outside training it is exact again.
            for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
                vars(self.network).pop(name, None)

    def _train(self) -> None:
        progress = self.progress
        try:
            with self.request:
                if self.accelerator.is_main_process:
                    self.log = RunLog(self.folder, step=progress.step, epoch=progress.epoch)
                self.observer.started(progress.step, self.steps)
                while not progress.finished:
                    self._epoch()
                    self._end_epoch()
        finally:
            if self.log is not None:
                self.log.close()

    def _epoch(self) -> None:
        train, progress = self.config.train, self.progress
        windows = self._windows(progress.epoch)[progress.window :]
        batches = [batch for window in windows for batch in window]
        pinned = self.accelerator.device.type == "cuda"
        source = iter(loader(self._drawn(), batches, self.workers, pinned))
        self.model.train()
        for indices in windows:
            clock = time.perf_counter()
            if window := self._window(source, size=len(indices)):
                self._update(window, clock)
            progress.window += 1
            if train.save_every is not None and progress.step % train.save_every == 0:
                self._save()

    def _window(self, source: Iterator[Batch], size: int) -> list[Batch]:
        """The micro-batches of one update, without those of which no process could read a clip.

        All processes agree here on what is in it and on whether anyone was asked to stop, so that each takes part
        in the same updates.
        """
        window: list[Batch] = []
        try:
            while len(window) < size and not self.request.asked:
                window.append(next(source))
        except RuntimeError:
            if not self.request.asked:  # else its workers got the signal too
                raise
        clips = [len(batch) for batch in window] + [0] * (size - len(window))
        stop, *present = self._sum([self.request.asked, *clips])
        if stop:
            self._save()
            self._stop()
        for batch in window:
            self.progress.damaged.update({bad.name: bad.problem for bad in batch.damaged})
        return [batch if len(batch) else self._blank for batch, n in zip(window, present, strict=True) if n]

    @cached_property
    def _blank(self) -> Batch:
        """A batch in which nothing counts, for a process that could read no clip while another one could."""
        clips = self._drawn()
        readable = (clip for clip in (clips[k] for k in range(len(clips))) if isinstance(clip, Sample))
        batch = collate([next(readable)])
        sound = torch.nan_to_num(batch.spectrogram)
        return replace(batch, spectrogram=sound, valid=torch.zeros_like(batch.valid), names=[])

    def _update(self, window: list[Batch], clock: float) -> None:
        step = self.progress.step
        factor = self.factor(step)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        torch.manual_seed(update_seed(self.config.train.seed, step, self.accelerator.process_index))
        found = self._gradients(window)
        if not math.isfinite(found.norm) and self.accelerator.scaler is None:
            self._refuse(f"the gradient's norm is {found.norm}", [n for batch in window for n in batch.names])
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        seconds = time.perf_counter() - clock
        self.progress.seconds += seconds
        row = {
            "event": "step",
            "step": step,
            "epoch": self.progress.epoch,
            "loss": found.loss,
            **found.facts,
            "lr": self.config.optimizer.lr * factor,
            "gradient_norm": found.norm,
            "seconds": round(seconds, 4),
        }
        if self.log is not None:
            self.log.write(row)
        self.observer.stepped(row)

    def _clip(self) -> float:
        """Clip the gradient; its norm before that."""
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        largest = self.config.optimizer.clip_norm
        norm = self.accelerator.clip_grad_norm_(weights, math.inf if largest is None else largest)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def _refuse(self, what: str, suspects: list[str]) -> NoReturn:
        names = gather_object(suspects)
        if len(names) > MOST_NAMES:
            names = [*names[:MOST_NAMES], f"and {len(names) - MOST_NAMES} more"]
        raise NonFiniteLossError(
            f"{what} at update {self.progress.step} on the clips {', '.join(names)}; look at these files, or "
            "lower optimizer.lr or set train.precision to fp32 in another folder"
        )

    def _end_epoch(self) -> None:
        progress = self.progress
        if progress.step == 0:
            self._merge_damaged()
            first = "; ".join(f"{name}: {problem}" for name, problem in list(progress.damaged.items())[:3])
            raise AvtuneError(
                f"not one training clip could be read ({first}); run `avtune check` on the data"
            )
        row: dict[str, Any] = {"event": "epoch", "step": progress.step - 1, "epoch": progress.epoch}
        clock = time.perf_counter()
        row |= self._score_epoch()
        progress.seconds += time.perf_counter() - clock
        row["seconds"] = round(progress.seconds, 3)
        progress.epoch += 1
        progress.window = 0
        progress.finished = progress.epoch >= self.config.train.epochs or self._is_enough()
        if self.log is not None:
            self.log.write(row)
        self.observer.evaluated(row)
        self._save()
        if self._sum([self.request.asked])[0]:
            self._stop()

    def _stop(self) -> NoReturn:
        raise Stopped(
            f"stopped after update {self.progress.step} of {self.steps}; the same command goes on from there"
        )

    def _save(self) -> None:
        self._merge_damaged()
        weights, optimizer = self._weights(), self._optimizer_state()
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = RunState(
            progress=self.progress,
            network=weights,
            best_network=self.best,
            optimizer=optimizer,
            scaler=scaler.state_dict() if scaler is not None else {},
            identity=self.identity,
        )
        save_state(self.folder / "state", state)

    def _merge_damaged(self) -> None:
        for damaged in gather_object([self.progress.damaged]):
            self.progress.damaged.update(damaged)

    def _resume(self) -> None:
        path = self.folder / "state"
        state = load_state(path, self.identity)
        if state is None:
            return
        self.progress, self.best = state.progress, state.best_network
        try:
            self._load_weights(state.network)
            self._load_optimizer_state(state.optimizer)
        except (ValueError, KeyError) as error:
            raise ResumeError(
                f"{path}: saved by another version ({error}); train into another folder"
            ) from error
        if state.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)
        if not self.progress.finished:
            self.observer.message(f"going on after update {self.progress.step} of {self.steps}")

    def _sum(self, values: list[float]) -> list[float]:
        """Each value summed over all processes."""
        if self.accelerator.num_processes == 1:
            return values
        own = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        summed: list[float] = self.accelerator.reduce(own).tolist()
        return summed

    def _windows(self, epoch: int) -> list[list[list[int]]]:
        return epoch_windows(
            len(self.clips),
            self.config.train.batch_size,
            accumulate=self.config.train.accumulate,
            processes=self.accelerator.num_processes,
            process=self.accelerator.process_index,
            seed=self.config.train.seed,
            epoch=epoch,
            order=self.order,
        )


def _accelerator(precision: str, skips_weights: bool) -> Accelerator:
    if precision == "fp16" and not torch.cuda.is_available():
        raise AvtuneError(
            "train.precision fp16 needs a CUDA device, and there is none; choose bf16 or fp32 instead"
        )
    # Accelerate would keep the precision of this process's first run for all later ones.
    AcceleratorState._reset_state()
    return Accelerator(
        # Accelerate would leave each of several processes on its own when it finds no device.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=skips_weights)
        ],
    )
