"""What runs on a CUDA device equals what runs on the CPU, and no step waits for the device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrain_cases import DEPTH, clips, small_avsiam, small_cav_mae
from torch import Tensor, nn
from torch._dynamo.utils import counters

from avtune.cli import main
from avtune.datasets.bandstand import render_bandstand
from avtune.pretrain import packing
from avtune.pretrain.blocks import PackedBlock
from avtune.pretrain.packing import Layout, attend_packed, has_varlen

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CLIPS = 7
LENGTHS = (*(5,) * 3, *(64,) * 2, 1, 130, 257, *(512,) * 2)
ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
"""Relative error over a whole tensor: some units in the last place of a sum of products in that precision."""


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def differs(one: Tensor, other: Tensor) -> float:
    """|one - other| / |other|, in double precision on the CPU."""
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    return float((one - other).norm() / other.norm())


def model_of(name: str, device: str = "cpu") -> Any:
    # Wide enough for heads of eight channels, which the kernel for differing lengths asks for.
    small = {"cav_mae": small_cav_mae}.get(name, lambda **options: small_avsiam(name, **options))
    return small(dim=32).to(device).train()


def draws(model: Any, seed: int = 0) -> Any:
    return model.draw(CLIPS, torch.Generator().manual_seed(seed))


def backward(model: Any, device: str, half: bool = False, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of one step."""
    sounds, frames = (x.to(device) for x in clips(CLIPS))
    model.zero_grad()
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        loss = model(sounds, frames, draws(model, seed)).total
    loss.backward()
    return loss, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("precision", ROUNDING, ids=str)
@pytest.mark.parametrize("channels", [16, 64])
def test_attention(precision: torch.dtype, channels: int) -> None:
    layout, heads = Layout(LENGTHS, (("audio", sum(LENGTHS)),)), 3
    generator = torch.Generator().manual_seed(0)
    # As a block makes them: queries, keys and values side by side, so that none of them is contiguous.
    mixed = torch.randn(sum(LENGTHS), 3, heads, channels, generator=generator).to(precision)
    weights = torch.randn(sum(LENGTHS), heads, channels, generator=generator)
    theirs = mixed.double().requires_grad_()
    wanted = attend_packed(*theirs.unbind(1), layout)
    (wanted * weights).sum().backward()

    ours = mixed.cuda().requires_grad_()
    layout.place(ours.device)
    assert has_varlen(ours) == (precision != torch.float32), "torch 2.10 and an Ampere or later are meant"
    found = attend_packed(*ours.unbind(1), layout)
    assert found.dtype == precision
    (found * weights.cuda()).sum().backward()
    assert differs(found, wanted) < ROUNDING[precision]
    assert ours.grad is not None
    assert theirs.grad is not None
    for part, true in zip(ours.grad.unbind(1), theirs.grad.unbind(1), strict=True):
        assert differs(part, true) < ROUNDING[precision]


@pytest.mark.parametrize("name", ["paper", "release", "avsep", "cav_mae"])
def test_losses_and_gradients_in_single_precision(name: str) -> None:
    loss, gradients = backward(model_of(name), "cpu")
    on_device, found = backward(model_of(name, "cuda"), "cuda")
    assert differs(on_device, loss) < 1e-5
    assert found.keys() == gradients.keys()
    whole = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
    for weight, gradient in gradients.items():
        # Beside that of the whole: the gradient of a key's bias is zero but for rounding.
        assert (found[weight].cpu() - gradient).norm() < 1e-5 * whole, weight


@pytest.mark.parametrize(("name", "layers"), [("paper", DEPTH + 2), ("cav_mae", 1)])
def test_half_precision_calls_attention_once_a_layer(
    name: str, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer that sees differing lengths: not the decoder, nor CAV-MAE's layers before the joint one."""
    loss, _ = backward(model_of(name), "cpu")
    model = model_of(name, "cuda")
    calls = []
    kernel: Any = packing.varlen_attn

    def counted(query: Tensor, *rest: Any) -> Tensor:
        calls.append(len(query))
        found: Tensor = kernel(query, *rest)
        return found

    monkeypatch.setattr(packing, "varlen_attn", counted)
    on_device, gradients = backward(model, "cuda", half=True)
    assert differs(on_device, loss) < 2e-2
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert len(calls) == layers


@pytest.mark.parametrize("name", ["paper", "published", "avsep", "cav_mae"])
def test_a_step_never_waits_for_the_device(name: str) -> None:
    model = model_of(name, "cuda")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    sounds, frames = (x.cuda() for x in clips(CLIPS))

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(sounds, frames, draws(model)).total
        loss.backward()
        optimizer.step()

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_compiled_blocks_are_compiled_once_for_all_masks() -> None:
    model = model_of("paper", "cuda")
    wanted = [backward(model, "cuda", half=True, seed=seed)[0] for seed in range(4)]
    compile_blocks(model)
    counters.clear()
    first = backward(model, "cuda", half=True, seed=0)[0]
    graphs = counters["stats"]["unique_graphs"]
    found = [first, *(backward(model, "cuda", half=True, seed=seed)[0] for seed in range(1, 4))]
    assert counters["stats"]["unique_graphs"] == graphs
    for one, other in zip(found, wanted, strict=True):
        # Fused layers keep single precision where those of the plain form round to half.
        assert differs(one, other) < 2e-2


def compile_blocks(model: nn.Module) -> None:
    for block in model.modules():
        if isinstance(block, PackedBlock):
            block.compile(dynamic=True)


def test_training_on_the_device_has_the_losses_of_the_cpu(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    render_bandstand(clips, 8, seed=3, size=64, rate=4, workers=1)
    common = [
        "train", "bandstand/lavish_nano", f"--data.root={clips}", "--data.workers=0", "--train.epochs=2",
        "--train.batch_size=3", "--train.floors=false", "--head.hidden=16",
    ]  # fmt: skip
    runs = {device: tmp_path / device for device in ("cuda", "cpu")}
    assert main([*common, "--out", str(runs["cuda"])]) == 0
    # Another process, which sees no device.
    subprocess.run(
        [sys.executable, "-c", "import sys; from avtune.cli import main; sys.exit(main(sys.argv[1:]))",
         *common, "--out", str(runs["cpu"])],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=True, timeout=300,
    )  # fmt: skip
    logs = {
        device: [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        for device, run in runs.items()
    }
    losses = {device: [line["loss"] for line in log if "loss" in line] for device, log in logs.items()}
    assert len(losses["cpu"]) >= 2
    # Single precision; a few updates let rounding grow by some digits.
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)
