"""LAVISH against arrays recorded from the authors' code."""

from pathlib import Path

import pytest
import torch
from torch import nn

from avtune.backbones import as_tower
from avtune.backbones.timm_loading import timm
from avtune.encoder import DualEncoder, pair_blocks
from avtune.fusion import BlockSizes, build_fusion
from avtune.fusion.lavish import LavishAdapter, LavishConfig
from avtune.interop import adapter_from_official, fusion_from_official
from golden_files import Golden, golden_files


def adapter_of(golden: Golden) -> LavishAdapter:
    c = golden.config
    config = LavishConfig(
        latents=c["latents"],
        gate_compression=False,
        reduction=c["reduction"],
        groups=c["groups"],
        batch_norm=c["batch_norm"] != "no",
        norm_before=c["layer_norm_before"],
        norm_after=c["layer_norm_after"],
        gate_order="gate_then_norm" if c["gate_before_layer_norm"] else "norm_then_gate",
        relu_alone=c["relu"],
    )
    adapter = LavishAdapter(c["dim"], c["other_dim"], config, hears_other=c["multimodal"], gate=c["gate"])
    adapter.load_state_dict(adapter_from_official(golden.group("state"), set(adapter.state_dict())))
    return adapter.train(c["batch_norm"] == "yes, train")


def assert_relative(name: str, ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> None:
    # Behind a batch norm some gradients are zero but for rounding: those are compared to 5e-6 absolute.
    scale = theirs.abs().max().clamp_min(0.05)
    assert ((ours - theirs).abs().max() / scale) < tolerance, name


def test_adapters_reproduce_the_arrays_that_come_with_the_project() -> None:
    check_adapters(Path(__file__).parents[1] / "golden")


def test_adapters_reproduce_outputs_gradients_and_statistics(golden_dir: Path) -> None:
    check_adapters(golden_dir)


def check_adapters(folder: Path) -> None:
    seen = 0
    for golden in golden_files(folder, kind="lavish"):
        adapter = adapter_of(golden)
        x, other = golden["in/x"].requires_grad_(), golden["in/other"].requires_grad_()
        y = adapter(x, other)
        torch.testing.assert_close(y, golden["out/y"], atol=1e-5, rtol=0, msg=str(golden.path))
        (y**2).sum().backward()
        for name, recorded in golden.group("grad_in").items():
            ours = {"x": x, "other": other}[name].grad
            assert_relative(
                f"{golden.path} {name}", torch.zeros_like(recorded) if ours is None else ours, recorded, 1e-4
            )
        weights = dict(adapter.named_parameters())
        for official, recorded in golden.group("grad_param").items():
            ((name, shaped),) = adapter_from_official({official: recorded}).items()
            assert weights[name].grad is not None, f"{golden.path}: {name} gets no gradient"
            assert_relative(f"{golden.path} {name}", weights[name].grad, shaped, 1e-4)
        after = adapter_from_official(golden.group("state_after"))
        buffers = adapter.state_dict()
        for name, recorded in after.items():
            torch.testing.assert_close(buffers[name], recorded, atol=1e-6, rtol=1e-5)
        seen += 1
    assert seen >= 9


def timm_state(golden: Golden) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A timm model of the recorded sizes with the recorded weights, under today's names."""
    c = golden.config
    state = golden.group("state")
    if c["backbone"] == "vit":
        model = timm.models.vision_transformer.VisionTransformer(
            img_size=c["image"], patch_size=c["patch"], embed_dim=c["dim"], depth=c["depth"], num_heads=c["heads"],
            num_classes=0,
        )  # fmt: skip
        renamed = {n.removeprefix("ViT.v."): v for n, v in state.items() if n.startswith("ViT.v.")}
    else:
        model = timm.models.swin_transformer_v2.SwinTransformerV2(
            img_size=c["image"], patch_size=4, window_size=c["window"], embed_dim=c["dims"][0],
            depths=tuple(c["depths"]), num_heads=tuple(c["heads"]), num_classes=0,
        )  # fmt: skip
        renamed = {}
        for name, value in state.items():
            if name.startswith("swin."):
                name = name.removeprefix("swin.")
                if ".downsample." in name:
                    # Merging stood at the end of a stage, today at the start of the next.
                    stage = int(name.split(".")[1])
                    name = name.replace(f"layers.{stage}.", f"layers.{stage + 1}.", 1)
                renamed[name] = value
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert not unexpected
    assert not [
        n
        for n in missing
        if not n.endswith(("relative_coords_table", "relative_position_index", "attn_mask"))
    ]
    return model, state


def test_interleavings_reproduce_every_adapter_call_and_the_output(golden_dir: Path) -> None:
    seen = 0
    for golden in golden_files(golden_dir, kind="lavish_interleave"):
        c = golden.config
        model, state = timm_state(golden)
        tower = as_tower(model, "recorded")
        plan = pair_blocks(len(tower.blocks), len(tower.blocks))
        pairs = [BlockSizes(block.dim, block.dim) for block in tower.blocks]
        fusion = build_fusion(
            "lavish", pairs, "official_ave",
            {"latents": c["latents"], "reduction": c["reduction"], "groups": c["groups"],
             "batch_norm": c["batch_norm"] != "no", "norm_before": c["layer_norm_before"],
             "norm_after": c["layer_norm_after"]},
        )  # fmt: skip
        fusion.load_state_dict(fusion_from_official(state, set(fusion.state_dict())))
        encoder = DualEncoder(tower, tower, fusion, plan, resampling="sequence").eval()

        calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for layer in fusion.layers:
            for site in ("audio_attention", "video_attention", "audio_mlp", "video_mlp"):
                getattr(layer, site).register_forward_hook(
                    lambda _module, given, made, calls=calls: calls.append((*given, made))
                )
        audio, video = golden["in/audio"].requires_grad_(), golden["in/vis"].requires_grad_()
        encoded = encoder(audio, video)

        assert len(calls) == 4 * len(plan)
        for number, call in enumerate(calls):
            (prefix,) = {n.rsplit(".", 1)[0] for n in golden.arrays if n.startswith(f"call{number:02d}.")}
            for name, ours in zip(("self", "other", "out"), call, strict=True):
                torch.testing.assert_close(
                    ours, golden[f"{prefix}.{name}"], atol=1e-5, rtol=1e-5, msg=f"{prefix}.{name}"
                )
        torch.testing.assert_close(encoded.video, golden["finalnorm_out.0_vis"], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(encoded.audio, golden["finalnorm_out.1_aud"], atol=2e-5, rtol=1e-5)

        pooled = {"audio": encoded.audio_pooled[0], "visual": encoded.video_pooled[0]}
        joined = torch.cat([pooled[name] for name in c["head_order"].split(", ")], dim=-1)
        hidden = joined @ state["mlp_class.weight"].T + state["mlp_class.bias"]
        prob = (hidden @ state["mlp_class_2.weight"].T + state["mlp_class_2.bias"]).softmax(-1)
        torch.testing.assert_close(prob, golden["out/prob"], atol=1e-5, rtol=0)
        (prob**2).sum().backward()
        for name, value in (("audio", audio), ("vis", video)):
            assert value.grad is not None
            assert_relative(f"{golden.path} {name}", value.grad, golden[f"grad_in/{name}"], 1e-3)
        seen += 1
    if not seen:
        pytest.fail("no interleaving was recorded")
