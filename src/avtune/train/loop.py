"""The training loop: deterministic from its seed, and resumable at any update."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from avtune.config import RunConfig
from avtune.errors import AvtuneError
from avtune.tasks import Task
from avtune.tasks.network import Network
from avtune.train.evaluate import Clips, evaluate, loader
from avtune.train.log import RunLog
from avtune.train.observer import Observer
from avtune.train.optimizer import build_optimizer, schedule_factor
from avtune.train.order import epoch_batches
from avtune.train.state import Progress, RunState, load_state, save_state
from avtune.transforms import Batch


class NonFiniteLossError(AvtuneError):
    """The loss became NaN or infinite; the message names the clips of the batch."""


class Stopped(AvtuneError):
    """The run was asked to stop (SIGTERM, SIGINT) and has saved its state."""


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
        observer: Who watches.
        workers: Loader processes.
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
        observer: Observer | None = None,
        workers: int = 0,
    ) -> None:
        self.task, self.config, self.folder = task, config, folder
        self.clips, self.validation, self.workers = clips, validation, workers
        self.observer = observer or Observer()
        self.accelerator = Accelerator(
            mixed_precision="no" if config.train.precision == "fp32" else config.train.precision,
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        self.network = network
        torch.manual_seed(config.train.seed)
        self.model: nn.Module
        self.model, self.optimizer = self.accelerator.prepare(
            network, build_optimizer(network, config.optimizer)
        )
        train = config.train
        sizes = self._epoch_batches(0)
        self.updates_per_epoch = -(-len(sizes) // train.accumulate)
        self.steps = self.updates_per_epoch * train.epochs
        self.factor = schedule_factor(
            config.optimizer, steps=self.steps, steps_per_epoch=self.updates_per_epoch
        )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self.fingerprint = _fingerprint(config, names, self.accelerator.num_processes)
        self.asked_to_stop = self.stopping = False
        self.spare: Batch | None = None

    def fit(self) -> FitResult:
        """Train to the end, going on from a saved state if there is one.

        Raises:
            NonFiniteLossError: The loss is no number; the last good state stays on disk.
            Stopped: The process was asked to stop; the state was saved first.
            avtune.train.state.ResumeError: The saved state is of another run.
        """
        self._resume()
        main = self.accelerator.is_main_process
        self.log = RunLog(self.folder, since=self.progress.step) if main else None
        self.observer.started(self.progress.step, self.steps)
        try:
            with self._signals():
                while not self.progress.finished:
                    self._epoch()
        finally:
            if self.log is not None:
                self.log.close()
        return FitResult(self.progress, self.best or _snapshot(self.network))

    def _epoch(self) -> None:
        batches = self._epoch_batches(self.progress.epoch)
        self.model.train()
        window: list[Batch] = []
        remaining = batches[self.progress.batch :]
        clock = time.perf_counter()
        for number, batch in enumerate(loader(self.clips, remaining, self.workers), self.progress.batch + 1):
            self.progress.damaged.update({bad.name: bad.problem for bad in batch.damaged})
            window.append(self._usable(batch))
            if len(window) == self.config.train.accumulate or number == len(batches):
                self._update(window, clock)
                window, clock = [], time.perf_counter()
                self.progress.batch = number
                self._save_if_due()
        self._end_epoch()

    def _usable(self, batch: Batch) -> Batch:
        """The batch, or, where none of its files could be read, an earlier one in which no segment counts.

        Every process has to take part in every update, also one whose clips are all damaged.
        """
        if batch.names:
            self.spare = batch
            return batch
        if self.spare is None:
            raise AvtuneError(
                "not one clip of the first batch could be read: "
                + "; ".join(f"{bad.name}: {bad.problem}" for bad in batch.damaged)
                + "; run `avtune check` on the data"
            )
        return replace(self.spare, valid=torch.zeros_like(self.spare.valid))

    def _update(self, window: list[Batch], clock: float) -> None:
        """One update from the micro-batches of ``window``; the loss is a mean over all items of all processes."""
        factor = self.factor(self.progress.step)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        losses: list[float] = []
        for k, batch in enumerate(window):
            last = k == len(window) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                losses.append(self._backward(batch, share=1 / len(window)))
        norm = None
        if self.config.optimizer.clip_norm is not None:
            trained = [weight for weight in self.model.parameters() if weight.requires_grad]
            norm = self.accelerator.clip_grad_norm_(trained, self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        seconds = time.perf_counter() - clock
        self.progress.seconds += seconds
        row = {
            "event": "step",
            "step": self.progress.step - 1,
            "epoch": self.progress.epoch,
            "loss": sum(losses) / len(losses),
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds": round(seconds, 4),
        }
        if norm is not None:
            row["gradient_norm"] = float(norm)
        if self.log is not None:
            self.log.write(row)
        self.observer.stepped(row)

    def _backward(self, batch: Batch, share: float) -> float:
        device = self.accelerator.device
        moved = batch.to(device)
        with self.accelerator.autocast():
            outputs, encoded = self.model(moved)
            loss = self.task.loss(outputs, encoded, moved)
        # One small reduction tells every process the global mean and whether anyone was asked to stop.
        report = torch.tensor(
            [float(loss.total.detach()), float(loss.count), float(self.asked_to_stop)],
            dtype=torch.float64, device="cpu" if device.type == "cpu" else device,
        )  # fmt: skip
        total, count, stop = (float(value) for value in self.accelerator.reduce(report))
        self.stopping = stop > 0
        mean = total / max(count, 1.0)
        if not torch.isfinite(torch.tensor(mean)):
            raise NonFiniteLossError(
                f"the loss is {mean} at update {self.progress.step} on the clips {', '.join(batch.names)}; look at "
                "these files, lower optimizer.lr or train in fp32 (the last good state is in the run's folder)"
            )
        # Gradients are averaged over processes, so each one's sum is scaled by their number.
        scale = share * self.accelerator.num_processes / max(count, 1.0)
        self.accelerator.backward(loss.total * scale)
        return mean

    def _end_epoch(self) -> None:
        progress, train = self.progress, self.config.train
        row: dict[str, Any] = {"event": "epoch", "step": progress.step - 1, "epoch": progress.epoch}
        row["seconds"] = round(progress.seconds, 3)
        if self.validation is not None:
            clock = time.perf_counter()
            result = evaluate(
                self.network, self.task, self.validation, batch_size=train.batch_size, workers=self.workers,
                device=self.accelerator.device,
            )  # fmt: skip
            progress.damaged.update(result.damaged)
            progress.seconds += time.perf_counter() - clock
            score = result.scores.value if result.scores is not None else float("-inf")
            row["validation"] = score
            if score > progress.best or not self.best:
                progress.best, progress.best_step, progress.stale_epochs = score, progress.step, 0
                self.best = _snapshot(self.network)
            else:
                progress.stale_epochs += 1
        progress.epoch += 1
        progress.batch = 0
        out_of_patience = train.patience is not None and progress.stale_epochs >= train.patience
        progress.finished = progress.epoch >= train.epochs or out_of_patience
        if self.log is not None:
            self.log.write(row)
        self.observer.evaluated(row)
        self._save()

    def _save_if_due(self) -> None:
        due = (
            self.config.train.save_every is not None
            and self.progress.step % self.config.train.save_every == 0
        )
        if due or self.stopping:
            self._save()
        if self.stopping:
            raise Stopped(f"stopped after update {self.progress.step}; the same command goes on from there")

    def _save(self) -> None:
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = RunState(
            progress=self.progress,
            network=self.network.trained_state(),
            best_network=self.best,
            optimizer=self.optimizer.state_dict(),
            scaler=scaler.state_dict() if scaler is not None else {},
            rng=torch.get_rng_state(),
            fingerprint=self.fingerprint,
        )
        save_state(self.folder / "state", state)

    def _resume(self) -> None:
        state = load_state(self.folder / "state", self.fingerprint)
        if state is None:
            return
        self.progress, self.best = state.progress, state.best_network
        self.network.load_trained_state(state.network)
        self.optimizer.load_state_dict(state.optimizer)
        if state.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)
        torch.set_rng_state(state.rng)
        self.observer.message(f"going on after update {self.progress.step} of {self.steps}")

    def _epoch_batches(self, epoch: int) -> list[list[int]]:
        return epoch_batches(
            len(self.clips),
            self.config.train.batch_size,
            processes=self.accelerator.num_processes,
            process=self.accelerator.process_index,
            seed=self.config.train.seed,
            epoch=epoch,
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """While training, SIGTERM and SIGINT mean: finish an update, save, stop; a second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def restore() -> None:
            for number, handler in previous.items():
                signal.signal(number, handler)

        def ask(number: int, frame: FrameType | None) -> None:
            self.asked_to_stop = True
            restore()

        for number in previous:
            signal.signal(number, ask)
        try:
            yield
        finally:
            restore()


def _snapshot(network: Network) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.trained_state().items()}


def _fingerprint(config: RunConfig, names: list[str], processes: int) -> str:
    content = json.dumps([asdict(config), names, processes], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()
