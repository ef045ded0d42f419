"""MA-AVT's two classifiers: how they decide, what they learn from, one stream alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from ma_avt_cases import VIT, encoder_of, head_of
from torch import Tensor

from avtune.config import HeadConfig
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.fusion import Notes
from avtune.heads.ma_avt import PRESETS as HEAD_PRESETS
from avtune.heads.ma_avt import MaAvtHead, MaAvtHeadSettings, ma_avt_loss
from random_clips import clips


def head_answers(background: float, classes: list[float], **settings: Any) -> tuple[MaAvtHead, Encoded]:
    """A head that gives the stated logits, whatever it reads."""
    head = MaAvtHead(2, 2, len(classes) + 1, 4, MaAvtHeadSettings(**settings))
    with torch.no_grad():
        for weight in head.parameters():
            weight.zero_()
        head.foreground.classes.bias.copy_(torch.tensor(classes))
        head.background.classes.bias.fill_(background)
    notes = Notes(segments=1)
    for name in ("audio_foreground", "video_foreground", "audio_background", "video_background"):
        notes.record(name, torch.zeros(1, 2))
    return head, Encoded(*(torch.zeros(1, 1, 2),) * 4, notes=notes)


@given(background=st.floats(-6, 6), classes=st.lists(st.floats(-6, 6), min_size=1, max_size=5))
def test_the_gate_decides_before_the_classes_do(background: float, classes: list[float]) -> None:
    head, encoded = head_answers(background, classes)
    logits = head.eval()(encoded)[0, 0]
    background = float(torch.tensor(background))
    if background > 0:
        assert logits.argmax() == len(classes)
    else:
        assert logits.argmax() < len(classes)
        assert classes[int(logits.argmax())] == pytest.approx(max(classes), abs=1e-5)
    joint = head_answers(background, classes, decision="joint")[0].eval()(encoded)[0, 0].exp()
    closed = torch.tensor(background).sigmoid()
    torch.testing.assert_close(joint[-1], closed)
    torch.testing.assert_close(joint[:-1], (1 - closed) * torch.tensor(classes).softmax(-1))


@pytest.mark.parametrize("preset", list(HEAD_PRESETS))
def test_the_loss_of_equation_9(preset: str) -> None:
    torch.manual_seed(0)
    chosen = HEAD_PRESETS[preset]
    events, background = torch.randn(3, 4, 5, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    target = torch.randint(0, 6, (3, 4))
    target[0, 0] = 5
    valid = torch.rand(3, 4) > 0.2
    notes = Notes(segments=4)
    notes.record("foreground_logits", events)
    notes.record("background_logits", background)
    ours = ma_avt_loss(torch.zeros(3, 4, 6), notes, target, valid, HeadConfig(name="ma_avt", preset=preset))
    class_losses, gate_losses = [], []
    for clip, segment in valid.nonzero().tolist():
        y_b = bool(target[clip, segment] == 5)
        if not y_b:
            class_losses.append(F.cross_entropy(events[clip, segment], target[clip, segment]))
        if y_b or chosen.background_loss == "all":
            gate_losses.append(
                F.binary_cross_entropy_with_logits(background[clip, segment], torch.tensor(float(y_b)))
            )
    count = int(valid.sum())
    if chosen.mean_over == "own":
        expected = count * (torch.stack(class_losses).mean() + torch.stack(gate_losses).mean())
    else:
        expected = torch.stack([*class_losses, *gate_losses]).sum()
    torch.testing.assert_close(ours, expected)


def test_the_paper_preset_is_the_likelihood_of_the_joint_answer() -> None:
    encoder = encoder_of().train()
    head = head_of(encoder)
    encoded = encoder(*clips(encoder))
    logits = head(encoded)
    target = torch.tensor([[0, 3, 2], [3, 1, 0]])
    valid = torch.ones_like(target, dtype=torch.bool)
    loss = ma_avt_loss(logits, encoded.notes, target, valid, HeadConfig(name="ma_avt"))
    torch.testing.assert_close(F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum"), loss)
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2, 3))


@pytest.mark.parametrize("two_layers", [False, True])
def test_clips_that_lack_a_stream_are_answered_by_the_half_of_the_other(two_layers: bool) -> None:
    encoder = encoder_of(tower=VIT).eval()
    head = head_of(encoder, two_layers=two_layers).eval()
    sound, frames = clips(encoder)
    has, lacks = torch.ones(len(sound), dtype=torch.bool), torch.zeros(len(sound), dtype=torch.bool)

    def parts(audio: Tensor, video: Tensor, heard: Tensor, seen: Tensor) -> list[Tensor]:
        encoded = replace(encoder(audio, video), has_audio=heard, has_video=seen)
        head(encoded)
        return [encoded.notes.records[f"{kind}_logits"][0] for kind in ("foreground", "background")]

    whole = parts(sound, frames, has, has)
    heard, seen = parts(sound, frames, has, lacks), parts(sound, frames, lacks, has)
    for both, audio, video in zip(whole, heard, seen, strict=True):
        torch.testing.assert_close(audio + video, both)
    # The stream that is not there may hold anything.
    other = parts(sound, torch.randn_like(frames), has, lacks)
    torch.testing.assert_close(other, heard)
    mixed = parts(sound, frames, torch.arange(len(sound)) > 0, has)
    torch.testing.assert_close(mixed[0][0], seen[0][0])
    torch.testing.assert_close(mixed[0][1:], whole[0][1:])
    if not two_layers:
        classes, dim = head.foreground.classes, encoder.video_tower.dim
        encoded = encoder(sound, frames)
        token = encoded.notes.records["video_foreground"][0].view(*whole[1].shape, dim)
        torch.testing.assert_close(seen[0], token @ classes.weight[:, :dim].T + classes.bias / 2)


def test_the_head_says_what_it_needs() -> None:
    encoder = encoder_of(background="none")
    with pytest.raises(AvtuneError, match="reads the background tokens of the method ma_avt"):
        head_of(encoder)(encoder(*clips(encoder, 1, 1)))
