"""What turns encoded streams into outputs, one file per task."""

from avtune.heads.localization import SegmentHead, SingleStreamHeads

__all__ = ["SegmentHead", "SingleStreamHeads"]
