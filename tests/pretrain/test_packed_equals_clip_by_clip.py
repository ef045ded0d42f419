"""The packed computation against one that takes each clip by itself: outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pretrain_cases import DIM, alone, clips, random_kept, small_avsiam, small_cav_mae, through
from torch import Tensor, nn

from avtune.pretrain import packing
from avtune.pretrain.masking import Kept
from avtune.pretrain.objective import clip_means
from avtune.pretrain.packing import Layout, Packed, attend_packed
from avtune.pretrain.pairing import Pairing

COUNTS = ([12, 5, 7, 5, 1], [3, 16, 8, 8, 2])
"""Patches that five clips keep of 12 of sound and 16 of their frames: equal and unequal ones, all and one."""


@pytest.fixture
def masks() -> tuple[Kept, Kept]:
    return random_kept(12, COUNTS[0], 1), random_kept(16, COUNTS[1], 2)


def compare(model: nn.Module, packed: Callable[[], list[Tensor]], plain: Callable[[], list[Tensor]]) -> None:
    """Double precision, so that nothing but rounding far below single precision's may differ."""
    gradients = []
    results = []
    for compute in (packed, plain):
        model.zero_grad()
        results.append(compute())
        torch.stack([part.square().sum() for part in results[-1]]).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(
            gradients[0][name], gradient, atol=1e-9, rtol=1e-9, msg=lambda m, n=name: f"{n} {m}"
        )


@pytest.mark.parametrize("preset", ["paper", "release", "avsep"])
def test_avsiam(preset: str, masks: tuple[Kept, Kept]) -> None:
    model = small_avsiam(preset).encoder.double()
    sounds, frames = (x.double() for x in clips(5))
    audio, video = masks
    pairing = Pairing(audio, video)

    def packed() -> list[Tensor]:
        streams = model(sounds, frames, audio, video)
        joint = pairing.part(model.join(streams, pairing))
        return [
            clip_means(p, k)
            for p, k in zip((streams.audio, streams.video, *joint), (*masks, *masks), strict=True)
        ]

    def plain() -> list[Tensor]:
        rows: list[list[Tensor]] = [[], [], [], []]
        hears, sees = (model.trunks[m if preset == "avsep" else "shared"] for m in ("audio", "video"))
        for k in range(5):
            heard = alone(model, "audio", sounds[k, None], audio.visible[k], hears, "audio")
            looked = alone(model, "video", frames[k], video.visible[k], sees, "video")
            joint = through(model.joint, torch.cat([heard, looked]), "audio")
            parts = (heard, looked, joint[: len(heard)], joint[len(heard) :])
            for row, part in zip(rows, parts, strict=True):
                row.append(part.mean(0))
        return [torch.stack(row) for row in rows]

    compare(model, packed, plain)


def test_the_second_transformer_of_the_released_code(masks: tuple[Kept, Kept]) -> None:
    model = small_avsiam("release").encoder.double()
    sounds, frames = (x.double() for x in clips(5))

    def packed() -> list[Tensor]:
        streams = model(sounds, frames, *masks, second_sound=True)
        return [clip_means(streams.audio, masks[0]), clip_means(streams.video, masks[1])]

    def plain() -> list[Tensor]:
        second, shared = model.trunks["second_sound"], model.trunks["shared"]
        heard = [
            alone(model, "audio", sounds[k, None], masks[0].visible[k], second, "plain").mean(0)
            for k in range(5)
        ]
        looked = [
            alone(model, "video", frames[k], masks[1].visible[k], shared, "video").mean(0) for k in range(5)
        ]
        return [torch.stack(heard), torch.stack(looked)]

    compare(model, packed, plain)


@pytest.mark.parametrize("chained", [False, True])
def test_cav_mae_with_two_joint_layers(chained: bool, masks: tuple[Kept, Kept]) -> None:
    model = small_cav_mae(joint_blocks=2).encoder.double()
    sounds, frames = (x.double() for x in clips(5))
    audio, video = masks
    pairing = Pairing(audio, video)

    def packed() -> list[Tensor]:
        streams = model(sounds, frames, audio, video)
        joint, heard, looked = model.join_and_alone(streams, pairing, chained=chained)
        both = pairing.part(joint)
        pairs = zip((heard, looked, *both), (audio, video, audio, video), strict=True)
        return [clip_means(part, kept) for part, kept in pairs]

    def plain() -> list[Tensor]:
        rows: list[list[Tensor]] = [[], [], [], []]
        last = model.joint if chained else type(model.joint)(list(model.joint.blocks)[-1:], None, ())
        last.norm = model.joint.norm
        for k in range(5):
            heard = alone(model, "audio", sounds[k, None], audio.visible[k], model.trunks["audio"], "plain")
            looked = alone(model, "video", frames[k], video.visible[k], model.trunks["video"], "plain")
            joint = through(model.joint, torch.cat([heard, looked]), "plain")
            parts = (
                through(last, heard, "audio"), through(last, looked, "video"),
                joint[: len(heard)], joint[len(heard) :],
            )  # fmt: skip
            for row, part in zip(rows, parts, strict=True):
                row.append(part.mean(0))
        return [torch.stack(row) for row in rows]

    compare(model, packed, plain)


def test_decoding_puts_every_token_in_its_place(masks: tuple[Kept, Kept]) -> None:
    model = small_avsiam().double()
    decoder = model.decoder
    assert decoder is not None
    audio, video = masks
    pairing = Pairing(audio, video)
    tokens = torch.randn(
        sum(pairing.lengths), DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )

    joint = Packed(tokens, Layout(pairing.lengths, (("audio", len(tokens)),)))
    assert pairing.join(*pairing.part(joint), "audio").tokens.equal(tokens)

    def packed() -> list[Tensor]:
        return list(decoder.predict(joint, pairing))

    def plain() -> list[Tensor]:
        pictures: list[list[Tensor]] = [[], []]
        modalities = (decoder.audio_modality.repeat(12, 1), decoder.video_modality.repeat(16, 1))
        where = torch.cat([decoder.audio_positions, decoder.video_positions]) + torch.cat(modalities)
        for k in range(5):
            x = decoder.mask_token.repeat(28, 1)
            mine = pairing.clip == k
            x = x.index_put((pairing.place[mine],), decoder.embed(tokens[mine]))
            x = through(decoder.trunk, x + where, "plain")
            pictures[0].append(decoder.audio_pixels(x[:12]))
            pictures[1].append(decoder.video_pixels(x[12:]))
        return [torch.stack(row) for row in pictures]

    compare(decoder, packed, plain)


def test_attention() -> None:
    lengths = (3, 3, 1, 7, 7, 7, 2)
    layout = Layout(lengths, (("audio", sum(lengths)),))
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(sum(lengths), 2, 4, generator=generator, dtype=torch.float64) for _ in range(3)]
    ours = [part.clone().requires_grad_() for part in parts]
    theirs = [part.clone().requires_grad_() for part in parts]
    mixed = attend_packed(*ours, layout)
    rows = []
    for query, key, value in zip(*(part.split(lengths) for part in theirs), strict=True):
        weights = torch.einsum("qhd,khd->hqk", query, key).div(2).softmax(-1)
        rows.append(torch.einsum("hqk,khd->qhd", weights, value))
    wanted = torch.cat(rows)
    torch.testing.assert_close(mixed, wanted, atol=1e-12, rtol=1e-12)
    mixed.square().sum().backward()
    wanted.square().sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-11, rtol=1e-11)


def test_the_kernel_for_differing_lengths_is_told_where_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself is on CUDA devices only (test_cuda.py); this is one of its signature."""
    layout = Layout((2, 5, 1), (("audio", 8),))
    parts = [torch.randn(8, 2, 8, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    wanted = attend_packed(*parts, layout)

    def kernel(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, other: Tensor, most: int, too: int) -> Tensor:
        assert ends.dtype == other.dtype == torch.int32
        assert most == too == max(ends.diff().tolist())
        rows = range(len(q))
        same = torch.tensor([[((ends <= i).sum() == (other <= j).sum()).item() for j in rows] for i in rows])
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=same).transpose(0, 1)

    monkeypatch.setattr(packing, "has_varlen", lambda query: True)
    monkeypatch.setattr(packing, "varlen_attn", kernel)
    # Single precision, another order of the sums.
    torch.testing.assert_close(attend_packed(*parts, layout), wanted, atol=1e-6, rtol=1e-6)
