"""What training does to a batch before the network sees it, as a recipe states it."""

from __future__ import annotations

from avtune.config import RunConfig, TrainConfig
from avtune.errors import AvtuneError
from avtune.tasks import Task
from avtune.transforms import Batch, crop_segments, flip_frames, mine_foreground, mix_clips


def check_augmentation(config: RunConfig, task: Task) -> None:
    """Refuse, before anything is trained, what the task's truths do not allow.

    Raises:
        AvtuneError: Clips whose truths cannot be mixed are to be mixed, or called background where nothing is.
    """
    train, head = config.train, config.head
    if train.mixup and not task.mixable:
        raise AvtuneError(
            f"train.mixup mixes clips and their classes, which the task {head.task} with the head {head.name} cannot; "
            "set it to 0"
        )
    if train.mining != "off" and task.background is None:
        raise AvtuneError(
            f"train.mining calls clips background, which the task {head.task} with the head {head.name} does not know; "
            "set it to off"
        )


def augment(batch: Batch, train: TrainConfig, task: Task, epoch: int) -> Batch:
    """A batch with its segments cropped and its clips mirrored, mismatched or mixed, as ``train`` says.

    Args:
        batch: Training clips.
        train: How, and the seed.
        task: What their truth is.
        epoch: Index of the epoch, from 0.

    Raises:
        AvtuneError: A share or number is impossible.
    """
    if train.crop_segments is not None:
        batch = crop_segments(
            batch, train.crop_segments, seed=train.seed, epoch=epoch,
            target_per_segment=task.target_per_segment,
        )  # fmt: skip
    batch = flip_frames(
        batch, train.flip, seed=train.seed, epoch=epoch, target_is_picture=task.target_is_picture
    )
    if train.mining != "off" and task.background is not None:
        batch = mine_foreground(
            batch, train.mining_share, background=task.background, relabel_only=train.mining == "official",
            seed=train.seed, epoch=epoch,
        )  # fmt: skip
    return mix_clips(batch, train.mixup, soften=task.soft_target, seed=train.seed, epoch=epoch)
