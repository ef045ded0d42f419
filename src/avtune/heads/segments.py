"""What the late-fusion heads share: a frame's cells, which segments exist, recurrence over those."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from avtune.encoder import Encoded


def cells(encoded: Encoded) -> Tensor:
    """The patches of each frame, without class and register tokens.

    Args:
        encoded: Streams after their towers, of square frames.

    Returns:
        (batch, T, cells, video dim).
    """
    patches = encoded.video[:, encoded.video_prefix :]
    return patches.reshape(*encoded.video_pooled.shape[:2], *patches.shape[1:])


def existing(encoded: Encoded) -> Tensor:
    """Which segments lie within their clips; all others repeat a clip's end and must not be heard.

    Args:
        encoded: Streams after their towers.

    Returns:
        (batch, T) bool. A clip without any segment, whose outputs nobody reads, counts as whole: attention over
        nothing has no value.
    """
    shape = encoded.video_pooled.shape[:2]
    valid = encoded.valid
    if valid is None:
        return torch.ones(shape, dtype=torch.bool, device=encoded.video_pooled.device)
    present: Tensor = valid | ~valid.any(dim=1, keepdim=True)
    return present


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A stretch of code without reduced precision, on the device of ``x``; shapes alone (meta) have none to reduce."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class BidirectionalLSTM(nn.Module):
    """One LSTM forward and one backward in time over the segments that exist.

    Equal to PyTorch's bidirectional LSTM where all segments exist. Where some do not, both directions skip them,
    as on a sequence without them, wherever they stand.

    Args:
        dim: Channels of a segment.
        hidden: Width of each direction.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.ahead = nn.LSTM(dim, hidden, batch_first=True)
        self.back = nn.LSTM(dim, hidden, batch_first=True)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Read segments in their context.

        Args:
            x: (batch, T, dim).
            valid: (batch, T) bool, which segments exist.

        Returns:
            (batch, T, 2 * hidden): forward and backward states; without meaning where ``valid`` is false.
        """
        length = x.shape[1]
        time = torch.arange(length, device=x.device)
        ahead = torch.where(valid, time, time + length).argsort(dim=1)
        back = torch.where(valid, length - 1 - time, time + length).argsort(dim=1)
        return torch.cat([_in_order(self.ahead, x, ahead), _in_order(self.back, x, back)], dim=-1)


def _in_order(lstm: nn.LSTM, x: Tensor, order: Tensor) -> Tensor:
    # Segments that do not exist come last in the order, where a recurrence no longer changes what came before.
    states, _ = lstm(x.take_along_dim(order[..., None], dim=1))
    found: Tensor = states.take_along_dim(order.argsort(dim=1)[..., None], dim=1)
    return found
