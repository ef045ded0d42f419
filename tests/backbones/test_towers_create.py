"""Towers by name: what is refused, where weights come from, how large things are."""

import os
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from tower_cases import timm_state

from avtune.backbones import BackboneError, as_tower, create_tower, unused_head_parameters
from avtune.backbones.timm_loading import timm

TINY = "vit_tiny_patch16_224.augreg_in21k"
CLOSED_PORT = "http://127.0.0.1:9"


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache and a hub that refuses every connection."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", CLOSED_PORT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def tiny_model():
    torch.manual_seed(5)
    return timm.create_model(TINY)


def assert_one_line(error):
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "vit_tiny_patch16_24",
            r"no backbone named vit_tiny_patch16_24; the nearest are vit_tiny_patch16_224",
        ),
        ("vit_base_patch16_224.augreg_in22k", r"Invalid pretrained tag.*vit_base_patch16_224\.augreg_in21k"),
        ("zzzzzzzz", r"no backbone named zzzzzzzz; avtune list towers"),
        ("resnet18", r"resnet18 is a ResNet.*ViT.*Swin-V2"),
        ("vit_relpos_small_patch16_224", r"is a VisionTransformerRelPos"),
        ("beit_base_patch16_224", r"is a Beit"),
        ("vit_small_patch16_18x2_224", r"is built of ParallelThingsBlock"),
        ("vit_pwee_patch16_reg1_gap_256", r"is built of ParallelScalingBlock"),
        ("local-dir:/there/is/no/such/folder", r"timm cannot build.*not found"),
    ],
)
@pytest.mark.parametrize("pretrained", [True, False])
def test_what_cannot_be_a_tower_is_refused_before_anything_is_fetched(name, words, pretrained, empty_cache):
    with pytest.raises(BackboneError, match=words) as error:
        create_tower(name, pretrained=pretrained)
    assert_one_line(error)


def test_a_subclass_that_walks_otherwise_is_no_vit(tiny_model):
    class Other(timm.models.vision_transformer.VisionTransformer):
        def forward_features(self, x):
            return super().forward_features(x) * 2

    model = Other(img_size=32, patch_size=16, embed_dim=8, num_heads=2, depth=1, num_classes=0)
    with pytest.raises(BackboneError, match="x is a Other"):
        as_tower(model, "x")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depth": 0}, "depth must be at least 1"),
        ({"embed_dim": 4}, "timm cannot build"),
        ({"no_such_option": 3}, "no_such_option"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(BackboneError, match=words) as error:
        create_tower("vit_tiny_patch16_224", pretrained=False, **arguments)
    assert_one_line(error)


def test_nano_has_no_options():
    with pytest.raises(BackboneError, match="no options; leave out embed_dim"):
        create_tower("nano", pretrained=False, embed_dim=64)


@pytest.mark.parametrize("name", [TINY, "swinv2_base_window12_192.ms_in22k", "hf-hub:timm/some_model"])
def test_without_a_network_the_remedies_are_named_at_once(name, empty_cache):
    start = time.monotonic()
    with pytest.raises(BackboneError, match=r"not cached.*refused.*HF_HOME.*checkpoint_path.*nano") as error:
        create_tower(name)
    assert time.monotonic() - start < 20
    assert_one_line(error)


def test_offline_mode_asks_no_one(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("urllib.request.urlopen", lambda *call, **named: pytest.fail("asked the network"))
    with pytest.raises(BackboneError, match="HF_HUB_OFFLINE is set"):
        create_tower(TINY)


def test_the_environment_of_a_process_without_network(tmp_path):
    program = (
        "from avtune.backbones import *\n"
        f"try: create_tower({TINY!r})\n"
        "except BackboneError as error: print(error)"
    )
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    environment |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": CLOSED_PORT, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith(
        f"the weights of {TINY} are not cached and could not be fetched (127.0.0.1:9: "
    )
    assert done.stdout.count("\n") == 1


def test_a_backbone_without_weights_says_so(empty_cache):
    with pytest.raises(
        BackboneError, match="no pretrained weights for vit_small_patch16_36x1_224; use pretrained=F"
    ):
        create_tower("vit_small_patch16_36x1_224")


def put_in_cache(cache: Path, repository: str) -> Path:
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123456789abcdef")
    return snapshot


def assert_same_weights(tower, model, blocks=12):
    state = timm_state(tower)
    kept = {
        key: value
        for key, value in model.state_dict().items()
        if not key.startswith("head") and not any(key.startswith(f"blocks.{i}.") for i in range(blocks, 12))
    }
    assert state.keys() == kept.keys()
    assert all(torch.equal(state[key], value) for key, value in kept.items())


def test_cached_weights_are_loaded_without_network(empty_cache, monkeypatch, tiny_model):
    monkeypatch.setattr("urllib.request.urlopen", lambda *call, **named: pytest.fail("asked the network"))
    snapshot = put_in_cache(empty_cache, f"timm/{TINY}")
    save_file(tiny_model.state_dict(), snapshot / "model.safetensors")
    tower = create_tower(TINY)
    assert_same_weights(tower, tiny_model)
    assert (tower.mean, tower.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert_same_weights(create_tower(TINY, depth=3), tiny_model, blocks=3)


def test_cached_weights_that_are_not_whole_are_refused(empty_cache, tiny_model):
    snapshot = put_in_cache(empty_cache, f"timm/{TINY}")
    state = {key: value for key, value in tiny_model.state_dict().items() if key != "blocks.7.mlp.fc1.bias"}
    save_file(state, snapshot / "model.safetensors")
    with pytest.raises(BackboneError, match=r"blocks\.7\.mlp\.fc1\.bias") as error:
        create_tower(TINY)
    assert_one_line(error)


def test_a_cached_hub_repository_is_loaded_without_network(empty_cache, monkeypatch, tiny_model):
    monkeypatch.setattr("urllib.request.urlopen", lambda *call, **named: pytest.fail("asked the network"))
    snapshot = put_in_cache(empty_cache, "someone/model")
    timm.models.save_for_hf(tiny_model, snapshot)
    assert_same_weights(create_tower("hf-hub:someone/model"), tiny_model)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_local_file_of_weights(tmp_path, tiny_model, suffix):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(tiny_model.state_dict(), path)
    else:
        torch.save({"state_dict": tiny_model.state_dict()}, path)
    tower = create_tower("vit_tiny_patch16_224", checkpoint_path=path)
    assert_same_weights(tower, tiny_model)


class Intruder:
    def __reduce__(self):
        return (os.mkdir, ("intruded",))


def test_a_file_that_runs_code_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Intruder()}, "weights.pt")
    with pytest.raises(BackboneError, match=r"weights\.pt: no weights that") as error:
        create_tower("vit_tiny_patch16_224", checkpoint_path="weights.pt")
    assert not Path("intruded").exists()
    assert_one_line(error)


def test_local_files_that_do_not_fit(tmp_path, tiny_model):
    state = tiny_model.state_dict()
    partial, foreign, text = (
        tmp_path / "partial.safetensors",
        tmp_path / "foreign.safetensors",
        tmp_path / "a.pt",
    )
    save_file({key: value for key, value in state.items() if "blocks.7" not in key}, partial)
    save_file({**state, "decoder.weight": torch.zeros(2)}, foreign)
    text.write_text("no weights at all")
    for path, words in [
        (partial, r"12 of its tensors are missing \(blocks\.7\."),
        (foreign, r"0 of its tensors are missing .* 1 belong to another model \(decoder\.weight"),
        (text, "no weights that"),
        (tmp_path / "none.pt", "no such file"),
    ]:
        with pytest.raises(BackboneError, match=words) as error:
            create_tower("vit_tiny_patch16_224", checkpoint_path=path)
        assert_one_line(error)


@pytest.mark.parametrize(
    ("name", "total", "head"),
    [
        # Millions of weights of the backbone with its ImageNet-21k head, and of that head, as LAVISH counts.
        ("vit_base_patch16_224.augreg_in21k", 102.596, 16.80),
        ("vit_large_patch16_224.augreg_in21k", 325.691, 22.39),
        ("swinv2_base_window12_192.ms_in22k", 109.281, 22.39),
        ("swinv2_large_window12_192.ms_in22k", 228.773, 33.57),
    ],
)
def test_sizes_are_known_without_building(name, total, head):
    start = time.process_time()
    tower = create_tower(name, device="meta")
    unused = unused_head_parameters(name)
    assert time.process_time() - start < 15
    assert all(parameter.is_meta for parameter in tower.parameters())
    assert round(unused / 1e6, 2) == head
    assert round((sum(parameter.numel() for parameter in tower.parameters()) + unused) / 1e6, 3) == total


def test_heads_that_are_not_there_count_nothing():
    assert unused_head_parameters("nano") == 0
    assert unused_head_parameters("vit_small_patch14_dinov2.lvd142m") == 0
    assert unused_head_parameters("deit_tiny_distilled_patch16_224.fb_in1k") == 2 * (192 * 1000 + 1000)


def test_blocks_are_cut_from_the_end():
    assert len(create_tower("vit_tiny_patch16_224", pretrained=False, depth=50, device="meta").blocks) == 12
    swin = create_tower("swinv2_tiny_window8_256", pretrained=False, depth=3, device="meta")
    assert [len(stage) for stage in swin.stages] == [2, 2, 3, 2]
    assert swin.dims == (96,) * 2 + (192,) * 2 + (384,) * 3 + (768,) * 2


def test_colours_follow_the_pretraining():
    clip = create_tower("vit_base_patch32_clip_224.openai", pretrained=False, device="meta")
    assert clip.mean == pytest.approx((0.481, 0.458, 0.408), abs=1e-3)
    swin = create_tower("swinv2_tiny_window8_256.ms_in1k", pretrained=False, device="meta")
    assert swin.mean == pytest.approx((0.485, 0.456, 0.406))
    assert (swin.image_size, swin.patch_size, swin.prefix_tokens) == (256, 4, 0)


def test_the_number_of_picture_channels_is_the_first_convolution_s():
    for name in ("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "vit_tiny_r_s16_p8_224"):
        assert create_tower(name, pretrained=False, device="meta").channels == 3
    tower = create_tower("vit_tiny_patch16_224", pretrained=False, depth=1, in_chans=1)
    assert tower.channels == 1
    assert tower(torch.zeros(1, tower.channels, 224, 224)).shape == (1, 197, 192)
