"""MA-AVT against arrays recorded from the authors' code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avtune.backbones import as_tower
from avtune.backbones.timm_loading import timm
from avtune.config import HeadConfig
from avtune.encoder import BoundBlock, DualEncoder, pair_blocks
from avtune.fusion import BlockSizes, Notes, build_fusion
from avtune.fusion.appended import stretch_positions
from avtune.fusion.contrast_features import class_attention
from avtune.fusion.contrastive import BlockwiseContrast, contrastive_loss
from avtune.fusion.ma_avt import LocalSelfAttention
from avtune.heads.ma_avt import Halves, build_ma_avt_head, ma_avt_loss
from avtune.interop import ma_avt as official

CARRIED = Path(__file__).parents[1] / "golden" / "ma_avt"
FEATURES = {
    "CLS_Token_Proj_AVIT": "class_tokens",
    "Mean_Pooled_Proj_AVIT": "mean_patches",
    "Attn_Pooled_Proj_AVIT": "attended_patches",
    "CNT_Token_Proj_AVIT": "contrast_tokens",
    "MIM_Proj_AVIT": "max_similarity",
}
POSITIONS = {
    "blockwise_sep": ("blocks", "per_block"),
    "blockwise_cmn": ("blocks", "shared"),
    "final": ("final", "shared"),
}
CLASSES = 5
Arrays = dict[str, Tensor]


def recorded(folder: Path, marker: str) -> Iterator[tuple[Path, dict[str, Any], Arrays]]:
    """Every file that holds the array ``marker``: its path, configuration (where it has one) and arrays."""
    for path in sorted(folder.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            if marker not in file.files:
                continue
            arrays = {name: file[name] for name in file.files}
        config = json.loads(str(arrays.pop("config_json", "{}")))
        yield path, config, {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def part(arrays: Arrays, prefix: str) -> Arrays:
    return {n.removeprefix(f"{prefix}/"): v for n, v in arrays.items() if n.startswith(f"{prefix}/")}


def assert_relative(name: str, ours: Tensor | None, theirs: Tensor, tolerance: float = 1e-4) -> None:
    ours = torch.zeros_like(theirs) if ours is None else ours
    # What ought to be zero but for rounding is compared to 1e-6 absolute.
    assert ((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-2)) < tolerance, name


FOLDERS = pytest.mark.parametrize("source", ["carried", "shared"])


@pytest.fixture
def folder(source: str, request: pytest.FixtureRequest) -> Path:
    if source == "carried":
        return CARRIED
    shared: Path = request.getfixturevalue("golden_dir")
    return shared / "ma_avt"


def options(path: Path, c: dict[str, Any]) -> dict[str, Any]:
    """Settings over the preset ``official``, as a recorded configuration states them."""
    # The class of the authors' code, which decides what is contrasted, stands in the file's name alone.
    feature = next((ours for theirs, ours in FEATURES.items() if theirs in path.name), "shared_tokens")
    where, projection = POSITIONS[c["contrastive"]] if c["contrastive"] else ("blocks", "none")
    return {
        "audio_tokens": c["n_audio_tokens"] if c["unimodal_token"] else 0,
        "video_tokens": c["n_vis_tokens"] if c["unimodal_token"] else 0,
        "shared_tokens": c["n_shared_tokens"] if c["multimodal_token"] else 0,
        "prompts": "reinserted" if c["layerwise_token"] else "shallow",
        "self_attention": c["LSA"],
        "background": "shared" if c["bg_cls"] else "none",
        "contrast": feature if c["contrastive"] else "none",
        "contrast_at": where,
        "projection": projection,
        # Not halved in the authors' code.
        "contrast_weight": 2.0 if feature == "max_similarity" else 1.0,
    }


def encoder_of(path: Path, config: dict[str, Any], state: Arrays) -> DualEncoder:
    image = 8 * round((state["ViT.v.pos_embed"].shape[1] - 1) ** 0.5)
    depth = 1 + max(int(name.split(".")[3]) for name in state if name.startswith("ViT.v.blocks."))
    dim = state["ViT.v.cls_token"].shape[-1]
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=image, patch_size=state["ViT.v.patch_embed.proj.weight"].shape[-1], embed_dim=dim, depth=depth,
        num_heads=4, num_classes=state["ViT.v.head.bias"].shape[0],
    )  # fmt: skip
    model.load_state_dict(official.tower_from_official(state))
    tower = as_tower(model, "recorded")
    fusion = build_fusion("ma_avt", [BlockSizes(dim, dim, 4, 4)] * depth, "official", options(path, config))
    converted = official.fusion_from_official(state, set(fusion.state_dict()))
    fusion.load_state_dict(converted)
    return DualEncoder(tower, tower, fusion, pair_blocks(depth, depth), resampling="sequence").train()


@FOLDERS
def test_whole_models_reproduce_outputs_losses_and_gradients(folder: Path) -> None:
    seen = 0
    for path, config, arrays in recorded(folder, "in/vis"):
        state, out = part(arrays, "state"), part(arrays, "out")
        encoder = encoder_of(path, config, state)
        entered: list[Tensor] = []
        encoder.fusion.layers[-1].register_forward_pre_hook(
            lambda _module, given, entered=entered: entered.append(given[1])
        )
        encoded = encoder(arrays["in/audio"], arrays["in/vis"])
        weights = {f"fusion.{name}": weight for name, weight in encoder.fusion.named_parameters()}
        fusion_names = official.fusion_from_official(part(arrays, "grad_param"))

        target = arrays["in/label"].clone()
        foreground = target.flatten() != config["bg_label"]
        target[target == config["bg_label"]] = CLASSES
        total = torch.zeros(())
        if config["bg_cls"]:
            head_config = HeadConfig(name="ma_avt", preset="official")
            head = build_ma_avt_head(
                encoder.audio_tower.dim, encoder.video_tower.dim, CLASSES + 1, head_config
            )
            head.load_state_dict(official.head_from_official(state))
            logits = head(encoded)
            close(path, encoded.notes.records["background_logits"][-1].flatten(), out["p_bg"])
            valid = torch.ones_like(target, dtype=torch.bool)
            total = ma_avt_loss(logits, encoded.notes, target, valid, head_config) / len(target)
            close(path, total, out["fg_loss"] + out["bg_loss"])
            weights |= dict(head.named_parameters())
        else:
            head = Halves(encoder.audio_tower.dim, encoder.video_tower.dim, CLASSES, None)
            classifier = official.head_from_official(state)
            head.load_state_dict({n.removeprefix("foreground."): v for n, v in classifier.items()})
            records = encoded.notes.records
            classes = head(records["audio_foreground"][-1], records["video_foreground"][-1])
            encoded.notes.record("foreground_logits", classes[:, None])
            total = F.cross_entropy(classes[foreground], target.flatten()[foreground])
            close(path, total, out["fg_loss"])
            weights |= {f"foreground.{n}": w for n, w in head.named_parameters()}
        close(path, encoded.notes.records["foreground_logits"][-1].flatten(0, 1), out["p_fg"])
        own = encoder.fusion.losses(encoded.notes, foreground)
        if "cnt_loss" in out:
            close(path, own["contrast"], out["cnt_loss"])
        total = total + sum(own.values())
        close(path, total, out["loss"])
        total.backward()

        head_names = official.head_from_official(part(arrays, "grad_param"))
        for name, theirs in {**{f"fusion.{n}": g for n, g in fusion_names.items()}, **head_names}.items():
            assert_relative(f"{path.name} {name}", weights.pop(name).grad, theirs)
        token = encoder.video_tower.model.cls_token
        assert_relative(path.name, token.grad, arrays["grad_param/ViT.v.cls_token"])
        assert not [name for name, weight in weights.items() if weight.grad is not None], path.name

        check_attention(path, encoder, entered[0], out["vis_attn"])
        seen += 1
    assert seen


def check_attention(path: Path, encoder: DualEncoder, x: Tensor, theirs: Tensor) -> None:
    layout = encoder.fusion.layouts[1]
    if theirs.shape[-1] == layout.span(x.shape[1], "patches").stop - layout.prefix:
        block = BoundBlock(encoder.video_tower.blocks[-1], None)
        close(path, class_attention(block, x, layout), theirs.flatten(0, 1))
    else:
        # The authors' class with contrast tokens takes its token for a patch.
        assert theirs.shape[-1] == layout.span(x.shape[1], "contrast").stop - layout.prefix


def close(path: Path, ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.detach(), theirs, atol=1e-5, rtol=0, msg=lambda m: f"{path.name}: {m}")


@FOLDERS
def test_local_self_attention(folder: Path) -> None:
    seen = 0
    for path, _, arrays in recorded(folder, "state/qkv.weight"):
        attention = LocalSelfAttention(arrays["in/x"].shape[-1], heads=8, residual=False)
        attention.load_state_dict(part(arrays, "state"))
        x = arrays["in/x"].requires_grad_()
        y = attention(x)
        close(path, y, arrays["out/y"])
        (y**2).sum().backward()
        for name, weight in {"x": x, **dict(attention.named_parameters())}.items():
            assert_relative(name, weight.grad, arrays[f"grad_param/{name}"])
        attention.residual = True
        torch.testing.assert_close(attention(x), x + y)
        seen += 1
    assert seen


@FOLDERS
def test_positions_stretched_over_the_background_token(folder: Path) -> None:
    seen = 0
    for path, _, arrays in recorded(folder, "in/bg_token"):
        state = {name.removeprefix("v."): value for name, value in part(arrays, "state").items()}
        convolution, table = state["patch_embed.proj.weight"], state["pos_embed"]
        dim, patch = convolution.shape[0], convolution.shape[-1]
        model = timm.models.vision_transformer.VisionTransformer(
            img_size=patch * round((table.shape[1] - 1) ** 0.5), patch_size=patch, embed_dim=dim, depth=1, num_heads=4
        )  # fmt: skip
        model.load_state_dict(state, strict=False)
        tower = as_tower(model, "recorded")
        for name, images in part(arrays, "in").items():
            if name == "bg_token":
                continue
            placed, _ = tower.place(images, resampling="sequence")
            close(path, placed, arrays[f"out/{name}"])
            token = arrays["in/bg_token"].expand(len(images), -1, -1)
            close(path, torch.cat(stretch_positions(placed, token, table), 1), arrays[f"out/{name}_bg"])
        seen += 1
    assert seen


@FOLDERS
def test_losses_alone(folder: Path) -> None:
    seen = 0
    for path, _, arrays in recorded(folder, "in/image_feat"):
        given, out = part(arrays, "in"), part(arrays, "out")
        foreground = given["bg_label"] == 0
        asked = {name: given[name].requires_grad_() for name in ("image_feat", "audio_feat", "p_fg", "p_bg")}
        target = given["label"].clone()[:, None]
        target[target == -1] = CLASSES

        # The recorded function takes features that are of unit length already, and does not normalise them.
        pairs = contrastive_loss(asked["image_feat"] @ asked["audio_feat"].T, foreground, 0.07)
        close(path, pairs, out["cnt"])
        for feature, video, weight, theirs in (
            ("shared_tokens", given["image_feat"], 1.0, out["cnt"]),
            ("max_similarity", given["mim_patches"], 2.0, out["mim"]),
        ):
            contrast = BlockwiseContrast(
                [(16, 16)], feature, projection="none", projection_dim=0, temperature=0.07, reduce="mean", weight=weight
            )  # fmt: skip
            close(path, contrast([given["audio_feat"]], [video], foreground), theirs)

        notes = Notes()
        notes.record("foreground_logits", asked["p_fg"][:, None])
        notes.record("background_logits", asked["p_bg"][:, None])
        valid = torch.ones_like(target, dtype=torch.bool)
        config = HeadConfig(name="ma_avt", preset="official")
        both = ma_avt_loss(torch.zeros(len(target), 1, CLASSES + 1), notes, target, valid, config) / len(
            target
        )
        close(path, both, out["fg"] + out["bg"])
        close(path, F.cross_entropy(given["p_fg"][foreground], given["label"][foreground]), out["fg"])
        (pairs + both).backward()
        for name, value in asked.items():
            assert_relative(name, value.grad, arrays[f"grad_param/{name}"])
        check_modulation(given, part(arrays, "state"), out, foreground)
        seen += 1
    assert seen


def check_modulation(given: Arrays, state: Arrays, out: Arrays, foreground: Tensor) -> None:
    """The authors' gradient modulation follows from the head's halves, which it takes the wrong way round."""
    head = Halves(given["a_cls"].shape[-1], given["v_cls"].shape[-1], CLASSES, None)
    head.load_state_dict({name.replace("fg_class", "classes"): value for name, value in state.items()})
    audio, video, none = given["a_cls"], given["v_cls"], torch.zeros(())
    halves = (head(video, audio, has_audio=none), head(video, audio, has_video=none))
    rows = torch.arange(len(foreground))[foreground]
    audio, video = (half.softmax(-1)[rows, given["label"][foreground]].sum() for half in halves)
    ratio = float((audio / video).detach())
    assert ratio > 1
    assert 1 - np.tanh(0.1 * ratio) == pytest.approx(float(out["coeff_a"]), abs=1e-6)
    assert float(out["coeff_v"]) == 1


@FOLDERS
def test_the_recorded_gradient_shrinks_with_processes(folder: Path) -> None:
    # Ours does not: test_ma_avt_two_processes.py.
    seen = 0
    for _, _, arrays in recorded(folder, "w1/grad_shared_tokens"):
        for processes in (2, 3):
            shrunk = arrays[f"w{processes}/grad_shared_tokens"] * processes
            assert_relative(f"{processes}", shrunk, arrays["w1/grad_shared_tokens"])
        seen += 1
    assert seen


@FOLDERS
def test_every_recorded_file_of_the_family_is_read_by_a_test(folder: Path) -> None:
    markers = ("in/vis", "state/qkv.weight", "in/bg_token", "in/image_feat", "w1/grad_shared_tokens")
    read = {path.name for marker in markers for path, _, _ in recorded(folder, marker)}
    # Spectrograms are tested where they are made.
    assert {path.name for path in folder.rglob("*.npz")} - read <= {"audio_stft.npz"}
