"""Sound and frames of different events as examples of background: MA-AVT's foreground mining (section 3.4)."""

from __future__ import annotations

from dataclasses import replace

import torch

from avtune.errors import AvtuneError
from avtune.transforms.augment import draw, draw_pair
from avtune.transforms.collate import Batch


def mine_foreground(
    batch: Batch, share: float, *, background: int, relabel_only: bool = False, seed: int, epoch: int
) -> Batch:
    """Call some clips background: those whose frames are exchanged for the frames of a clip of another class.

    A chosen clip keeps its sound and gets, segment by segment, the frames of a clip of the batch that shows events,
    none of which is among its own. All its segments become background; segments that do not exist in both clips no
    longer count. Clips without events, without sound or without frames neither change nor lend frames, and a clip
    for which the batch holds no partner stays as it is, so a batch of one clip is never changed.

    What is chosen depends on the seed, the epoch and the clips' names. The partner is a clip of the same batch, so
    it also depends on which clips a process sees together.

    Args:
        batch: Clips whose target is a class for each segment, (B, T) int64, or for the whole clip, (B,).
        share: Probability of being chosen, in [0, 1]; the authors' 0.2.
        background: Index of the background class.
        relabel_only: Leave the frames as they are, so that matched pairs are called background: what the
            authors' code does in effect. Only to compare with it.
        seed: Seed of the run.
        epoch: Index of the epoch, from 0.

    Returns:
        The batch with changed frames and targets; the same one where nothing changes.

    Raises:
        AvtuneError: The batch's target is not classes.
    """
    if share == 0 or not batch.names:
        return batch
    shapes = (batch.valid.shape, batch.valid.shape[:1])
    if batch.target is None or batch.target.is_floating_point() or batch.target.shape not in shapes:
        raise AvtuneError("train.mining needs a task with one class for each segment or clip; set it to off")
    told = batch.target if batch.target.ndim == 2 else batch.target[:, None].expand_as(batch.valid)
    chosen = [k for k, name in enumerate(batch.names) if share > draw(name, seed, epoch, 2)]
    if relabel_only:
        return _changed(batch, {k: k for k in chosen}, background)
    events = [
        {int(label) for label in labels[valid]} - {background}
        for labels, valid in zip(told, batch.valid, strict=True)
    ]
    whole = (batch.has_audio & batch.has_video).tolist()
    partners: dict[int, int] = {}
    for k in chosen:
        others = [
            j
            for j in range(len(batch.names))
            if whole[k] and whole[j] and events[k] and events[j] and not events[k] & events[j]
        ]
        if others:
            partners[k] = min(
                others, key=lambda j: (draw_pair(batch.names[k], batch.names[j], seed, epoch, 3), j)
            )
    return _changed(batch, partners, background)


def _changed(batch: Batch, partners: dict[int, int], background: int) -> Batch:
    if not partners:
        return batch
    assert batch.target is not None
    source = torch.arange(len(batch.names), device=batch.frames.device)
    changed = torch.tensor(list(partners), device=source.device)
    source[changed] = torch.tensor(list(partners.values()), device=source.device)
    return replace(
        batch,
        frames=batch.frames[source],
        valid=batch.valid & batch.valid[source],
        target=batch.target.index_fill(0, changed, background),
    )
