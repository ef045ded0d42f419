"""Frames of other files in a batch, with which a clip's sound is compared to learn what belongs together."""

from __future__ import annotations

import torch
from torch import Tensor

from avtune.transforms import Batch


def strangers(batch: Batch) -> tuple[Tensor, Tensor]:
    """For each segment one frame of another file.

    A clip's segments take turns among the clips of other files, so that each second meets another one where there are
    several. Who meets whom follows from the names of clips and files, not from their order in the batch.

    Args:
        batch: B clips of T segments.

    Returns:
        Places of the frames among those of the batch (B, T) int64, the clip's own where there is no other; and which
        clips have another file beside them (B,) bool. Files without frames are taken only where all are so.
    """
    clips, segments = batch.valid.shape
    places = torch.arange(clips * segments).view(clips, segments)
    valid = batch.valid.cpu()
    sources, names = batch.sources or batch.names, batch.names or [""] * clips
    order = sorted(valid.any(dim=1).nonzero().flatten().tolist(), key=lambda k: (sources[k], names[k]))
    seen = batch.has_video.cpu()
    shown = {k for k in order if seen[k]} or set(order)
    there = {k: valid[k].nonzero().flatten() for k in order}
    found = torch.zeros(clips, dtype=torch.bool)
    for place, k in enumerate(order):
        behind = order[place + 1 :] + order[:place]
        others = [other for other in behind if other in shown and sources[other] != sources[k]]
        if not others:
            continue
        found[k] = True
        for t in range(segments):
            other = others[t % len(others)]
            places[k, t] = other * segments + there[other][t % len(there[other])]
    return places.to(batch.valid.device), found.to(batch.valid.device)


def stranger_tokens(video: Tensor, batch: Batch) -> Tensor:
    """The tokens of each segment's frame of another file.

    Args:
        video: Frame tokens of the batch (B * T, length, dim).
        batch: The batch.

    Returns:
        (B * T, length, dim); where there is no other file, the clip's own.
    """
    places, _ = strangers(batch)
    return video[places.flatten()]
