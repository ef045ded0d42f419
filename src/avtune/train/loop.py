"""Training on labelled clips: a task's loss, and the best weights by its score on held-out clips."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtune.config import RunConfig
from avtune.errors import AvtuneError
from avtune.tasks import Task
from avtune.tasks.network import TaskNetwork
from avtune.train.augmentation import augment, check_augmentation
from avtune.train.evaluate import Clips, evaluate
from avtune.train.observer import Observer
from avtune.train.order import Order
from avtune.train.state import Progress
from avtune.train.updates import Gradients, UpdateLoop
from avtune.transforms import Batch


@dataclass
class FitResult:
    """How training ended.

    Attributes:
        progress: Where it stands.
        weights: Trained weights and statistics at the best validation score (the last ones, where nothing
            was held out), or the mean over epochs.
    """

    progress: Progress
    weights: dict[str, Tensor]


class Trainer(UpdateLoop[RunConfig]):
    """Trains a network in a run folder.

    Args:
        network: Encoder and head.
        task: Loss and scores.
        config: ``train`` and ``optimizer`` are read here; all of it marks which run a saved state belongs to.
        folder: The run folder; ``state/`` and ``log.jsonl`` live there.
        clips: Training clips.
        validation: Clips that select the best weights; ``None``: the last weights are taken.
        names: Names of the training clips, to tell a resumed run from one on other clips.
        order: Draws an epoch's clips (:mod:`avtune.train.order`); ``None``: each once, shuffled.
        observer: Who watches.
        workers: Loader processes.

    Raises:
        AvtuneError: There is no clip, the machine cannot train in the precision asked for, the task's truths cannot be
            mixed or mined as asked for, or weights are to be averaged over epochs that there are not.
    """

    def __init__(
        self,
        network: TaskNetwork,
        task: Task,
        config: RunConfig,
        folder: Path,
        clips: Clips,
        validation: Clips | None = None,
        *,
        names: list[str],
        order: Order | None = None,
        observer: Observer | None = None,
        workers: int = 0,
    ) -> None:
        check_augmentation(config, task)
        _check_averaging(config)
        self.task, self.validation = task, validation
        self.network: TaskNetwork
        super().__init__(
            network, config, folder, clips,
            names=names, order=order, observer=observer, workers=workers, skips_weights=network.skips_weights,
        )  # fmt: skip

    def fit(self) -> FitResult:
        """Train to the end, going on from a saved state if there is one; a finished run is left as it is.

        Raises:
            NonFiniteLossError: The loss is no number; the last good state stays on disk.
            Stopped: The process was asked to stop; the state was saved first.
            avtune.train.state.ResumeError: The saved state is of another run.
        """
        self._run()
        return FitResult(self.progress, self.best or _snapshot(self.network))

    def _gradients(self, window: list[Batch]) -> Gradients:
        """Those of the mean loss over all items of all micro-batches of all processes."""
        sums = [self._backward(batch, last=k == len(window)) for k, batch in enumerate(window, 1)]
        total, count = self._sum([sum(total for total, _ in sums), sum(count for _, count in sums)])
        loss = total / max(count, 1)
        if not math.isfinite(loss):
            suspects = [b for b, (own, _) in zip(window, sums, strict=True) if not math.isfinite(own)]
            self._refuse(f"the loss is {loss}", [name for batch in suspects for name in batch.names])
        for weight in self.model.parameters():
            if weight.grad is not None:
                # From sums to means; between processes the gradients were averaged, not summed.
                weight.grad.mul_(self.accelerator.num_processes / max(count, 1))
        return Gradients(loss, self._clip())

    def _backward(self, batch: Batch, last: bool) -> tuple[float, int]:
        """Add the gradient of a micro-batch's summed loss; the sum, and the number of items in it."""
        moved = augment(batch, self.config, self.task, self.progress.epoch).to(self.accelerator.device)
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            with self.accelerator.autocast():
                outputs, encoded = self.model(moved)
                loss = self.task.loss(outputs, encoded, moved)
                # The network's own losses are means over the batch; the loop divides all it sums by the count.
                own = self.network.losses(encoded, self.task.foreground(moved), moved.valid.flatten())
                total = loss.total + loss.count * sum(own.values())
            self.accelerator.backward(total)
        return float(total.detach()), loss.count

    def _weights(self) -> dict[str, Tensor]:
        return self.network.trained_state()

    def _load_weights(self, weights: dict[str, Tensor]) -> None:
        self.network.load_trained_state(weights)

    def _score_epoch(self) -> dict[str, Any]:
        """Score on the validation clips; keep the weights if they are better, or bring them into the average."""
        first = self.config.train.average_from
        if first is not None:
            self._average(self.progress.epoch + 2 - first)
        if self.validation is None:
            return {}
        found = evaluate(
            self.network,
            self.task,
            self.validation,
            batch_size=self.config.train.batch_size,
            workers=self.workers,
        )
        self.progress.damaged.update(found.damaged)
        if found.scores is None:
            return {}
        if first is None:
            self._compare(found.scores.value)
        return {"validation": found.scores.value}

    def _is_enough(self) -> bool:
        patience = self.config.train.patience
        return patience is not None and self.progress.stale_epochs >= patience

    def _compare(self, score: float) -> None:
        progress = self.progress
        if score > progress.best or not self.best:
            progress.best, progress.best_step, progress.stale_epochs = score, progress.step, 0
            self.best = _snapshot(self.network)
        else:
            progress.stale_epochs += 1

    def _average(self, epochs: int) -> None:
        """Bring the weights in as the last of so many epochs, from 1; there is nothing to do before."""
        for name, weight in _snapshot(self.network).items() if epochs > 0 else ():
            if epochs == 1 or not weight.is_floating_point():
                self.best[name] = weight
            else:
                self.best[name] = torch.lerp(self.best[name], weight, 1 / epochs)


def _check_averaging(config: RunConfig) -> None:
    train = config.train
    if train.average_from is None:
        return
    if not 1 <= train.average_from <= train.epochs:
        raise AvtuneError(
            f"train.average_from is {train.average_from}; set it from 1 to the {train.epochs} epochs"
        )
    if train.patience is not None:
        raise AvtuneError(
            "train.average_from takes all epochs, and train.patience ends before them; leave one out"
        )


def _snapshot(network: TaskNetwork) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.trained_state().items()}
