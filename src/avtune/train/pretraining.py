"""Pretraining on clips without labels: each update's clips are each other's negatives, in whatever pieces they come."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from avtune.config import PretrainingRunConfig
from avtune.errors import AvtuneError
from avtune.pretrain.blocks import recompute_blocks
from avtune.pretrain.masking import Kept
from avtune.pretrain.objective import Masks, PretrainingLoss, PretrainingModel, Pull, Share
from avtune.tasks import Task
from avtune.train.evaluate import Clips, evaluate
from avtune.train.observer import Observer
from avtune.train.optimizer import build_optimizer
from avtune.train.order import Order, epoch_windows, update_seed
from avtune.train.pretraining_clips import OneFrame
from avtune.train.sharding import shard
from avtune.train.state import Progress
from avtune.train.updates import Gradients, UpdateLoop
from avtune.transforms import Batch, Preprocessing, add_noise, normalise_frames, roll_sound

FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Pretrainer(UpdateLoop[PretrainingRunConfig]):
    """Pretrains a model in a run folder.

    Args:
        model: The objective.
        preprocessing: How its clips were prepared.
        config: ``train`` and ``optimizer`` are read here; all of it marks which run a saved state belongs to.
        folder: The run folder; ``state/`` and ``log.jsonl`` live there.
        clips: Training clips.
        validation: Clips that are searched after each epoch, for the log; ``None``: none are. Sharded weights are
            not looked at before the end.
        task: Scores them.
        names: Names of the training clips, to tell a resumed run from one on other clips.
        order: Draws an epoch's clips, each once; ``None``: shuffled.
        observer: Who watches.
        workers: Loader processes.

    Raises:
        AvtuneError: There is no clip, or the machine cannot train in the precision asked for.
    """

    network: PretrainingModel

    def __init__(
        self,
        model: PretrainingModel,
        preprocessing: Preprocessing,
        config: PretrainingRunConfig,
        folder: Path,
        clips: Clips,
        validation: Clips | None,
        task: Task,
        *,
        names: list[str],
        order: Order | None = None,
        observer: Observer | None = None,
        workers: int = 0,
    ) -> None:
        self.preprocessing, self.validation, self.task, self.names = preprocessing, validation, task, names
        self._order: tuple[int, list[list[list[int]]]] = (-1, [])
        recompute_blocks(model, config.train.checkpoint)
        super().__init__(
            model, config, folder, clips, names=names, order=order, observer=observer, workers=workers
        )

    def fit(self) -> Progress:
        """Train to the end, going on from a saved state if there is one; a finished run is left as it is.

        Raises:
            NonFiniteLossError: The loss is no number; the last good state stays on disk.
            Stopped: The process was asked to stop; the state was saved first.
            avtune.train.state.ResumeError: The saved state is of another run.
        """
        self._run()
        return self.progress

    def weights(self) -> dict[str, Tensor]:
        """All weights of the model on the first process; every process has to call it."""
        return self._weights()

    def _place(self) -> tuple[nn.Module, Any]:
        if not self.config.train.shard:
            return super()._place()
        if self.accelerator.num_processes == 1:
            raise AvtuneError(
                "train.shard spreads a model over several processes, and this is one; start them by torchrun, or leave "
                "it out"
            )
        shard(self.network, self.accelerator.device)
        # The optimiser must see the shards, which took the weights' places.
        optimizer = self.accelerator.prepare(build_optimizer(self.network, self.config.optimizer))
        return self.network, optimizer

    def _gradients(self, window: list[Batch]) -> Gradients:
        """Those of the losses over all clips of all micro-batches of all processes."""
        window = [self._disturbed(batch) for batch in window]
        masks = [self._masks(batch) for batch in window]
        hidden = [mask.hidden if batch.names else (0, 0) for batch, mask in zip(window, masks, strict=True)]
        blanks = sum(not batch.names for batch in window)
        audio, video, blanks_anywhere = self._sum([*map(sum, zip(*hidden, strict=True)), blanks])
        pulls: list[Pull | None] = [None] * len(window)
        if self.network.contrast is not None and (len(window) > 1 or blanks_anywhere):
            pulls = [*self._pulls(window, masks)]
        processes, losses = self.accelerator.num_processes, []
        for k, (batch, mask, pull) in enumerate(zip(window, masks, pulls, strict=True), 1):
            share = Share(
                processes * hidden[k - 1][0] / max(audio, 1),
                processes * hidden[k - 1][1] / max(video, 1),
                pull,
            )
            losses.append(self._backward(batch, mask, share, last=k == len(window)))
        facts = self._facts(losses)
        loss = facts.pop("total")
        if not math.isfinite(loss):
            self._refuse(f"the loss is {loss}", _suspects(window))
        return Gradients(loss, self._clip(), facts)

    def _pulls(self, window: list[Batch], masks: list[Masks]) -> list[Pull]:
        """What the contrast of all micro-batches asks of each: features first, gradients through the encoders later."""
        audio: list[Tensor] = []
        video: list[Tensor] = []
        for batch, mask in zip(window, masks, strict=True):
            with torch.no_grad(), self.accelerator.autocast():
                features = self.network.features(*self._inputs(batch), mask)
            # Of a blank nothing is compared; its share of the gradient has no row.
            for part, feature in zip((audio, video), features, strict=True):
                part.append(feature[: len(batch)].float())
        found = self.network.pull(torch.cat(audio), torch.cat(video))
        return found.parts([len(batch) for batch in window])

    def _backward(self, batch: Batch, masks: Masks, share: Share, last: bool) -> PretrainingLoss:
        with self._accumulating(last):
            with self.accelerator.autocast():
                loss: PretrainingLoss = self.model(*self._inputs(batch), masks, share)
            self.accelerator.backward(loss.total)
        return loss

    @contextmanager
    def _accumulating(self, last: bool) -> Iterator[None]:
        """Exchange gradients between processes only behind the last micro-batch."""
        if self.config.train.shard:
            self.model.set_requires_gradient_sync(last)  # type: ignore[operator]
            yield
        elif last:
            yield
        else:
            with self.accelerator.no_sync(self.model):
                yield

    def _facts(self, losses: list[PretrainingLoss]) -> dict[str, float]:
        """The update's losses by name."""
        present = {name: value for name, value in vars(losses[0]).items() if value is not None}
        table = torch.stack(
            [torch.stack([getattr(loss, name).detach() for name in present]) for loss in losses]
        )
        sums = self._sum(table.double().sum(0).tolist())
        return dict(zip(present, (value / self.accelerator.num_processes for value in sums), strict=True))

    def _masks(self, batch: Batch) -> Masks:
        """What is seen of a batch: drawn for the whole update, so that it is the same in whatever pieces it comes."""
        ((clips,), seed) = self._whole_updates()[self.progress.window], self.config.train.seed
        places = {self.names[clip]: place for place, clip in enumerate(clips)}
        generator = torch.Generator().manual_seed(update_seed(seed, self.progress.step, process=0))
        # A blank has no place; nothing of it counts.
        own = [places[name] for name in batch.names] or [0]
        return self.network.draw(len(clips), generator, own)

    def _whole_updates(self) -> list[list[list[int]]]:
        """The clips of each update of the epoch, on all processes together."""
        train, epoch = self.config.train, self.progress.epoch
        if self._order[0] != epoch:
            size = train.batch_size * train.accumulate * self.accelerator.num_processes
            whole = epoch_windows(
                len(self.clips), size, accumulate=1, processes=1, process=0, seed=train.seed, epoch=epoch,
                order=self.order,
            )  # fmt: skip
            self._order = (epoch, whole)
        return self._order[1]

    def _disturbed(self, batch: Batch) -> Batch:
        train, epoch = self.config.train, self.progress.epoch
        batch = add_noise(batch, train.noise, seed=train.seed, epoch=epoch)
        return roll_sound(
            batch, train.roll_steps, audio=self.preprocessing.audio, seed=train.seed, epoch=epoch
        )

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        moved = batch.to(self.accelerator.device, non_blocking=True)
        return model_inputs(moved, self.preprocessing)

    def _drawn(self) -> Clips:
        return OneFrame(self.clips, self.config.train.seed, self.progress.epoch)

    def _score_epoch(self) -> dict[str, Any]:
        if self.validation is None or self.config.train.shard:
            return {}
        found = evaluate(
            Matcher(self.network, self.preprocessing), self.task, self.validation,
            batch_size=self.config.train.batch_size, workers=self.workers,
        )  # fmt: skip
        return {} if found.scores is None else {"validation": found.scores.value}

    def _weights(self) -> dict[str, Tensor]:
        if self.config.train.shard:
            whole: Any = get_model_state_dict(self.network, options=FULL)
            return dict(whole)
        return self.network.state_dict()

    def _load_weights(self, weights: dict[str, Tensor]) -> None:
        try:
            if self.config.train.shard:
                set_model_state_dict(self.network, dict(weights), options=FULL)
            else:
                self.network.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(str(error).splitlines()[-1].strip()) from error

    def _optimizer_state(self) -> dict[str, Any]:
        if self.config.train.shard:
            return get_optimizer_state_dict(self.network, self.optimizer.optimizer, options=FULL)
        return super()._optimizer_state()

    def _load_optimizer_state(self, state: dict[str, Any]) -> None:
        if self.config.train.shard:
            set_optimizer_state_dict(self.network, self.optimizer.optimizer, state, options=FULL)
        else:
            super()._load_optimizer_state(state)


class Matcher(nn.Module):
    """A pretrained model as scoring asks it: what the contrastive loss compares, of whole sounds and frames.

    Args:
        model: The model.
        preprocessing: How its clips were prepared.
    """

    def __init__(self, model: PretrainingModel, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model, self.preprocessing = model, preprocessing

    def forward(self, batch: Batch) -> tuple[Tensor, None]:
        """Vectors (batch, 2, dim) of unit length, sound first."""
        sound, frames = model_inputs(batch, self.preprocessing)
        encoder = self.model.encoder
        everything = Masks(
            Kept.everything(len(sound), encoder.audio.length),
            Kept.everything(len(frames), encoder.video.length),
        )
        vectors = torch.stack(self.model.features(sound, frames, everything), dim=1)
        return nn.functional.normalize(vectors.float(), dim=-1), None


def model_inputs(batch: Batch, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """What a pretraining model takes of clips of one frame: (clips, mels, steps) and (clips, 3, height, width)."""
    frames = normalise_frames(batch.frames[:, 0], preprocessing.mean, preprocessing.std)
    return batch.spectrogram[:, 0], frames


def _suspects(window: list[Batch]) -> list[str]:
    """Clips whose sound is no number; all where there is none such."""
    names = [name for batch in window for name in batch.names]
    finite = [
        ok for batch in window for ok in batch.spectrogram.isfinite().flatten(1).all(1)[: len(batch)].tolist()
    ]
    return [name for name, ok in zip(names, finite, strict=True) if not ok] or names
