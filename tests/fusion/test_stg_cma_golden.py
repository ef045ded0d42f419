"""STG-CMA against arrays recorded from the authors' code."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avtune.backbones import FrozenBlock, as_tower
from avtune.backbones.swin import SwinBlock
from avtune.backbones.timm_loading import timm
from avtune.backbones.tower import Positions, Resampling
from avtune.backbones.vit import ViTBlock, ViTTower
from avtune.encoder import BoundBlock, DualEncoder, pair_blocks
from avtune.fusion import BlockSizes, Fusion, Notes, build_fusion
from avtune.fusion.stg_cma import StgCmaLayer
from avtune.fusion.stg_cma_adapters import Adapter
from avtune.interop.lavish import ConversionError
from avtune.interop.stg_cma import fusion_from_official, layer_from_official
from golden_files import Golden, golden_files

FAMILY = "stg_cma"
LAYER_NORM = partial(nn.LayerNorm, eps=1e-5)
# CLIP's attention and MLP under timm's names.
TIMM = {
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj.": "attn.proj.",
    "ln_1.": "norm1.",
    "ln_2.": "norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
STREAMS = {"a": "audio", "v": "video"}
ADDED = ("Adapter", "gate_", "temporal_position", "t_relative")
# Buffers that timm makes itself.
MADE = ("relative_position_index", "attn_mask")


def to_timm(name: str) -> str:
    for theirs, ours in TIMM.items():
        name = name.replace(theirs, ours)
    return name


def frozen_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    left_out = (*ADDED, *MADE)
    return {
        to_timm(name): value for name, value in state.items() if not any(word in name for word in left_out)
    }


class Tolerance:
    """Float64 arrays are compared to 1e-10, float32 to 1e-5 (outputs) and 1e-4 of the largest (gradients)."""

    def __init__(self, golden: Golden) -> None:
        self.path = golden.path
        double = golden[next(n for n in golden.arrays if n.startswith("in/"))].dtype == torch.float64
        self.output, self.gradient = (1e-10, 1e-10) if double else (1e-5, 1e-4)

    def outputs(self, name: str, ours: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(
            ours, theirs, atol=self.output, rtol=0, msg=lambda m: f"{self.path} {name}: {m}"
        )

    def gradients(self, name: str, ours: Tensor | None, theirs: Tensor) -> None:
        assert ours is not None, f"{self.path}: {name} gets no gradient"
        largest = theirs.abs().max().clamp_min(1e-6)
        assert (ours - theirs).abs().max() / largest < self.gradient, f"{self.path}: {name}"


def frozen_block(golden: Golden) -> FrozenBlock:
    """The backbone's block of the recorded sizes with the recorded frozen weights, open to gradients."""
    c = golden.config
    block: Any
    if "Swin" in c["cls"]:
        block = timm.models.swin_transformer.SwinTransformerBlock(
            c["D"], tuple(c["res"]), num_heads=c["heads"], window_size=c["window"], shift_size=c["shift"],
            norm_layer=LAYER_NORM,
        )  # fmt: skip
    else:
        block = timm.models.vision_transformer.Block(
            c["D"],
            c["heads"],
            qkv_bias=True,
            act_layer=timm.layers.activations.QuickGELU,
            norm_layer=LAYER_NORM,
        )
    block = block.to(golden[next(n for n in golden.arrays if n.startswith("in/"))].dtype)
    load_frozen(block, frozen_state(golden.group("state")))
    return SwinBlock(block) if "Swin" in c["cls"] else ViTBlock(block)


def load_frozen(module: nn.Module, state: dict[str, Tensor]) -> None:
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [n for n in missing if not n.endswith(MADE)]


def method_of(golden: Golden, pairs: list[BlockSizes]) -> Fusion:
    c = golden.config
    alone = c.get("mode", "fusion_adapt") != "fusion_adapt"
    # A block alone says itself whether it attends along time; in a stage, and in CLIP, the rule decides.
    temporal = ("all" if c["t_attn"] else "none") if "t_attn" in c else "auto"
    options = {
        "ratios": [c["ratio"]],
        "direction": "none" if alone else "both",
        "temporal": "alternate" if "Swin" in c["cls"] and temporal == "auto" else temporal,
        "time_positions": "tables" if "Swin" in c["cls"] else "embedding",
    }
    return build_fusion("stg_cma", pairs, options=options)


def check_adapter(golden: Golden) -> None:
    c, tolerance = golden.config, Tolerance(golden)
    adapter = Adapter(c["D"], c["hidden"])
    names = {n: n.replace("D_fc1", "down").replace("D_fc2", "up") for n in golden.group("state")}
    adapter.load_state_dict({names[n]: value for n, value in golden.group("state").items()})
    x = golden["in/x"].requires_grad_()
    y = adapter(x) + x if c["skip"] else adapter(x)
    tolerance.outputs("y", y, golden["out/y"])
    (y**2).sum().backward()
    tolerance.gradients("x", x.grad, golden["grad_in/x"])
    weights = dict(adapter.named_parameters())
    for name, recorded in golden.group("grad_param").items():
        tolerance.gradients(name, weights[names[name]].grad, recorded)


def batch_first(golden: Golden, x: Tensor) -> Tensor:
    """Recorded CLIP tokens are (length, batch * T, dim), the frame index fastest."""
    return x if "Swin" in golden.config["cls"] else x.transpose(0, 1)


def load_streams(module: nn.Module, state: dict[str, Tensor], absent: list[str]) -> None:
    """Load recorded weights; only those of streams that the file does not have may be missing."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(any(STREAMS[name] in weight for name in absent) for weight in missing), missing


def check_block(golden: Golden) -> None:
    c, tolerance = golden.config, Tolerance(golden)
    block = frozen_block(golden)
    given = {n: value.requires_grad_() for n, value in golden.group("in").items()}
    streams = {n: batch_first(golden, value) for n, value in given.items()}
    # A file of one stream alone: the other is made up, and must not matter.
    alone = [name for name in STREAMS if name not in streams]
    for name in alone:
        streams[name] = torch.randn_like(next(iter(streams.values())))
    sizes = BlockSizes(c["D"], c["D"], c["heads"], c["heads"], segments=c["T"])
    layer = method_of(golden, [sizes]).layers[0].to(given[next(iter(given))].dtype).eval()
    assert isinstance(layer, StgCmaLayer)
    load_streams(layer, layer_from_official(golden.group("state"), set(layer.state_dict())), alone)

    bound, notes = BoundBlock(block, None), Notes(segments=c["T"])
    audio, video = layer.adapt_in_time(streams["a"], streams["v"], bound, bound, notes)
    mid = {"a_after_temporal": audio, "v_after_temporal": video}
    audio, video = layer.adapt_in_space(audio, video, bound, bound)
    mid |= {"a_after_spatial": audio, "v_after_spatial": video}
    for name, recorded in golden.group("mid").items():
        tolerance.outputs(name, batch_first(golden, mid[name]), recorded)
    made = dict(zip(("a", "v"), layer(streams["a"], streams["v"], bound, bound, notes), strict=True))
    if "v_nega" in streams:
        made["v_nega"] = block.plain(streams["v_nega"])

    for name, recorded in golden.group("out").items():
        tolerance.outputs(name, batch_first(golden, made[name]), recorded)
    torch.stack([(made[name] ** 2).sum() for name in golden.group("out")]).sum().backward()
    for name, recorded in golden.group("grad_in").items():
        tolerance.gradients(name, given[name].grad, recorded)
    ours = dict(layer.named_parameters())
    frozen = dict(block.block.named_parameters())
    recorded_gradients = golden.group("grad_param")
    marks = {name: torch.full((1,), float(k)) for k, name in enumerate(recorded_gradients)}
    added = {int(mark): name for name, mark in layer_from_official(marks).items()}
    for k, (name, recorded) in enumerate(recorded_gradients.items()):
        if k in added:
            tolerance.gradients(name, ours[added[k]].grad, recorded)
        else:
            tolerance.gradients(name, frozen[to_timm(name)].grad, recorded)


def check_stage(golden: Golden) -> None:
    c, tolerance = golden.config, Tolerance(golden)
    state = golden.group("state")
    merged = c["downsample"]
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=tuple(4 * side for side in c["res"]), patch_size=4, window_size=c["window"], embed_dim=c["D"],
        depths=(c["depth"], 1), num_heads=(c["heads"], c["heads"]), num_classes=0,
        norm_layer=LAYER_NORM,
    ).double()  # fmt: skip
    load_frozen(model.layers[0].blocks, {
        n.removeprefix("blocks."): value for n, value in frozen_state(state).items() if n.startswith("blocks.")
    })  # fmt: skip
    if merged:
        # Merging stood at the end of a stage, today at the start of the next.
        load_frozen(model.layers[1].downsample, {
            n.removeprefix("downsample."): value for n, value in state.items() if n.startswith("downsample.")
        })  # fmt: skip
    tower = as_tower(model, "recorded")
    blocks = list(tower.blocks)[: c["depth"]]
    pairs = [BlockSizes(b.dim, b.dim, b.heads, b.heads, segments=c["T"]) for b in blocks]
    fusion = method_of(golden, pairs).double().eval()
    fusion.load_state_dict(fusion_from_official(state, set(fusion.state_dict())))
    audio, video = given = [golden["in/a"].requires_grad_(), golden["in/v"].requires_grad_()]
    for layer, block in zip(fusion.layers, blocks, strict=True):
        bound = BoundBlock(block, None)
        audio, video = layer(audio, video, bound, bound, Notes(segments=c["T"]))
    if merged:
        merge = tower.blocks[c["depth"]].enter
        audio, video = merge(audio), merge(video)
    tolerance.outputs("a", audio, golden["out/a"])
    tolerance.outputs("v", video, golden["out/v"])
    ((audio**2).sum() + (video**2).sum()).backward()
    tolerance.gradients("a", given[0].grad, golden["grad_in/a"])
    tolerance.gradients("v", given[1].grad, golden["grad_in/v"])
    recorded = golden.group("grad_param")
    gradients = fusion_from_official(recorded)
    for name, weight in fusion.named_parameters():
        tolerance.gradients(name, weight.grad, gradients[name])


class RecordedTower(ViTTower):
    """A ViT whose sound enters by recorded weights: a convolution and a position table of its own, both frozen.

    In the authors' models they are made from those of the pictures; the recorded ones are random like the rest.
    """

    audio_filters: Tensor
    audio_positions: Tensor

    def place(self, images: Tensor, *, resampling: Resampling = "grid") -> tuple[Tensor, Positions]:
        # The encoder below resamples by "sequence", which it asks of sound alone.
        if resampling == "grid":
            return super().place(images)
        patches = nn.functional.conv2d(images[:, :1], self.audio_filters, stride=self.patch_size)
        patches = patches.flatten(2).transpose(1, 2)
        whole = torch.cat([self.model.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return whole + self.audio_positions, None


def clip_tower(golden: Golden) -> RecordedTower:
    c, state = golden.config, golden.group("state")
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=c["input_resolution"], patch_size=c["patch"], embed_dim=c["D"], depth=c["layers"],
        num_heads=c["heads"], num_classes=0, pre_norm=True, act_layer="quick_gelu",
        norm_layer=LAYER_NORM, dynamic_img_size=True,
    )  # fmt: skip
    renamed = {
        "cls_token": state["class_embedding"][None, None],
        "pos_embed": state["positional_embedding"][None],
        "patch_embed.proj.weight": state["conv1.weight"],
        **{f"norm_pre.{kind}": state[f"ln_pre.{kind}"] for kind in ("weight", "bias")},
        **{f"norm.{kind}": state[f"ln_post.{kind}"] for kind in ("weight", "bias")},
        **{
            name.replace("transformer.resblocks.", "blocks."): value
            for name, value in frozen_state(state).items()
            if name.startswith("transformer.resblocks.")
        },
    }
    load_frozen(model, renamed)
    tower = RecordedTower(model, name="recorded")
    tower.audio_filters = state["conv1_audio.weight"]
    tower.audio_positions = state["positional_embedding_audio"]
    return tower


def check_model(golden: Golden) -> None:
    c, tolerance, state = golden.config, Tolerance(golden), golden.group("state")
    tower = clip_tower(golden)
    depth = len(tower.blocks)
    pairs = [BlockSizes(b.dim, b.dim, b.heads, b.heads, segments=c["T"]) for b in tower.blocks]
    fusion = method_of(golden, pairs)
    given = {name: value.requires_grad_() for name, value in golden.group("in").items()}
    # A model of one stream alone: the other is made up, and must not matter.
    absent = [name for name in STREAMS if name not in given]
    load_streams(fusion, fusion_from_official(state, set(fusion.state_dict())), absent)
    plan = pair_blocks(depth, depth)
    encoder = DualEncoder(tower, tower, fusion, plan, resampling="sequence").eval()
    made_up = {"a": torch.randn(c["B"], c["T"], 64, 128), "v": torch.randn(c["B"], 3, c["T"], 48, 48)}
    sound, frames = (given.get(name, made_up[name]) for name in STREAMS)
    entered: list[Tensor] = []
    fusion.layers[0].register_forward_pre_hook(lambda _layer, streams: entered.extend(streams[:2]))
    # The authors' AVE model takes frames as (batch, colour, time, height, width).
    encoded = encoder(sound, frames.transpose(1, 2))

    for stream, tokens in zip(STREAMS, entered, strict=True):
        if f"mid/{stream}_tokens" in golden.arrays:
            tolerance.outputs(f"{stream}_tokens", tokens.transpose(0, 1), golden[f"mid/{stream}_tokens"])
    both = {"a": encoded.audio_pooled, "v": encoded.video_pooled}
    pooled = torch.cat([both[name] for name in STREAMS if name in given], dim=-1).flatten(0, 1)
    hidden = pooled @ state["mlp_head.0.weight"].T + state["mlp_head.0.bias"]
    logits = hidden @ state["mlp_head.2.weight"].T + state["mlp_head.2.bias"]
    tolerance.outputs("logits", logits, golden["out/logits"])
    (logits**2).sum().backward()
    for name, recorded in golden.group("grad_in").items():
        tolerance.gradients(name, given[name].grad, recorded)
    recorded_gradients = golden.group("grad_param")
    gradients = fusion_from_official(recorded_gradients)
    for name, weight in fusion.named_parameters():
        if name in gradients or not any(STREAMS[stream] in name for stream in absent):
            tolerance.gradients(name, weight.grad, gradients[name])
    for kind in ("weight", "bias"):
        tolerance.gradients(
            "ln_post", getattr(tower.model.norm, kind).grad, recorded_gradients[f"ln_post.{kind}"]
        )
    trained = {n for n, w in encoder.named_parameters() if w.requires_grad}
    assert trained == {f"fusion.{n}" for n, _ in fusion.named_parameters()} | {
        f"video_tower.model.norm.{kind}" for kind in ("weight", "bias")
    }


CHECKS = {
    "Adapter": check_adapter,
    "ResidualAttentionBlock": check_block,
    "SwinTransformerBlock": check_block,
    "BasicLayer": check_stage,
    "MM_CLIP_AVE": check_model,
}


def check_all(folder: Path) -> set[str]:
    seen = set()
    for golden in golden_files(folder / FAMILY):
        kind = golden.config["cls"].rsplit(".", 1)[-1]
        CHECKS[kind](golden)
        seen.add(kind)
    return seen


def test_the_arrays_that_come_with_the_project_are_reproduced() -> None:
    seen = check_all(Path(__file__).parents[1] / "golden")
    assert seen >= {"Adapter", "ResidualAttentionBlock", "SwinTransformerBlock", "BasicLayer"}


def test_blocks_stage_and_model_are_reproduced(golden_dir: Path) -> None:
    if not (golden_dir / FAMILY).is_dir():
        pytest.skip(f"{golden_dir} holds no family {FAMILY}")
    assert check_all(golden_dir) >= set(CHECKS)


def test_blocks_of_all_stages_are_numbered_through() -> None:
    places = {"module.layers.0.blocks.0": 0, "module.layers.0.blocks.1": 1, "module.layers.1.blocks.0": 2}
    official = {
        f"{place}.{name}": torch.full((1,), float(number))
        for place, number in places.items()
        for name in ("gate_v", "S_Adapter2.D_fc1.weight", "S_Adapter.D_fc1.weight", "attn.qkv.weight")
    }
    converted = fusion_from_official({**official, "module.layers.0.downsample.norm.weight": torch.zeros(1)})
    assert converted == {
        f"layers.{number}.{name}": number
        for number in places.values()
        for name in ("gates.video", "spatial_adapter.video.down.weight", "global_adapter.video.down.weight")
    }


def test_other_checkpoints_are_refused() -> None:
    with pytest.raises(ConversionError, match="holds no STG-CMA adapter"):
        layer_from_official({"attn.qkv.weight": torch.zeros(1)})
    with pytest.raises(ConversionError, match="holds no block of STG-CMA"):
        fusion_from_official({"vis_adapter_blocks_p1.0.gate": torch.zeros(1)})
