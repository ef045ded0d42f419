"""A whole pretrained encoder as a run's network: missing streams, several frames, and what is computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretrain_cases import IMAGE, SPECTROGRAM, shaken, small_avsiam, small_cav_mae
from torch import Tensor

from avtune.pretrain.classifiers import ClipClassifier, create_classifier
from avtune.pretrain.finetuning import FinetunedNetwork, mean_probability_logits
from avtune.transforms import Batch, normalise_frames

CLASSES, FRAMES = 5, 3
HALF = (0.5, 0.5, 0.5)
# Sums of single-precision products in another order.
NEAR = {"rtol": 0, "atol": 2e-5}


def classifier(objective: str) -> ClipClassifier:
    torch.manual_seed(0)
    model = small_avsiam() if objective == "avsiam" else small_cav_mae()
    return shaken(create_classifier(model.encoder, CLASSES))


def network(objective: str, multi_label: bool = False) -> FinetunedNetwork:
    return FinetunedNetwork(classifier(objective), multi_label, HALF, HALF).eval()


def batch_of(clips: int, frames: int = FRAMES, heard: str = "", seen: str = "") -> Batch:
    """``heard`` and ``seen``: for each clip + or -, whether it has the stream; empty: all have."""
    generator = torch.Generator().manual_seed(clips)
    return Batch(
        frames=torch.randint(
            0, 256, (clips, frames, 3, IMAGE, IMAGE), generator=generator, dtype=torch.uint8
        ),
        spectrogram=torch.randn(clips, 1, *SPECTROGRAM, generator=generator),
        has_audio=torch.tensor([sign == "+" for sign in heard or "+" * clips]),
        has_video=torch.tensor([sign == "+" for sign in seen or "+" * clips]),
        valid=torch.ones(clips, frames, dtype=torch.bool),
        target=None,
        names=[f"clip {k}" for k in range(clips)],
    )


def part(batch: Batch, clips: list[int]) -> Batch:
    tensors = ("frames", "spectrogram", "has_audio", "has_video", "valid")
    return replace(
        batch, names=[batch.names[k] for k in clips], **{n: getattr(batch, n)[clips] for n in tensors}
    )


@pytest.mark.parametrize("objective", ["avsiam", "cav_mae"])
@torch.no_grad()
def test_clips_of_all_kinds_are_answered_as_each_would_be_alone(objective: str) -> None:
    net = network(objective)
    batch = batch_of(6, heard="+-+-++", seen="++--+-")
    answers = net(batch)[0]
    for k in range(6):
        torch.testing.assert_close(net(part(batch, [k]))[0][0], answers[k], **NEAR)
    turn = [4, 0, 3, 5, 1, 2]
    torch.testing.assert_close(net(part(batch, turn))[0], answers[turn], **NEAR)


@pytest.mark.parametrize("objective", ["avsiam", "cav_mae"])
@torch.no_grad()
def test_what_a_clip_lacks_does_not_matter_and_its_own_head_answers(objective: str) -> None:
    net = network(objective)
    batch = batch_of(2, frames=1, heard="+-", seen="-+")
    other = replace(batch_of(3, frames=1), has_audio=batch.has_audio, has_video=batch.has_video)
    sound = torch.cat([batch.spectrogram[:1], other.spectrogram[1:2]])
    frames = torch.cat([other.frames[:1], batch.frames[1:]])
    answers = net(batch)[0]
    assert torch.equal(net(replace(batch, spectrogram=sound, frames=frames))[0], answers)
    alone = net.classifier(spectrogram=batch.spectrogram[:1, 0])
    torch.testing.assert_close(answers[:1].softmax(1), alone.softmax(1), **NEAR)
    alone = net.classifier(frames=normalise_frames(batch.frames[1:, 0], HALF, HALF))
    torch.testing.assert_close(answers[1:].softmax(1), alone.softmax(1), **NEAR)


@torch.no_grad()
def test_neither_stream_is_silence_in_the_dark() -> None:
    net = network("avsiam")
    nothing = net(batch_of(1, heard="-", seen="-"))[0]
    zeros = net.classifier(torch.zeros(1, *SPECTROGRAM), torch.zeros(1, 3, IMAGE, IMAGE))
    torch.testing.assert_close(nothing.softmax(1), zeros.softmax(1), **NEAR)


@pytest.mark.parametrize("objective", ["avsiam", "cav_mae"])
@pytest.mark.parametrize("multi_label", [False, True])
@torch.no_grad()
def test_a_clip_is_the_mean_over_its_frames_of_a_joint_pass_each(objective: str, multi_label: bool) -> None:
    net = network(objective, multi_label)
    batch = batch_of(2)
    batch = replace(batch, valid=torch.tensor([[True, True, True], [True, False, True]]))

    def probabilities(logits: Tensor) -> Tensor:
        return logits.sigmoid() if multi_label else logits.softmax(-1)

    answers = probabilities(net(batch)[0])
    for clip, frames in ((0, [0, 1, 2]), (1, [0, 2])):
        each = [
            net.classifier(
                batch.spectrogram[clip], normalise_frames(batch.frames[clip, t : t + 1], HALF, HALF)
            )
            for t in frames
        ]
        torch.testing.assert_close(answers[clip], probabilities(torch.cat(each)).mean(0), **NEAR)
    changed = batch.frames.clone()
    changed[1, 1] = 0
    assert torch.equal(net(replace(batch, frames=changed))[0], net(batch)[0])


@pytest.mark.parametrize("objective", ["avsiam", "cav_mae"])
@torch.no_grad()
def test_the_sound_of_several_frames_is_encoded_once(objective: str) -> None:
    model = classifier(objective)
    tokens: list[int] = []
    stem = model.encoder.audio
    stem.register_forward_hook(lambda module, given, packed: tokens.append(len(packed.tokens)))
    spectrogram, frames = torch.randn(2, *SPECTROGRAM), torch.randn(2 * FRAMES, 3, IMAGE, IMAGE)
    several = model(spectrogram, frames)
    assert tokens == [2 * stem.length]
    repeated = model(spectrogram.repeat_interleave(FRAMES, 0), frames)
    torch.testing.assert_close(several, repeated, **NEAR)


def test_a_batch_trains_the_weights_of_the_streams_that_it_has() -> None:
    net = network("avsiam")
    for heard, seen, heads in (("--", "++", {"video"}), ("++", "--", {"audio"}), ("++", "++", {"joint"})):
        net.zero_grad()
        net(batch_of(2, heard=heard, seen=seen))[0].sum().backward()
        reached = {name for name, weight in net.named_parameters() if weight.grad is not None}
        assert {name.split(".")[2] for name in reached if name.startswith("classifier.head.")} == heads
        assert any(".encoder.joint." in name for name in reached) == (heads == {"joint"})
        assert all(any(f".encoder.{stream}." in n for n in reached) == (sign == "++") for stream, sign in
                   (("audio", heard), ("video", seen)))  # fmt: skip


@pytest.mark.parametrize("objective", ["avsiam", "cav_mae"])
def test_half_precision_answers_nearly_the_same_in_single_precision(objective: str) -> None:
    net, batch = network(objective), batch_of(6, heard="+-+-++", seen="++--+-")
    full = net(batch)[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = net(batch)[0]
    half.sum().backward()
    assert half.dtype == torch.float32
    # Eight bits of a mantissa, through three blocks.
    torch.testing.assert_close(half.softmax(1), full.softmax(1), rtol=0, atol=0.05)


def test_a_transformer_that_only_reconstruction_used_is_let_go() -> None:
    model = small_avsiam("release")
    whole = sum(weight.numel() for weight in model.encoder.trunks["shared"].parameters())
    assert "second_sound" in model.encoder.trunks
    net = FinetunedNetwork(create_classifier(model.encoder, CLASSES), False, HALF, HALF)
    assert not any("second_sound" in name for name in net.trained_state())
    assert whole == sum(w.numel() for n, w in net.named_parameters() if ".trunks." in n)


@given(
    seed=st.integers(0, 999), frames=st.integers(1, 4), multi_label=st.booleans(), scale=st.sampled_from([1, 30])
)  # fmt: skip
def test_mean_probabilities(seed: int, frames: int, multi_label: bool, scale: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(3, frames, 4, generator=generator, dtype=torch.float64)
    valid = torch.rand(3, frames, generator=generator) < 0.6
    result = mean_probability_logits(logits, valid, multi_label)
    own, each = (result.sigmoid(), logits.sigmoid()) if multi_label else (result.exp(), logits.softmax(-1))
    for k in range(3):
        counted = valid[k] if valid[k].any() else torch.ones(frames, dtype=torch.bool)
        torch.testing.assert_close(own[k].double(), each[k][counted].mean(0), rtol=1e-4, atol=1e-6)
    assert result.isfinite().all()


def test_one_frame_keeps_its_logits() -> None:
    logits = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0))
    seen = torch.ones(2, 1, dtype=torch.bool)
    torch.testing.assert_close(mean_probability_logits(logits, seen, True), logits[:, 0])
    torch.testing.assert_close(mean_probability_logits(logits, seen, False), logits[:, 0].log_softmax(-1))
