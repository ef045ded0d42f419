"""The training loop: deterministic from its seed, and resumable at any update."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn

from avtune.config import RunConfig
from avtune.errors import AvtuneError
from avtune.tasks import Task
from avtune.tasks.network import Network
from avtune.train.augmentation import augment, check_augmentation
from avtune.train.evaluate import Clips, evaluate, loader
from avtune.train.log import RunLog
from avtune.train.observer import Observer
from avtune.train.optimizer import build_optimizer, schedule_factor
from avtune.train.order import epoch_windows, update_seed
from avtune.train.state import Progress, ResumeError, RunState, load_state, run_identity, save_state
from avtune.train.stop import Stopped, StopRequest
from avtune.transforms import Batch, Sample, collate


class NonFiniteLossError(AvtuneError):
    """The loss or its gradient became NaN or infinite; the message names the clips of the update."""


@dataclass
class FitResult:
    """How training ended.

    Attributes:
        progress: Where it stands.
        weights: Trained weights and statistics at the best validation score (the last ones, where nothing
            was held out).
    """

    progress: Progress
    weights: dict[str, Tensor]


class Trainer:
    """Trains a network in a run folder.

    Args:
        network: Encoder and head.
        task: Loss and scores.
        config: ``train`` and ``optimizer`` are read here; all of it marks which run a saved state belongs to.
        folder: The run folder; ``state/`` and ``log.jsonl`` live there.
        clips: Training clips.
        validation: Clips that select the best weights; ``None``: the last weights are taken.
        names: Names of the training clips, to tell a resumed run from one on other clips.
        weights: Chance of each training clip to be drawn (see :func:`avtune.train.order.balanced_weights`); ``None``:
            each comes once an epoch.
        observer: Who watches.
        workers: Loader processes.

    Raises:
        AvtuneError: There is no clip, the machine cannot train in the precision asked for, or the task's truths cannot
            be mixed or mined as asked for.
    """

    def __init__(
        self,
        network: Network,
        task: Task,
        config: RunConfig,
        folder: Path,
        clips: Clips,
        validation: Clips | None = None,
        *,
        names: list[str],
        weights: Sequence[float] | None = None,
        observer: Observer | None = None,
        workers: int = 0,
    ) -> None:
        if not len(clips):
            raise AvtuneError("there is no clip to train on; check data.root and data.name")
        check_augmentation(config, task)
        self.network, self.task, self.config, self.folder = network, task, config, folder
        self.method = network.encoder.fusion
        self.clips, self.validation, self.workers, self.weights = clips, validation, workers, weights
        self.observer = observer or Observer()
        self.accelerator = _accelerator(config.train.precision)
        self.model: nn.Module
        with warnings.catch_warnings():
            # Newer PyTorch versions rename the option that _accelerator sets; Accelerate knows only the old name.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            self.model, self.optimizer = self.accelerator.prepare(
                network, build_optimizer(network, config.optimizer)
            )
        updates_per_epoch = len(self._windows(0))
        self.steps = updates_per_epoch * config.train.epochs
        self.factor = schedule_factor(config.optimizer, steps=self.steps, steps_per_epoch=updates_per_epoch)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self.identity = run_identity(config, names, self.accelerator.num_processes)
        self.request = StopRequest()
        self.log: RunLog | None = None

    def fit(self) -> FitResult:
        """Train to the end, going on from a saved state if there is one; a finished run is left as it is.

        Raises:
            NonFiniteLossError: The loss is no number; the last good state stays on disk.
            Stopped: The process was asked to stop; the state was saved first.
            avtune.train.state.ResumeError: The saved state is of another run.
        """
        try:
            resumed = self._resume()
            if not self.progress.finished:
                self._train(resumed)
        finally:
            # In half precision Accelerate replaces the network's forward; outside training it is exact again.
            for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
                vars(self.network).pop(name, None)
        return FitResult(self.progress, self.best or _snapshot(self.network))

    def _train(self, resumed: bool) -> None:
        progress = self.progress
        try:
            with self.request:
                if not resumed:
                    self._save()
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
        source = iter(loader(self.clips, [batch for window in windows for batch in window], self.workers))
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
        readable = (
            clip for clip in (self.clips[k] for k in range(len(self.clips))) if isinstance(clip, Sample)
        )
        batch = collate([next(readable)])
        sound = torch.nan_to_num(batch.spectrogram)
        return replace(batch, spectrogram=sound, valid=torch.zeros_like(batch.valid), names=[])

    def _update(self, window: list[Batch], clock: float) -> None:
        """One update: the gradient of the mean loss over all items of all micro-batches of all processes."""
        step = self.progress.step
        factor = self.factor(step)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        torch.manual_seed(update_seed(self.config.train.seed, step, self.accelerator.process_index))
        sums = [self._backward(batch, last=k == len(window)) for k, batch in enumerate(window, 1)]
        total, count = self._sum([sum(total for total, _ in sums), sum(count for _, count in sums)])
        loss = total / max(count, 1)
        if not math.isfinite(loss):
            suspects = [b for b, (own, _) in zip(window, sums, strict=True) if not math.isfinite(own)]
            self._refuse(f"the loss is {loss}", suspects)
        norm = self._finish_gradients(count)
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            self._refuse(f"the gradient's norm is {norm}", window)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        seconds = time.perf_counter() - clock
        self.progress.seconds += seconds
        row = {
            "event": "step",
            "step": step,
            "epoch": self.progress.epoch,
            "loss": loss,
            "lr": self.config.optimizer.lr * factor,
            "gradient_norm": norm,
            "seconds": round(seconds, 4),
        }
        if self.log is not None:
            self.log.write(row)
        self.observer.stepped(row)

    def _backward(self, batch: Batch, last: bool) -> tuple[float, int]:
        """Add the gradient of a micro-batch's summed loss; the sum, and the number of items in it."""
        moved = augment(batch, self.config.train, self.task, self.progress.epoch).to(self.accelerator.device)
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            with self.accelerator.autocast():
                outputs, encoded = self.model(moved)
                loss = self.task.loss(outputs, encoded, moved)
                # The method's own losses are means over the batch; the loop divides all it sums by the count.
                own = self.method.losses(encoded.notes, self.task.foreground(moved), moved.valid.flatten())
                total = loss.total + loss.count * sum(own.values())
            self.accelerator.backward(total)
        return float(total.detach()), loss.count

    def _finish_gradients(self, count: float) -> float:
        """From sums to means, then clipping; the norm before it."""
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        for weight in weights:
            assert weight.grad is not None
            # Between processes the gradients were averaged, not summed.
            weight.grad.mul_(self.accelerator.num_processes / max(count, 1))
        largest = self.config.optimizer.clip_norm
        return float(self.accelerator.clip_grad_norm_(weights, math.inf if largest is None else largest))

    def _refuse(self, what: str, suspects: list[Batch]) -> NoReturn:
        names = gather_object([name for batch in suspects for name in batch.names])
        raise NonFiniteLossError(
            f"{what} at update {self.progress.step} on the clips {', '.join(names)}; look at these files, lower "
            "optimizer.lr or train in fp32 (the last good state is in the run's folder)"
        )

    def _end_epoch(self) -> None:
        progress, train = self.progress, self.config.train
        if progress.step == 0:
            self._merge_damaged()
            first = "; ".join(f"{name}: {problem}" for name, problem in list(progress.damaged.items())[:3])
            raise AvtuneError(
                f"not one training clip could be read ({first}); run `avtune check` on the data"
            )
        row: dict[str, Any] = {"event": "epoch", "step": progress.step - 1, "epoch": progress.epoch}
        if self.validation is not None:
            clock = time.perf_counter()
            found = evaluate(
                self.network, self.task, self.validation, batch_size=train.batch_size, workers=self.workers
            )
            progress.damaged.update(found.damaged)
            progress.seconds += time.perf_counter() - clock
            if found.scores is not None:
                row["validation"] = found.scores.value
                self._compare(found.scores.value)
        row["seconds"] = round(progress.seconds, 3)
        progress.epoch += 1
        progress.window = 0
        out_of_patience = train.patience is not None and progress.stale_epochs >= train.patience
        progress.finished = progress.epoch >= train.epochs or out_of_patience
        if self.log is not None:
            self.log.write(row)
        self.observer.evaluated(row)
        self._save()
        if self._sum([self.request.asked])[0]:
            self._stop()

    def _compare(self, score: float) -> None:
        progress = self.progress
        if score > progress.best or not self.best:
            progress.best, progress.best_step, progress.stale_epochs = score, progress.step, 0
            self.best = _snapshot(self.network)
        else:
            progress.stale_epochs += 1

    def _stop(self) -> NoReturn:
        raise Stopped(
            f"stopped after update {self.progress.step} of {self.steps}; the same command goes on from there"
        )

    def _save(self) -> None:
        self._merge_damaged()
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = RunState(
            progress=self.progress,
            network=self.network.trained_state(),
            best_network=self.best,
            optimizer=self.optimizer.state_dict(),
            scaler=scaler.state_dict() if scaler is not None else {},
            identity=self.identity,
        )
        save_state(self.folder / "state", state)

    def _merge_damaged(self) -> None:
        for damaged in gather_object([self.progress.damaged]):
            self.progress.damaged.update(damaged)

    def _resume(self) -> bool:
        path = self.folder / "state"
        state = load_state(path, self.identity)
        if state is None:
            return False
        self.progress, self.best = state.progress, state.best_network
        try:
            self.network.load_trained_state(state.network)
            self.optimizer.load_state_dict(state.optimizer)
        except (ValueError, KeyError) as error:
            raise ResumeError(
                f"{path}: saved by another version ({error}); train into another folder"
            ) from error
        if state.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)
        if not self.progress.finished:
            self.observer.message(f"going on after update {self.progress.step} of {self.steps}")
        return True

    def _sum(self, values: list[float]) -> list[float]:
        """Each value summed over all processes."""
        if self.accelerator.num_processes == 1:
            return values
        own = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return [float(value) for value in self.accelerator.reduce(own)]

    def _windows(self, epoch: int) -> list[list[list[int]]]:
        return epoch_windows(
            len(self.clips),
            self.config.train.batch_size,
            accumulate=self.config.train.accumulate,
            processes=self.accelerator.num_processes,
            process=self.accelerator.process_index,
            seed=self.config.train.seed,
            epoch=epoch,
            weights=self.weights,
        )


def _accelerator(precision: str) -> Accelerator:
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
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def _snapshot(network: Network) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.trained_state().items()}
