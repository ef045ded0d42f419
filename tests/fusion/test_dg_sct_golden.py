"""DG-SCT against arrays recorded from the authors' code."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avtune.fusion.dg_sct import PRESETS, DgSctAdapter
from avtune.interop.dg_sct import adapter_from_official, fusion_from_official
from avtune.interop.lavish import ConversionError
from golden_files import Golden, golden_files


def adapter_of(golden: Golden) -> DgSctAdapter:
    c = golden.config
    # The three-source AVS program weighs otherwise; the single-source one resizes instead of learning to.
    source = c["source"].lower()
    preset = "official_avs_ms3" if "ms3" in source else "official_avs" if "s4" in source else "official_ave"
    config = replace(
        PRESETS[preset],
        latents=c["latents"],
        reduction=c["reduction"],
        groups=c["groups"],
        batch_norm=c["batch_norm"] != "no",
        norm_before=c["layer_norm_before"],
        norm_after=c["layer_norm_after"],
        gate_order="gate_then_norm" if c["gate_before_layer_norm"] else "norm_then_gate",
        relu_alone=c["relu"],
    )
    adapter = DgSctAdapter(
        c["dim"], c["other_dim"], (c["tokens"], c["other_tokens"]), config,
        hears_other=c["multimodal"], gate=c["gate"],
    )  # fmt: skip
    adapter.load_state_dict(adapter_from_official(golden.group("state"), set(adapter.state_dict())))
    return adapter.train(c["batch_norm"] == "yes, train")


def assert_relative(name: str, ours: torch.Tensor | None, theirs: torch.Tensor, floor: float) -> None:
    """Within 1e-4 of the largest gradient, or of ``floor`` where all are smaller."""
    assert ours is not None, f"{name} gets no gradient"
    assert ((ours - theirs).abs().max() / theirs.abs().max().clamp_min(floor)) < 1e-4, name


def test_adapters_reproduce_the_arrays_that_come_with_the_project() -> None:
    check_adapters(Path(__file__).parents[1] / "golden")


def test_adapters_reproduce_outputs_maps_gradients_and_statistics(golden_dir: Path) -> None:
    check_adapters(golden_dir)


def check_adapters(folder: Path) -> None:
    seen = 0
    for golden in golden_files(folder, kind="dg_sct"):
        adapter = adapter_of(golden)
        x, other = golden["in/x"].requires_grad_(), golden["in/other"].requires_grad_()
        y, spatial = adapter(x, other)
        outputs = golden.group("out")
        torch.testing.assert_close(y, outputs.pop("y"), atol=1e-5, rtol=0, msg=str(golden.path))
        for name, recorded in outputs.items():
            assert name in ("spatial_att", "spatial_attention"), name
            torch.testing.assert_close(spatial, recorded.squeeze(1), atol=1e-5, rtol=0, msg=str(golden.path))
        # The recorded gradients are those of y; the map's squares are not in their loss.
        (y**2).sum().backward()
        c = golden.config
        # Behind a batch norm in training, or a norm that divides the gate out, some are zero but for rounding.
        cancels = c["batch_norm"] == "yes, train" or c["gate_before_layer_norm"]
        floor = 0.05 if cancels else 1e-4
        for name, recorded in golden.group("grad_in").items():
            ours = {"x": x, "other": other}[name].grad
            assert_relative(f"{golden.path} {name}", ours, recorded, floor)
        weights = dict(adapter.named_parameters())
        recorded_gradients = adapter_from_official(golden.group("grad_param"))
        reached = {name for name, weight in weights.items() if weight.grad is not None}
        assert recorded_gradients.keys() == reached, golden.path
        for name, recorded in recorded_gradients.items():
            assert_relative(f"{golden.path} {name}", weights[name].grad, recorded, floor)
        buffers = adapter.state_dict()
        for name, recorded in adapter_from_official(golden.group("state_after")).items():
            torch.testing.assert_close(buffers[name], recorded, atol=1e-6, rtol=1e-5)
        seen += 1
    assert seen >= 1


def test_a_whole_model_is_sorted_into_layers() -> None:
    golden = next(golden_files(Path(__file__).parents[1] / "golden", kind="dg_sct"))
    part = golden.group("state")
    state = {f"module.vis_adapter_blocks_p2.11.{name}": value for name, value in part.items()}
    state |= {f"audio_adapter_blocks_p1.0.{name}": value for name, value in part.items()}
    state |= {"swin.norm.weight": torch.ones(3), "CMBS.audio_cas.bias": torch.ones(3)}
    converted = fusion_from_official(state)
    one = adapter_from_official(part)
    assert converted.keys() == {
        f"{place}.{name}" for place in ("layers.11.video_second", "layers.0.audio_first") for name in one
    }
    assert fusion_from_official(state, {"layers.0.audio_first.prompt.count.weight"}).keys() == {
        "layers.0.audio_first.prompt.count.weight"
    }
    lavish = {name: value for name, value in state.items() if "conv_adapter" not in name}
    with pytest.raises(ConversionError, match="holds no DG-SCT adapter"):
        fusion_from_official(lavish)
    with pytest.raises(ConversionError, match="'fc_affine_3' is no weight"):
        adapter_from_official(part | {"fc_affine_3": torch.ones(3)})
