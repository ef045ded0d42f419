"""AVSiam against arrays recorded from the authors' code: features, losses, predictions, gradient norms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretrain_golden import HEADS, Arrays, blank_backbone, inputs, kept_from_restore, part, recorded
from torch import Tensor

from avtune.interop.avsiam import model_from_official, settings_from_official
from avtune.interop.checkpoints import load_exactly
from avtune.pretrain.avsiam import Avsiam
from avtune.pretrain.masking import Kept, kept_count
from avtune.pretrain.objective import clip_means
from avtune.pretrain.pairing import Pairing
from avtune.pretrain.patches import stretched


def build(arrays: Arrays) -> Avsiam:
    state = part(arrays, "state")
    depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("vit_base.blocks."))
    backbone = blank_backbone(state["vit_base.cls_token"].shape[-1], depth)
    model = Avsiam(backbone, replace(settings_from_official(state), decoder_heads=HEADS))
    load_exactly(model, model_from_official(state, set(model.state_dict())), "recorded", "")
    return model


def masks_of(arrays: Arrays, which: str) -> tuple[Kept, Kept]:
    """The recorded groups of a pass, brought from the permuted order back to that of the batch."""
    kept = []
    for modality in ("audio", "video"):
        turn = arrays[f"{which}/perm_{modality}"].long()
        groups = sum(name.startswith(f"{which}/{modality}/g") and name.endswith("/kept") for name in arrays)
        tables, counts = [], []
        for group in range(groups):
            name = f"{which}/{modality}/g{group}"
            tables.append(arrays[f"{name}/ids_restore"])
            counts += [int(arrays[f"{name}/kept"])] * len(tables[-1])
            length, ratio = tables[-1].shape[1], float(arrays[f"{name}/ratio"])
            assert kept_count(length, ratio) == int(arrays[f"{name}/kept"])
        # One group is the whole batch, which the authors leave in order.
        turn = turn if groups > 1 else torch.arange(len(turn))
        restore = torch.cat(tables)
        back = turn.argsort()
        kept.append(kept_from_restore(restore[back], [counts[k] for k in back.tolist()]))
    return kept[0], kept[1]


@pytest.fixture(scope="module")
def cases(golden_dir: Path) -> list[tuple[Avsiam, Arrays]]:
    found = [(build(arrays), arrays) for _, arrays in recorded(golden_dir, "contrast/feat_a")]
    assert found
    return found


def test_the_contrastive_pass(cases: list[tuple[Avsiam, Arrays]]) -> None:
    for model, arrays in cases:
        audio, video = masks_of(arrays, "contrast")
        spectrogram, frames = inputs(arrays)
        streams = model.encoder(spectrogram, frames, audio, video)
        features = clip_means(streams.audio, audio), clip_means(streams.video, video)
        # The authors normalise inside the loss; what is recorded are the pooled tokens.
        for ours, theirs in zip(
            features, (arrays["contrast/feat_a"], arrays["contrast/feat_v"]), strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        assert model.contrast is not None
        contrasted = model.contrast(*features)
        torch.testing.assert_close(contrasted.loss, arrays["contrast/loss_c"], atol=1e-5, rtol=0)
        torch.testing.assert_close(contrasted.accuracy, arrays["contrast/c_acc"])
        check_gradients(model, contrasted.loss, part(arrays, "contrast/gradnorm"))


def test_the_reconstruction_pass(cases: list[tuple[Avsiam, Arrays]]) -> None:
    for model, arrays in cases:
        own = masks_of(arrays, "mae")
        spectrogram, frames = inputs(arrays)
        pairing = Pairing(*own)
        joint = model.encoder.join(model.encoder(spectrogram, frames, *own, second_sound=True), pairing)
        torch.testing.assert_close(
            joint.tokens[in_authors_order(arrays, pairing)].unflatten(0, (len(frames), -1)),
            arrays["mae/after_mm"], atol=1e-5, rtol=0,
        )  # fmt: skip
        assert model.decoder is not None
        with torch.no_grad():
            predicted = model.decoder.predict(joint, pairing)
        for ours, theirs in zip(predicted, (arrays["mae/pred_a"], arrays["mae/pred_v"]), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        lost = model.decoder.loss(joint, pairing, spectrogram.unsqueeze(1), frames, normalized=False)
        for ours, name in ((lost.audio, "mae/loss_mae_a"), (lost.video, "mae/loss_mae_v")):
            torch.testing.assert_close(ours, arrays[name], atol=1e-5, rtol=0)
        check_gradients(model, lost.audio + lost.video, part(arrays, "mae/gradnorm"))


def in_authors_order(arrays: Arrays, pairing: Pairing) -> Tensor:
    """Rows of the joint tokens by clip, then by the authors' shuffled place, sound first."""
    audio, video = arrays["mae/audio/g0/ids_restore"].long(), arrays["mae/video/g0/ids_restore"].long()
    place = torch.cat([audio, video + audio.shape[1]], dim=1)
    return (pairing.clip * place.shape[1] + place[pairing.clip, pairing.place]).argsort()


def check_gradients(model: Avsiam, loss: Tensor, norms: Arrays) -> None:
    """Norms of the gradients under the authors' names; weights that they do not name take no part."""
    model.zero_grad()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    # A converted one-element tensor carries a norm to the name that its weight has here.
    tagged = model_from_official(
        {name: value.reshape(1, 1) for name, value in norms.items() if "pos_embed" not in name}
    )
    tagged |= {
        f"encoder.{ours}.positions": norms[theirs]
        for ours, theirs in (("video", "vit_base.pos_embed"), ("audio", "vit_base.pos_embed_a"))
    }
    tagged |= {
        f"decoder.{kind}_positions": norms[f"decoder_pos_embed_{kind[0]}"]
        for kind in ("audio", "video")
        if f"decoder_pos_embed_{kind[0]}" in norms
    }
    assert tagged.keys() == gradients.keys()
    for name, norm in tagged.items():
        torch.testing.assert_close(
            gradients[name].norm(), norm.squeeze(), rtol=1e-4, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_where_sound_begins(golden_dir: Path) -> None:
    seen = 0
    for _, arrays in recorded(golden_dir, "init/pos_embed_a"):
        seen += 1
        table, kernel = arrays["init/pos_embed"][0, 1:], arrays["init/patch_w"]
        stretched_table = stretched(table, arrays["init/pos_embed_a"].shape[1])
        assert stretched_table.equal(arrays["init/pos_embed_a"][0])
        blank = blank_backbone(len(kernel), 1)
        backbone = type(blank)(**{**blank.__dict__, "kernel": kernel})
        torch.testing.assert_close(backbone.sound_kernel(), arrays["init/patch_a_w"], rtol=1e-6, atol=0)
    assert seen
