"""CoPL's weights beside the numbers that its paper prints, counted on the meta device.

    python benchmarks/copl_counts.py

writes benchmarks/results/copl_counts.json and the table between the marks in docs/methods/copl.md.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avtune.config import EncoderConfig
from avtune.encoder import create_encoder, create_towers

RESULT = Path(__file__).parent / "results" / "copl_counts.json"
PAGE = Path(__file__).parents[1] / "docs" / "methods" / "copl.md"
MARKED = re.compile(r"(<!-- begin copl_counts -->\n).*?(<!-- end copl_counts -->)", re.DOTALL)
SWIN = "swinv2_large_window12_192.ms_in22k"
VIT = "vit_large_patch16_224.augreg_in21k"
TOWERS = {"Swin-V2-L": (SWIN, None), "ViT-L": (VIT, None), "Swin-V2-L + HTS-AT": (SWIN, "htsat")}
TASKS = {"AVE": ("paper", 10), "AVS": ("paper_avs", 5), "AVQA": ("paper_avqa", 10)}
AS_AVE = {"global_prompts": 20, "interaction_prompts": 20}


@dataclass(frozen=True)
class Row:
    """A number of the paper's tables, and the reading of the paper that comes nearest to it.

    Attributes:
        table: Table of the paper.
        towers: Key of ``TOWERS``.
        task: Key of ``TASKS``.
        published: Additional weights, millions as printed.
        reading: Options of that nearest reading.
        outside: Whether it also counts the five projections before the AVS decoder.
        why: Why the settings that the paper states give another number.
    """

    table: str
    towers: str
    task: str
    published: float
    why: str
    reading: dict[str, Any] = field(default_factory=dict)
    outside: bool = False


ONE_BANK = {"bank_sharing": "projected"}
ROWS = (
    Row("1", "Swin-V2-L", "AVE", 1.7, "prompts and banks alone are 1.697 M"),
    Row(
        "2", "Swin-V2-L", "AVS", 2.8, "prompts of 30 as the text says; 2.8 fits AVE's with the decoder's projections",
        AS_AVE, outside=True,
    ),
    Row("3", "Swin-V2-L", "AVQA", 1.8, "prompts of 30 as the text says; 1.8 fits those of AVE", AS_AVE),
    Row("1", "ViT-L", "AVE", 5.0, "no stated setting gives 5.0; prompts of 50 would",
        {"global_prompts": 50, "interaction_prompts": 50}),
    Row("3", "ViT-L", "AVQA", 5.0, "as for AVE, though the text has longer prompts here",
        {"global_prompts": 50, "interaction_prompts": 50}),
    Row("1", "Swin-V2-L + HTS-AT", "AVE", 0.7, "a bank for each width; 0.7 fits one bank of 768 channels", ONE_BANK),
    Row(
        "2", "Swin-V2-L + HTS-AT", "AVS", 1.8, "both: prompts of 30, and a bank for each width",
        {**ONE_BANK, **AS_AVE}, outside=True,
    ),
    Row("3", "Swin-V2-L + HTS-AT", "AVQA", 0.7, "both: prompts of 30, and a bank for each width",
        {**ONE_BANK, **AS_AVE}),
)  # fmt: skip


def count(towers: str, task: str, options: dict[str, Any]) -> dict[str, int]:
    """CoPL's weights by part: specific prompts, banks, and what couples them."""
    tower, audio_tower = TOWERS[towers]
    preset, segments = TASKS[task]
    config = EncoderConfig(
        tower=tower, audio_tower=audio_tower, fusion="copl", preset=preset, options=options
    )
    built = create_towers(config, device="meta")
    encoder = create_encoder(
        config, towers=built, segments=segments, spectrogram_shape=built[0].picture_size, device="meta"
    )
    parts = {"specific": 0, "banks": 0, "coupling": 0}
    for name, weight in encoder.fusion.named_parameters():
        part = "banks" if "entries" in name else "coupling" if "coupling" in name else "specific"
        parts[part] += weight.numel()
    return parts


def decoder_projections(towers: str) -> int:
    """The five linear layers that bring encoder widths to those of the AVS decoder."""
    sound = 768 if "HTS-AT" in towers else 1536
    widths = ((sound, 128), (192, 64), (384, 128), (768, 320), (1536, 512))
    return sum(given * made + made for given, made in widths)


def measure(row: Row) -> dict[str, Any]:
    parts = count(row.towers, row.task, {})
    nearest = sum(count(row.towers, row.task, row.reading).values())
    return {
        "table": row.table,
        "towers": row.towers,
        "task": row.task,
        "published_m": row.published,
        "parts": parts,
        "total": sum(parts.values()),
        "reading": row.reading,
        "decoder_projections": decoder_projections(row.towers) if row.outside else 0,
        "nearest": nearest + (decoder_projections(row.towers) if row.outside else 0),
        "why": row.why,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| towers | task (table) | published | here | of which prompts, banks, coupling | nearest reading | why |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        parts = ", ".join(f"{value / 1e6:.3f}" for value in row["parts"].values())
        settings = [f"`{name} {value}`" for name, value in row["reading"].items()]
        if row["decoder_projections"]:
            settings.append(f"{row['decoder_projections'] / 1e6:.3f} M of the decoder")
        reading = f"{row['nearest'] / 1e6:.3f} M: {', '.join(settings) or 'this one'}"
        ratio = f"{row['total'] / 1e6 / row['published_m'] - 1:+.0%}"
        cells = [
            row["towers"], f"{row['task']} ({row['table']})", f"{row['published_m']} M",
            f"{row['total'] / 1e6:.3f} M ({ratio})", parts, reading, row["why"],
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    rows = [measure(row) for row in ROWS]
    RESULT.write_text(
        json.dumps({"command": "python benchmarks/copl_counts.py", "rows": rows}, indent=1) + "\n"
    )
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARKED.sub(lambda m: m[1] + table(rows) + m[2], text), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
