"""Tables of the documentation about pretraining and fine-tuning, from the files in `benchmarks/results`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docs_measured import RESULTS, measured_in, over_seeds, spread, table

SPEEDS = [RESULTS / f"pretraining_throughput_{device}.json" for device in ("cuda", "cpu")]
SEARCHES = RESULTS / "pretraining_bandstand.json"
FINE_TUNED = RESULTS / "finetuning_bandstand.json"
AUDIOSET_CLIPS, EPOCHS, GPUS = 1_772_023, 20, 16
"""CAV-MAE's copy of AudioSet-2M, and the passes and devices of AVSiam's Table 9."""
PRETRAINED = {
    "avsiam": "AVSiam",
    "contrastive": "AVSiam, contrast alone",
    "avsep": "AVSep",
    "cav_mae": "CAV-MAE",
}
PACKING = {
    "packed_over_grouped": "AVSiam, packed over grouped",
    "contrastive_packed_over_grouped": "contrast alone, packed over grouped",
    "avsiam_over_cav_mae": "AVSiam over CAV-MAE",
    "contrastive_over_cav_mae": "contrast alone over CAV-MAE",
    "avsiam_over_cav_mae_at_equal_tokens": "AVSiam over CAV-MAE of as many patches",
}


def pretraining_cost() -> str:
    """Speed and memory of a step as `benchmarks/pretraining_throughput.py` measured them, and the hours of AudioSet."""
    measured = json.loads(SPEEDS[0].read_text(encoding="utf-8"))
    rows = []
    for row in (row for batch in measured["batches"] for row in batch["rows"]):
        if row["form"] in PRETRAINED and "clips_per_second" in row:
            speed = row["clips_per_second"]
            hours = AUDIOSET_CLIPS * EPOCHS / (3600 * GPUS * speed)
            memory = f"{row['peak_mib'] / 1024:.1f} GiB"
            rows.append([PRETRAINED[row["form"]], str(row["clips"]), f"{speed:.0f}", memory, f"{hours:.2f}"])
    heading = ["model (Base)", "clips a step", "clips per second", "peak of memory", f"hours on {GPUS}"]
    return (
        f"{table(heading, rows)}\n"
        f"{_measured_on_a_device(measured)} The hours are computed from it by the formula.\n"
    )


def packing() -> str:
    """What packing gains, and AVSiam beside CAV-MAE, as `benchmarks/pretraining_throughput.py` measured them."""
    rows, places = [], []
    for file in filter(Path.is_file, SPEEDS):
        measured = json.loads(file.read_text(encoding="utf-8"))
        places.append(_measured_on_a_device(measured))
        for batch in measured["batches"]:
            ratios = (f"{batch[name]:.2f}" for name in PACKING)
            rows.append([measured["device"], str(measured["depth"]), str(batch["batch"]), *ratios])
    return (
        f"{table(['device', 'blocks', 'clips a step', *PACKING.values()], rows)}\n"
        f"Ratios of clips per second, in the last column of patches per second; AVSiam-Base. {' '.join(places)}\n"
    )


def pretraining_scores() -> str:
    """Zero-shot retrieval on generated clips after and before pretraining, means over seeds."""
    return measured_in(SEARCHES, _pretraining_scores)


def _pretraining_scores(measured: Mapping[str, Any]) -> str:
    rows = []
    for objective in dict.fromkeys(run["objective"] for run in measured["runs"]):
        runs = [run for run in measured["runs"] if run["objective"] == objective]
        for name, found in (
            (PRETRAINED[objective], [run["details"] for run in runs]),
            (
                f"{PRETRAINED[objective]} before pretraining",
                [run["details"]["before pretraining"] for run in runs],
            ),
        ):
            for direction, words in (
                ("audio_to_video", "sound to frames"),
                ("video_to_audio", "frames to sound"),
            ):
                searches = [details[direction] for details in found]
                recalls = (spread(100 * search[f"recall_at_{k}"] for search in searches) for k in (1, 5, 10))
                median = statistics.mean(search["median_rank"] for search in searches)
                rows.append([name, words, *recalls, f"{median:.0f}"])
    first = measured["runs"][0]
    return (
        f"{table(['model', 'search', 'R@1, %', 'R@5, %', 'R@10, %', 'median rank'], rows)}\n"
        f"Among {first['scored_clips']} test clips; chance is an R@1 of {100 * first['floors']['chance']:.2f} %, and "
        f"who knows every clip's class and nothing else finds {100 * first['details']['same_class']['chance']:.2f} %. "
        f"{first['clips']['train']} clips to learn from. {over_seeds(measured)}"
    )


def finetuning_scores() -> str:
    """Accuracy on generated clips with and without pretraining, means over seeds."""
    return measured_in(FINE_TUNED, _finetuning_scores)


def _finetuning_scores(measured: Mapping[str, Any]) -> str:
    rows = []
    for start in dict.fromkeys(run["start"] for run in measured["runs"]):
        runs = [run for run in measured["runs"] if run["start"] == start]
        floors = [[run["floors"][name] for run in runs] for name in runs[0]["floors"]]
        values = [[run["score"]["value"] for run in runs], *floors]
        rows.append([start, *(spread(100 * value for value in several) for several in values)])
    first = measured["runs"][0]
    return (
        f"{table(['begins', 'accuracy, %', *first['floors']], rows)}\n"
        f"{first['clips']['train']} labelled clips to learn from, {first['scored_clips']} to score. "
        f"{over_seeds(measured)}"
    )


def _measured_on_a_device(measured: Mapping[str, Any]) -> str:
    place = f"{measured['device']} ({measured['machine']})"
    return f"Measured on {place}, torch {measured['torch']}, {measured['precision']}, by `{measured['command']}`."
