"""The authors' checkpoint files, made up with the names that they have."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from official_states import State, avsiam_heads, avsiam_state, cav_mae_state
from pretrain_golden import blank_backbone
from safetensors.torch import save_file

from avtune.interop import avsiam, cav_mae
from avtune.interop.checkpoints import load_exactly, read_checkpoint
from avtune.interop.lavish import ConversionError
from avtune.pretrain.classifiers import AvsiamClassifier

DIM, DEPTH = 16, 3


def saved(path: Path, state: State) -> Path:
    """As the authors save: in the order of the modules, with the prefix of a parallel wrapper."""
    torch.save({f"module.{name}": value for name, value in state.items()}, path)
    return path


def test_avsiam_as_published(tmp_path: Path) -> None:
    state = avsiam_state(DIM, DEPTH, decoder_depth=6)
    path = saved(tmp_path / "as2m_pretrained.20.pth", state)
    model = avsiam.load_avsiam(path, blank_backbone(DIM, DEPTH))
    assert (model.settings.decoder_depth, model.settings.decoder_width) == (6, 32)
    assert model.settings.doubled_embeddings
    assert model.settings.reconstruction_encoder == "shared"
    encoder, trunk = model.encoder, model.encoder.trunks["shared"]
    decoder = model.decoder
    assert decoder is not None
    for ours, theirs in (
        (encoder.video.positions, state["vit_base.pos_embed"][0, 1:]),
        (encoder.audio.positions, state["vit_base.pos_embed_a"][0]),
        (encoder.audio.weight, state["vit_base.patch_embed_a.proj.weight"]),
        (trunk.blocks[2].attention_norm.of["audio"].bias, state["vit_base.blocks.2.norm1_a.bias"]),
        (trunk.blocks[1].mlp_norm.of["video"].weight, state["vit_base.blocks.1.norm2_v.weight"]),
        (trunk.blocks[0].attention.qkv.weight, state["vit_base.blocks.0.attn.qkv.weight"]),
        (trunk.norm.of["audio"].weight, state["vit_base.norm_a.weight"]),
        (trunk.norm.of["video"].weight, state["vit_base.norm.weight"]),
        (encoder.joint.blocks[1].mlp.fc2.weight, state["mm_layer_2.mlp.fc2.weight"]),
        (encoder.joint.blocks[0].mlp_norm.of["audio"].weight, state["mm_layer_1.norm2_a.weight"]),
        (decoder.mask_token, state["mask_token"][0, 0]),
        (decoder.video_positions, state["decoder_pos_embed_v"][0]),
        (decoder.trunk.blocks[5].attention_norm.of["plain"].weight, state["decoder_blocks.5.norm1.weight"]),
        (decoder.audio_pixels.weight, state["decoder_pred_a.weight"]),
    ):
        assert ours.equal(theirs)


def test_avsiam_as_the_released_code_writes_it(tmp_path: Path) -> None:
    state = avsiam_state(DIM, DEPTH, decoder_depth=8, second=True)
    model = avsiam.load_avsiam(saved(tmp_path / "model.pth", state), blank_backbone(DIM, DEPTH))
    second = model.encoder.trunks["second_sound"]
    assert model.settings.reconstruction_encoder == "copy"
    assert second.blocks[1].mlp.fc1.weight.equal(state["ast_base.blocks.1.mlp.fc1.weight"])
    assert second.blocks[1].mlp_norm.of["plain"].weight.equal(state["ast_base.blocks.1.norm2.weight"])
    assert second.norm.of["plain"].weight.equal(state["ast_base.norm_a.weight"])


def test_safetensors_do_too(tmp_path: Path) -> None:
    save_file(avsiam_state(DIM, DEPTH), tmp_path / "model.safetensors")
    model = avsiam.load_avsiam(tmp_path / "model.safetensors", blank_backbone(DIM, DEPTH))
    assert model.settings.decoder_depth == 2


@pytest.mark.parametrize("size", ["base", "large", "huge"])
def test_the_names_tell_which_transformer(size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def take(name: str, *, pretrained: bool) -> Any:
        asked.append((name, pretrained))
        return blank_backbone(DIM, DEPTH)

    monkeypatch.setattr(avsiam, "take_backbone", take)
    state = {n.replace("vit_base", f"vit_{size}"): v for n, v in avsiam_state(DIM, DEPTH).items()}
    avsiam.load_avsiam(saved(tmp_path / "model.pth", state))
    assert asked == [(avsiam.BACKBONES[size], False)]


def test_heads_of_a_fine_tuned_avsiam(tmp_path: Path) -> None:
    names = ("decoder", "mask_token")
    body = {n: v for n, v in avsiam_state(DIM, DEPTH).items() if not n.startswith(names)}
    heads = avsiam_heads(DIM, 7)
    path = saved(tmp_path / "model.pth", body | heads)
    model = avsiam.load_avsiam(path, blank_backbone(DIM, DEPTH))
    assert model.decoder is None
    classifier = AvsiamClassifier(model.encoder, 7)
    converted = avsiam.heads_from_official(read_checkpoint(path))
    load_exactly(classifier.head, {n.removeprefix("head."): v for n, v in converted.items()}, "head", "")
    assert classifier.head["joint"][1].weight.equal(heads["mlp_head_mm.1.weight"])
    assert classifier.head["audio"][0].bias.equal(heads["mlp_head_a.0.bias"])
    assert classifier.head["video"][1].bias.equal(heads["mlp_head.1.bias"])
    with pytest.raises(ConversionError, match="no classifier of AVSiam"):
        avsiam.heads_from_official(body)


@pytest.mark.parametrize("joint", [1, 2])
def test_cav_mae(joint: int, tmp_path: Path) -> None:
    state = cav_mae_state(DIM, 2, joint, decoder_depth=3)
    model = cav_mae.load_cav_mae(saved(tmp_path / "audio_model.pth", state), blank_backbone(DIM, 2 + joint))
    encoder = model.encoder
    assert model.settings.decoder_depth == 3
    last = encoder.joint.blocks[joint - 1]
    for ours, theirs in (
        (encoder.trunks["audio"].blocks[1].mlp.fc1.bias, state["blocks_a.1.mlp.fc1.bias"]),
        (encoder.trunks["video"].blocks[0].mlp_norm.of["plain"].bias, state["blocks_v.0.norm2.bias"]),
        (last.attention_norm.of["video"].weight, state[f"blocks_u.{joint - 1}.norm1_v.weight"]),
        (encoder.joint.norm.of["audio"].bias, state["norm_a.bias"]),
        (encoder.audio.modality, state["modality_a"][0, 0]),
        (encoder.video.weight, state["patch_embed_v.proj.weight"]),
        (encoder.video.positions, state["pos_embed_v"][0]),
    ):
        assert ours.equal(theirs)


AVSIAM = "vit_base.blocks.1.attn.qkv.weight"


def without(state: State, name: str) -> State:
    return {n: v for n, v in state.items() if n != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, AVSIAM), r"1 \(encoder.trunks.shared.blocks.1.attention.qkv.weight\) missing"),
        (lambda s: s | {AVSIAM: s[AVSIAM][:5]}, r"qkv.weight \(5, 16\) instead of \(48, 16\)"),
        (
            lambda s: s | {"vit_base.blocks.7.mlp.fc1.bias": torch.ones(64)},
            r"1 \(encoder.trunks.shared.blocks.7.mlp.fc1.bias\) left over",
        ),
        (lambda s: s | {"vit_base.surprise": torch.ones(1)}, "'vit_base.surprise' is no weight of AVSiam"),
        (lambda s: {n: v for n, v in s.items() if "mm_layer" not in n}, "no multimodal layers of AVSiam"),
        (lambda s: {"something": torch.ones(1)}, "no AVSiam checkpoint"),
    ],
)
def test_one_line_says_what_does_not_fit(
    change: Callable[[State], State], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "model.pth", change(avsiam_state(DIM, DEPTH)))
    with pytest.raises(ConversionError, match=message) as caught:
        avsiam.load_avsiam(path, blank_backbone(DIM, DEPTH))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "norm_v.weight"), r"1 \(encoder.joint.norm.of.video.weight\) missing"),
        (lambda s: s | {"blocks_x.0.norm1.weight": torch.ones(DIM)}, "is no weight of CAV-MAE"),
        (lambda s: {n: v for n, v in s.items() if "blocks_u" not in n}, "no pretrained CAV-MAE"),
        (lambda s: s | {"patch_embed_a": torch.ones(1)}, "'patch_embed_a' is no weight of CAV-MAE"),
    ],
)
def test_the_same_for_cav_mae(change: Callable[[State], State], message: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pth", change(cav_mae_state(DIM, 2)))
    with pytest.raises(ConversionError, match=message):
        cav_mae.load_cav_mae(path, blank_backbone(DIM, 3))


def test_a_deeper_checkpoint_is_not_cut_short(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pth", avsiam_state(DIM, DEPTH + 1))
    with pytest.raises(ConversionError, match="left over"):
        avsiam.load_avsiam(path, blank_backbone(DIM, DEPTH))


class Surprise:
    def __reduce__(self) -> Any:
        return (print, ("unpickled",))


def test_nothing_is_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": avsiam_state(DIM, 1), "args": Surprise()}, tmp_path / "a.pth")
    with pytest.raises(ConversionError, match=r"it would call builtins\.print"):
        read_checkpoint(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Surprise()))
    with pytest.raises(ConversionError, match="no weights that can be read"):
        read_checkpoint(tmp_path / "b.pth")
    assert "unpickled" not in capsys.readouterr().out


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pth")
    for name, content in (("empty.pth", ""), ("config.yaml", "encoder:\n  tower: nano\n" * 9)):
        (tmp_path / name).write_text(content)
        with pytest.raises(ConversionError, match=r"is no file of weights; .* run of `avtune pretrain`$"):
            read_checkpoint(tmp_path / name)
    save_file(avsiam_state(DIM, 1), tmp_path / "cut.safetensors")
    torch.save(avsiam_state(DIM, 1), tmp_path / "cut.pth")
    torch.save(avsiam_state(DIM, 1), tmp_path / "former.pth", _use_new_zipfile_serialization=False)
    for name in ("cut.safetensors", "cut.pth", "former.pth"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ConversionError, match=r"can be read: it is cut off, .* download it again$"):
            read_checkpoint(tmp_path / name)
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "numbers.pth")
    with pytest.raises(ConversionError, match="named tensors"):
        read_checkpoint(tmp_path / "numbers.pth")
