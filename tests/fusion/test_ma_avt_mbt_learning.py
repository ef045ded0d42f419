"""MA-AVT and MBT learn a few clips by heart."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from avtune.config import EncoderConfig, HeadConfig, InputConfig, RunConfig
from avtune.model import AudioVisualModel
from avtune.tasks.network import Network

LABELS = ("dog", "horn", "bell")
TARGET = torch.tensor([[3, 0], [3, 1], [3, 2], [3, 0]])


def smooth_clips() -> tuple[torch.Tensor, torch.Tensor]:
    """Four clips of two segments whose pictures and spectrograms are coloured blots."""
    generator = torch.Generator().manual_seed(0)
    sound = F.interpolate(torch.randn(8, 1, 8, 8, generator=generator), 64, mode="bilinear")
    frames = F.interpolate(torch.randn(8, 3, 6, 6, generator=generator), 64, mode="bilinear")
    return 2 * sound.view(4, 2, 64, 64), frames.view(4, 2, 3, 64, 64)


def learn(model: AudioVisualModel, steps: int, lr: float) -> list[tuple[float, float]]:
    """Loss of the task and of the method, before and after."""
    network: Network = model.network
    optimizer = torch.optim.Adam([w for w in network.parameters() if w.requires_grad], lr=lr)
    sound, frames = smooth_clips()
    valid = torch.ones_like(TARGET, dtype=torch.bool)
    foreground = TARGET.flatten() != len(LABELS)
    network.train()
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        encoded = network.encoder(sound, frames)
        logits = network.head(encoded)
        task = model.task.kind.loss(logits, encoded.notes, TARGET, valid, model.task.head) / TARGET.numel()
        own = sum(network.encoder.fusion.losses(encoded.notes, foreground).values(), torch.zeros(()))
        (task + own).backward()
        optimizer.step()
        found.append((float(task.detach()), float(own.detach())))
    network.eval()
    with torch.no_grad():
        assert torch.equal(network.head(network.encoder(sound, frames)).argmax(-1), TARGET)
    return [found[0], found[-1]]


@pytest.mark.parametrize(
    ("fusion", "options", "lr", "left"),
    [("ma_avt", {"projection": "per_block"}, 3e-3, 0.4), ("mbt", {"fusion_from": 2}, 1e-3, 0.1)],
)
def test_clips_are_learned_by_heart(fusion: str, options: dict[str, object], lr: float, left: float) -> None:
    torch.manual_seed(0)
    config = RunConfig(
        encoder=EncoderConfig(tower="nano", fusion=fusion, options=options, separate=fusion == "mbt"),
        head=HeadConfig(name=fusion),  # type: ignore[arg-type]
        input=InputConfig(segments=2),
    )
    before, after = learn(AudioVisualModel(config, LABELS), steps=60, lr=lr)
    # MA-AVT's contrast, six losses against one of the task, takes its part of sixty steps.
    assert after[0] < left * before[0]
    assert after[1] <= left * before[1]
