"""CAV-MAE against arrays recorded from the authors' code: latents, predictions, losses, fine-tuned logits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretrain_golden import HEADS, Arrays, blank_backbone, inputs, kept_from_restore, part, recorded

from avtune.interop.cav_mae import head_from_official, model_from_official, settings_from_official
from avtune.interop.checkpoints import load_exactly
from avtune.pretrain.cav_mae import CavMae
from avtune.pretrain.classifiers import CavMaeClassifier
from avtune.pretrain.contrast import Contrast
from avtune.pretrain.masking import Kept
from avtune.pretrain.objective import Masks, clip_means
from avtune.pretrain.pairing import Pairing


def build(arrays: Arrays) -> CavMae:
    state = part(arrays, "state")
    own = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks_a."))
    settings = replace(settings_from_official(state), decoder_heads=HEADS)
    model = CavMae(blank_backbone(state["norm.weight"].numel(), own + settings.joint_blocks), settings)
    load_exactly(model, model_from_official(state, set(model.state_dict())), "recorded", "")
    return model


@pytest.fixture(scope="module")
def cases(golden_dir: Path) -> list[tuple[CavMae, Arrays]]:
    found = [(build(arrays), arrays) for _, arrays in recorded(golden_dir, "enc/latent")]
    assert found
    return found


def seen(mask: torch.Tensor) -> Kept:
    """From the authors' mask, 1 where a patch is hidden."""
    return Kept.from_visible(mask == 0)


def test_the_fixed_positions_are_those_of_the_authors(cases: list[tuple[CavMae, Arrays]]) -> None:
    for model, arrays in cases:
        fresh = CavMae(blank_backbone(model.encoder.dim, model.settings.joint_blocks), model.settings)
        assert fresh.decoder.audio_positions.requires_grad is False
        for modality in ("audio", "video"):
            ours = getattr(fresh.encoder, modality).positions
            theirs = arrays[f"state/pos_embed_{modality[0]}"][0]
            torch.testing.assert_close(ours.detach(), theirs, atol=1e-6, rtol=0)
            decoding = getattr(fresh.decoder, f"{modality}_positions").detach()
            theirs = arrays[f"state/decoder_pos_embed_{modality[0]}"][0]
            torch.testing.assert_close(decoding, theirs, atol=1e-6, rtol=0)


def test_the_encoder_and_the_decoder(cases: list[tuple[CavMae, Arrays]]) -> None:
    for model, arrays in cases:
        audio, video = (
            kept_from_restore(
                arrays[f"enc/r{kind}"], [arrays[f"enc/c{kind}"].shape[1]] * len(arrays["audio"])
            )
            for kind in "av"
        )
        assert audio.visible.equal(arrays["enc/mask_a"] == 0)
        spectrogram, frames = inputs(arrays)
        pairing = Pairing(audio, video)
        streams = model.encoder(spectrogram, frames, audio, video)
        joint, heard, looked = model.encoder.join_and_alone(streams, pairing, chained=False)
        place = torch.cat([arrays["enc/ra"], arrays["enc/rv"] + audio.length], dim=1)
        order = (pairing.clip * place.shape[1] + place[pairing.clip, pairing.place]).argsort()
        latent = joint.tokens[order].unflatten(0, (len(frames), -1))
        torch.testing.assert_close(latent, arrays["enc/latent"], atol=1e-5, rtol=0)
        for packed, kept, kind in ((heard, audio, "a"), (looked, video, "v")):
            means = clip_means(packed, kept)
            torch.testing.assert_close(means, arrays[f"enc/c{kind}"].mean(1), atol=1e-5, rtol=0)
        for ours, kind in zip(model.decoder.predict(joint, pairing), "av", strict=True):
            torch.testing.assert_close(ours, arrays[f"pred_{kind}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalized", [False, True])
def test_the_losses(cases: list[tuple[CavMae, Arrays]], normalized: bool) -> None:
    for model, arrays in cases:
        wanted = part(arrays, f"normpix{int(normalized)}")
        masks = Masks(seen(wanted["mask_a"]), seen(wanted["mask_v"]))
        model.settings = replace(model.settings, normalized_targets=normalized)
        loss = model(*inputs(arrays), masks)
        weight = model.settings.contrastive_weight
        assert loss.contrastive is not None
        for ours, name in (
            (loss.total, "loss"), (weight * loss.contrastive, "loss_c"), (loss.audio_reconstruction, "loss_mae_a"),
            (loss.video_reconstruction, "loss_mae_v"),
        ):  # fmt: skip
            torch.testing.assert_close(
                ours, wanted[name], atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_features_to_search_with(cases: list[tuple[CavMae, Arrays]]) -> None:
    for model, arrays in cases:
        spectrogram, frames = inputs(arrays)
        with torch.no_grad():
            audio, video = model.encoder.embed_audio(spectrogram), model.encoder.embed_video(frames)
        torch.testing.assert_close(audio, arrays["feat/a_mean"], atol=1e-5, rtol=0)
        torch.testing.assert_close(video, arrays["feat/v_mean"], atol=1e-5, rtol=0)


def test_both_directions_of_the_contrast(cases: list[tuple[CavMae, Arrays]]) -> None:
    for _, arrays in cases:
        features = arrays["enc/ca"].mean(1), arrays["enc/cv"].mean(1)
        for directions, name in (("video_to_audio", "single"), ("both", "bi")):
            contrasted = Contrast("softmax", directions, 0.05)(*features)
            torch.testing.assert_close(contrasted.loss, arrays[f"nce/{name}"], atol=1e-5, rtol=0)


def test_fine_tuned_logits_with_any_modality_missing(cases: list[tuple[CavMae, Arrays]]) -> None:
    for model, arrays in cases:
        classifier = CavMaeClassifier(model.encoder, arrays["ft/multimodal"].shape[1])
        load_exactly(
            classifier.head, {n[5:]: v for n, v in head_from_official(part(arrays, "ftsd")).items()}, "", ""
        )
        spectrogram, frames = inputs(arrays)
        for name, audio, video in (
            ("multimodal", spectrogram, frames), ("audioonly", spectrogram, None), ("videoonly", None, frames),
            ("missingaudioonly", spectrogram, None), ("missingvideoonly", None, frames),
        ):  # fmt: skip
            classifier.missing = "averaged" if name.startswith("missing") else "own"
            with torch.no_grad():
                ours = classifier(audio, video)
            torch.testing.assert_close(
                ours, arrays[f"ft/{name}"], atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
            )
