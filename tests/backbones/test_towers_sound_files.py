"""The published files of AST and HTS-AT, key for key, on made-up files of the same keys and shapes."""

import os
from pathlib import Path

import pytest
import torch

from avtune.backbones import BackboneError, create_tower, htsat
from avtune.backbones.ast import AST_VARIANTS, AUDIOSET_FILE, ASTVariant
from avtune.backbones.htsat import DEPTHS, HTSAT_FILE

TINY = "ast_of_the_tests"


def made_up(shapes, seed=0):
    """Random tensors; integers where the name says so."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        if key.endswith(("num_batches_tracked", "relative_position_index")):
            state[key] = torch.randint(0, 200, shape, generator=generator)
        else:
            state[key] = torch.randn(shape, generator=generator)
    return state


def block_shapes(prefix, dim):
    yield from {
        f"{prefix}.norm1.weight": (dim,),
        f"{prefix}.norm1.bias": (dim,),
        f"{prefix}.attn.qkv.weight": (3 * dim, dim),
        f"{prefix}.attn.qkv.bias": (3 * dim,),
        f"{prefix}.attn.proj.weight": (dim, dim),
        f"{prefix}.attn.proj.bias": (dim,),
        f"{prefix}.norm2.weight": (dim,),
        f"{prefix}.norm2.bias": (dim,),
        f"{prefix}.mlp.fc1.weight": (4 * dim, dim),
        f"{prefix}.mlp.fc1.bias": (4 * dim,),
        f"{prefix}.mlp.fc2.weight": (dim, 4 * dim),
        f"{prefix}.mlp.fc2.bias": (dim,),
    }.items()


def ast_shapes(dim):
    """What the AST authors' code saves: ``ASTModel`` within ``DataParallel``, class heads of DeiT included."""
    return {
        "module.v.cls_token": (1, 1, dim),
        "module.v.dist_token": (1, 1, dim),
        "module.v.pos_embed": (1, 1214, dim),
        "module.v.patch_embed.proj.weight": (dim, 1, 16, 16),
        "module.v.patch_embed.proj.bias": (dim,),
        **{key: shape for n in range(12) for key, shape in block_shapes(f"module.v.blocks.{n}", dim)},
        "module.v.norm.weight": (dim,),
        "module.v.norm.bias": (dim,),
        "module.v.head.weight": (1000, dim),
        "module.v.head.bias": (1000,),
        "module.v.head_dist.weight": (1000, dim),
        "module.v.head_dist.bias": (1000,),
        "module.mlp_head.0.weight": (dim,),
        "module.mlp_head.0.bias": (dim,),
        "module.mlp_head.1.weight": (527, dim),
        "module.mlp_head.1.bias": (527,),
    }


def htsat_shapes(depths):
    """What the HTS-AT authors' code saves, under the prefix of its Lightning module."""
    shapes = {
        "spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
        "spectrogram_extractor.stft.conv_imag.weight": (513, 1, 1024),
        "logmel_extractor.melW": (513, 64),
        "bn0.weight": (64,),
        "bn0.bias": (64,),
        "bn0.running_mean": (64,),
        "bn0.running_var": (64,),
        "bn0.num_batches_tracked": (),
        "patch_embed.proj.weight": (96, 1, 4, 4),
        "patch_embed.proj.bias": (96,),
        "patch_embed.norm.weight": (96,),
        "patch_embed.norm.bias": (96,),
    }
    for stage, (depth, heads) in enumerate(zip(depths, (4, 8, 16, 32), strict=True)):
        dim, windows = 96 * 2**stage, (8 // 2**stage) ** 2
        for block in range(depth):
            prefix = f"layers.{stage}.blocks.{block}"
            shapes |= dict(block_shapes(prefix, dim))
            shapes[f"{prefix}.attn.relative_position_bias_table"] = (225, heads)
            shapes[f"{prefix}.attn.relative_position_index"] = (64, 64)
            if block % 2 and stage < 3:
                shapes[f"{prefix}.attn_mask"] = (windows, 64, 64)
        if stage < 3:
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * dim, 4 * dim)
            shapes[f"layers.{stage}.downsample.norm.weight"] = (4 * dim,)
            shapes[f"layers.{stage}.downsample.norm.bias"] = (4 * dim,)
    shapes |= {
        "norm.weight": (768,),
        "norm.bias": (768,),
        "tscam_conv.weight": (527, 768, 2, 3),
        "tscam_conv.bias": (527,),
        "head.weight": (527, 527),
        "head.bias": (527,),
    }
    return {f"sed_model.{key}": shape for key, shape in shapes.items()}


@pytest.fixture(autouse=True)
def small_architectures(monkeypatch):
    """A tenth of the weights: AST's narrowest DeiT, and five blocks of HTS-AT."""
    monkeypatch.setitem(AST_VARIANTS, TINY, ASTVariant("deit_tiny_distilled_patch16_224", audioset=True))
    monkeypatch.setattr(htsat, "DEPTHS", (2, 1, 1, 1))


@pytest.fixture(scope="module")
def ast_state():
    return made_up(ast_shapes(192))


@pytest.fixture(scope="module")
def htsat_state():
    return made_up(htsat_shapes((2, 1, 1, 1)))


def sizes(state, left_out):
    return sum(torch.Size(shape).numel() for key, shape in state.items() if not left_out(key))


def test_the_whole_published_files_have_the_towers_sizes(monkeypatch):
    left_out = ("module.v.head", "module.mlp_head")
    assert sizes(ast_shapes(768), lambda key: key.startswith(left_out)) == 86_187_264
    monkeypatch.setattr(htsat, "DEPTHS", DEPTHS)
    computed = ("running_mean", "running_var", "num_batches_tracked", "relative_position_index", "attn_mask")
    trained = {key: shape for key, shape in htsat_shapes(DEPTHS).items() if not key.endswith(computed)}
    assert round(sizes(trained, lambda key: False) / 1e6, 3) == 31.325
    for name in ("ast", "htsat"):
        tower = create_tower(name, device="meta")
        shapes = ast_shapes(768) if name == "ast" else htsat_shapes(DEPTHS)
        own = sum(value.numel() for value in tower.parameters())
        heads = (
            left_out
            if name == "ast"
            else ("sed_model.tscam", "sed_model.head", "sed_model.spec", "sed_model.logm")
        )
        assert own == sizes(shapes, lambda key, heads=heads: key.startswith(heads) or key.endswith(computed))


@pytest.mark.parametrize("wrapped", [True, False])
def test_an_ast_is_loaded_key_for_key(tmp_path, ast_state, wrapped):
    path = tmp_path / "audioset.pth"
    state = ast_state if wrapped else {key.removeprefix("module."): value for key, value in ast_state.items()}
    torch.save(state, path)
    tower = create_tower(TINY, checkpoint_path=path)
    model = tower.model
    for key in ("cls_token", "dist_token", "pos_embed"):
        assert torch.equal(getattr(model, key), ast_state[f"module.v.{key}"])
    assert torch.equal(model.patch_embed.proj.weight, ast_state["module.v.patch_embed.proj.weight"])
    assert torch.equal(model.norm.bias, ast_state["module.v.norm.bias"])
    for number, block in enumerate(tower.blocks):
        for key, value in block.block.state_dict().items():
            assert torch.equal(value, ast_state[f"module.v.blocks.{number}.{key}"])
    assert len(create_tower(TINY, checkpoint_path=path, depth=2).blocks) == 2
    assert not any(parameter.requires_grad for parameter in tower.parameters())


@pytest.mark.parametrize("wrapped", [True, False])
def test_an_hts_at_is_loaded_key_for_key(tmp_path, htsat_state, wrapped):
    path = tmp_path / "htsat.ckpt"
    if wrapped:
        content = {"epoch": 3, "global_step": 90, "state_dict": htsat_state, "optimizer_states": [{}]}
    else:
        content = {key.removeprefix("sed_model."): value for key, value in htsat_state.items()}
    torch.save(content, path)
    tower = create_tower("htsat", checkpoint_path=path)
    state = {key.removeprefix("sed_model."): value for key, value in htsat_state.items()}
    for key, value in tower.model.mel_norm.state_dict().items():
        assert torch.equal(value, state[f"bn0.{key}"])
    for key, value in tower.model.patch_embed.state_dict().items():
        assert torch.equal(value, state[f"patch_embed.{key}"])
    assert torch.equal(tower.model.norm.weight, state["norm.weight"])
    for stage, blocks in enumerate(tower.stages):
        for number, index in enumerate(blocks):
            block = tower.blocks[index]
            for key, value in block.block.state_dict().items():
                assert torch.equal(value, state[f"layers.{stage}.blocks.{number}.{key}"])
        # Merging stands at the end of the stage before in the file, at this stage's beginning here.
        merge = tower.blocks[blocks[0]].merge
        assert (merge is None) == (stage == 0)
        if stage:
            for key, value in merge.state_dict().items():
                assert torch.equal(value, state[f"layers.{stage - 1}.downsample.{key}"])
    assert tower(torch.randn(1, 1, 100, 64)).shape == (1, 64, 768)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (TINY, lambda s: s.pop("module.v.blocks.7.mlp.fc1.bias"), r"1 of its .*\(blocks\.7\.mlp\.fc1\.bias\)"),
        (TINY, lambda s: s.update({"module.v.blocks.12.norm1.bias": torch.zeros(192)}), r"blocks\.12\.norm1\.bias"),
        (TINY, lambda s: s.update({"module.decoder.weight": torch.zeros(2)}), r"another model \(decoder\.weight\)"),
        (TINY, lambda s: s.update({"module.v.pos_embed": torch.zeros(1, 579, 192)}), r"size mismatch for pos_embed"),
        ("htsat", lambda s: s.pop("sed_model.bn0.running_var"), r"1 of its .*\(mel_norm\.running_var\)"),
        ("htsat", lambda s: s.update({"sed_model.absolute_pos_embed": torch.zeros(2)}), r"\(absolute_pos_embed\)"),
        ("htsat", lambda s: s.update({"loss.weight": torch.zeros(2)}), r"another model \(loss\.weight\)"),
        ("htsat", lambda s: s.update({"sed_model.tscam_conv.mask": torch.zeros(2)}), r"\(tscam_conv\.mask\)"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path, ast_state, htsat_state, name, change, words):
    state = dict(ast_state if name == TINY else htsat_state)
    change(state)
    torch.save(state if name == TINY else {"state_dict": state}, tmp_path / "file")
    with pytest.raises(BackboneError, match=words) as error:
        create_tower(name, checkpoint_path=tmp_path / "file")
    assert "\n" not in str(error.value)


class Intruder:
    def __reduce__(self):
        return (os.mkdir, ("intruded",))


@pytest.mark.parametrize("name", [TINY, "htsat"])
def test_a_file_that_runs_code_is_not_opened(tmp_path, monkeypatch, htsat_state, name):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"sed_model.norm.bias": torch.zeros(2)}, "callbacks": Intruder()}, "file.ckpt")
    with pytest.raises(
        BackboneError, match=r"holds more than weights.*mkdir.*save its state dict alone"
    ) as error:
        create_tower(name, checkpoint_path="file.ckpt")
    assert not Path("intruded").exists()
    Path("file.ckpt").write_text("no weights at all")
    with pytest.raises(BackboneError, match=r"no weights that .* can take"):
        create_tower(name, checkpoint_path="file.ckpt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "file"), [("ast", AUDIOSET_FILE), ("htsat", HTSAT_FILE)])
def test_without_a_file_it_is_said_where_to_get_it_and_where_to_put_it(tmp_path, monkeypatch, name, file):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        BackboneError, match=rf"{tmp_path}.*get {file} from .*github\.com.*checkpoint_path"
    ) as error:
        create_tower(name)
    assert "\n" not in str(error.value)
    with pytest.raises(BackboneError, match="there is no such file of weights"):
        create_tower(name, checkpoint_path=tmp_path / "elsewhere.pth")


def test_a_file_in_its_place_is_found(tmp_path, monkeypatch, htsat_state):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": htsat_state}, tmp_path / "checkpoints" / HTSAT_FILE)
    tower = create_tower("htsat", depth=1)
    assert torch.equal(tower.model.norm.bias, htsat_state["sed_model.norm.bias"])


def test_imagenet_weights_become_an_ast(tmp_path):
    from avtune.backbones.timm_loading import timm

    deit = timm.create_model("deit_tiny_distilled_patch16_224", depth=12)
    torch.save({"model": deit.state_dict()}, tmp_path / "deit.pth")
    tower = create_tower("ast_tiny224_imagenet", checkpoint_path=tmp_path / "deit.pth")
    assert tower.table_grid == (14, 14)
    assert torch.equal(tower.model.pos_embed, deit.pos_embed)
    assert torch.equal(tower.model.patch_embed.proj.weight, deit.patch_embed.proj.weight.sum(1, keepdim=True))
    assert torch.equal(tower.blocks[5].block.attn.qkv.weight, deit.blocks[5].attn.qkv.weight)
