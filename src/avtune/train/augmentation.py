"""What training does to a batch before the network sees it, as a recipe states it."""

from __future__ import annotations

from avtune.config import RunConfig
from avtune.errors import AvtuneError
from avtune.tasks import Task
from avtune.transforms import (
    Batch,
    add_noise,
    crop_segments,
    drop_stream,
    flip_frames,
    mask_sound,
    mine_foreground,
    mix_clips,
    resolve_audio,
    roll_sound,
)


def check_augmentation(config: RunConfig, task: Task) -> None:
    """Refuse, before anything is trained, what the task's truths do not allow.

    Raises:
        AvtuneError: Clips whose truths cannot be mixed are to be mixed, or called background where nothing is, or both
            streams are needed where one is to be left out, or a crop would tell more than the clip's labels.
    """
    train, head = config.train, config.head
    if train.crop_segments is not None and head.supervision == "clips":
        raise AvtuneError(
            "train.crop_segments would tell which events each crop holds, and head.supervision clips is to tell only "
            "which the clip does; set train.crop_segments to null"
        )
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
    if train.drop_stream and (task.streams_apart or task.background is not None):
        raise AvtuneError(
            f"train.drop_stream leaves out a stream, and the task {head.task} with the head {head.name} is about both "
            "together; set it to 0"
        )


def augment(batch: Batch, config: RunConfig, task: Task, epoch: int) -> Batch:
    """A batch with its segments cropped and its clips mirrored, mismatched, mixed and disturbed, as a recipe says.

    Args:
        batch: Training clips.
        config: ``train`` says how, and the seed; ``input.audio`` what spectrograms are.
        task: What their truth is.
        epoch: Index of the epoch, from 0.
    """
    train = config.train
    seed, audio = train.seed, resolve_audio(config.input.audio)
    if train.crop_segments is not None:
        batch = crop_segments(
            batch, train.crop_segments, seed=seed, epoch=epoch, target_per_segment=task.target_per_segment
        )
    batch = flip_frames(batch, train.flip, seed=seed, epoch=epoch, target_is_picture=task.target_is_picture)
    if train.mining != "off" and task.background is not None:
        batch = mine_foreground(
            batch, train.mining_share, background=task.background, relabel_only=train.mining == "official",
            seed=seed, epoch=epoch,
        )  # fmt: skip
    batch = mix_clips(batch, train.mixup, soften=task.soft_target, seed=seed, epoch=epoch)
    batch = mask_sound(batch, train.mask_mels, train.mask_steps, audio=audio, seed=seed, epoch=epoch)
    batch = add_noise(batch, train.noise, seed=seed, epoch=epoch)
    batch = roll_sound(batch, train.roll_steps, audio=audio, seed=seed, epoch=epoch)
    return drop_stream(batch, train.drop_stream, seed=seed, epoch=epoch)
