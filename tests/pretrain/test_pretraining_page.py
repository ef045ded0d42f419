"""The page on pretraining: its code runs, and its table says what the presets are."""

from __future__ import annotations

import re
from pathlib import Path

from avtune.pretrain.avsiam import PRESETS

PAGE = (Path(__file__).parents[2] / "docs" / "pretraining.md").read_text(encoding="utf-8")


def test_the_code_runs() -> None:
    _, block = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    exec(compile(block, "pretraining.md", "exec"), names)
    assert names["model"].encoder.audio.weight.grad is not None  # type: ignore[attr-defined]


def test_every_preset_is_on_the_page() -> None:
    for name in PRESETS:
        assert f"`{name}`" in PAGE


def test_the_table_of_presets() -> None:
    rows = {
        cells[0]: cells[1:]
        for line in PAGE.splitlines()
        if line.startswith("| ") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 4
    }
    names = rows[""]
    for column, settings in enumerate(PRESETS[name.strip("`")] for name in names):
        told = {row: cells[column] for row, cells in rows.items()}
        steps = [f"{ratio:g}" for ratio in settings.audio_ratios]
        wanted = f"0 to {steps[-1]} in steps of 0.1" if steps[1] == "0.1" else ", ".join(steps)
        assert told["ratios"] == wanted
        assert told["assignment"] == settings.assignment
        assert told["sound's pattern"].startswith(settings.audio_pattern[:4].replace("unst", "none"))
        assert ("second pass" in told["reconstructs"]) == (settings.reconstruction == "own_pass")
        assert ("copy" in told["reads the sound in it"]) == (settings.reconstruction_encoder == "copy")
        assert (told["gradient into the transformer"] == "stopped") == settings.stop_gradient
        assert (told["contrast"] == "both directions") == (settings.directions == "both")
        assert told["embeddings"].startswith("twice") == settings.doubled_embeddings
        assert ("two" in told["multimodal layers begin as"]) == (settings.joint_start == "last_blocks")
        assert told["decoder"].startswith(f"{settings.decoder_depth} blocks")
        assert ("zero" in told["decoder"]) == (settings.decoder_start == "zeros")
