"""Training a tower's own weights: its norms alone, or all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from avtune.backbones import Tower
from avtune.tuning.base import BlockTuning, Tuning, by_stream, require_one_tower
from avtune.tuning.norms import free_norms, is_norm
from avtune.tuning.tied import tied_copy


@dataclass(frozen=True)
class OwnWeightsConfig:
    """Settings of norm tuning and of full fine-tuning.

    Attributes:
        shared: Both streams, over one tower, train the same weights. Otherwise each stream trains its own copy of
            what is trained, from the same start; what stays frozen is held once.
    """

    shared: bool = False


PRESETS = {"own": OwnWeightsConfig(), "shared": OwnWeightsConfig(shared=True)}


class OwnWeights(Tuning):
    """Nothing is added; some of the towers' own weights are trained.

    Args:
        streams: As for :class:`Tuning`; parts that train nothing.
        shared: Whether both streams train the same weights of one tower.
        trained: Which modules of a tower are trained.
        free: Frees them.
    """

    def __init__(
        self,
        streams: dict[str, nn.ModuleList],
        *,
        shared: bool,
        trained: Callable[[nn.Module], bool],
        free: Callable[[Tower], object],
    ) -> None:
        super().__init__(streams)
        self.shared, self.trained, self.free = shared, trained, free

    def part(self, audio_tower: Tower, video_tower: Tower) -> tuple[Tower, Tower]:
        """Give the sound its own copy of what is trained, where one tower serves both streams."""
        if self.shared or audio_tower is not video_tower:
            return audio_tower, video_tower
        return tied_copy(video_tower, own=self.trained), video_tower

    def attach(self, audio_tower: Tower, video_tower: Tower) -> None:
        """See :meth:`Tuning.attach`."""
        self.free(audio_tower)
        self.free(video_tower)


def build_norms(audio_tower: Tower, video_tower: Tower, config: OwnWeightsConfig) -> Tuning:
    """Norm tuning: the towers' norms are trained and nothing else.

    Raises:
        TuningError: Streams of two towers are to share their norms.
    """
    return _own_weights(audio_tower, video_tower, config, is_norm, free_norms)


def build_full(audio_tower: Tower, video_tower: Tower, config: OwnWeightsConfig) -> Tuning:
    """Full fine-tuning: every weight of the towers is trained. They stay in evaluation mode: no stochastic depth.

    Raises:
        TuningError: Streams of two towers are to share their weights.
    """
    return _own_weights(audio_tower, video_tower, config, lambda module: True, nn.Module.requires_grad_)


def _own_weights(
    audio_tower: Tower,
    video_tower: Tower,
    config: OwnWeightsConfig,
    trained: Callable[[nn.Module], bool],
    free: Callable[[Tower], object],
) -> Tuning:
    if config.shared:
        require_one_tower(audio_tower, video_tower)
    streams = by_stream(audio_tower, video_tower, False, lambda block: BlockTuning())
    return OwnWeights(streams, shared=config.shared, trained=trained, free=free)
