"""How large the frozen nano backbone's residual stream should be for adapters that write into it.

    OMP_NUM_THREADS=1 python benchmarks/experiments/nano_stream_scale.py

The network computes the same at any scale (`avtune.backbones.nano.scale_stream`); what LAVISH adds counts for more
or less. Trains `bandstand/lavish_nano` on generated clips for each scale and scores validation and test clips.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from avtune.backbones import nano
from avtune.config import RunConfig
from avtune.datasets.bandstand import render_bandstand
from avtune.model import AudioVisualModel
from avtune.recipes import parse_config, recipe_path
from avtune.runs import Clips, RunObserver, fit_model, prepare_clips, read_collection
from avtune.train import evaluate

PACKAGED = Path(nano.__file__).parent / nano.NANO_WEIGHTS
SEED_OF_CLIPS = 11


def rescaled(factor: float, folder: Path) -> Path:
    """The packaged weights with a residual stream `factor` times as large at every depth."""
    weights = {name: value.float() for name, value in load_file(PACKAGED).items()}
    nano.scale_stream(weights, factor)
    path = folder / f"{factor:g}.safetensors"
    save_file({name: value.half() for name, value in weights.items()}, path)
    return path


def run(clips: Clips, config: RunConfig, seed: int) -> dict[str, float]:
    config = replace(config, train=replace(config.train, seed=seed))
    torch.manual_seed(seed)
    model = AudioVisualModel(config, clips.collection.labels)
    with tempfile.TemporaryDirectory() as folder:
        fit_model(model, config, Path(folder), clips, RunObserver())
    splits = ("validation", "test")
    scores = {s: evaluate(model.network, model.task, clips.splits[s], batch_size=8).scores for s in splits}
    return {split: round(100 * float(found.value), 2) for split, found in scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bandstand", type=Path, default=Path("runs/band300"), help="folder of the clips")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument(
        "--factors", type=float, nargs="+", default=[0.1, 0.3, 1, 3], help="times the packaged scale"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/nano_stream_scale.json"))
    options = parser.parse_args()
    render_bandstand(options.bandstand, options.clips, seed=SEED_OF_CLIPS, workers=1)
    settings = [f"--data.root={options.bandstand}", "--data.workers=0"]
    config = parse_config(settings, recipe_path("bandstand/lavish_nano"))
    collection = read_collection(config, RunObserver())
    clips = prepare_clips(config, AudioVisualModel(config, collection.labels), collection, RunObserver())
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for factor in options.factors:
            nano.NANO_WEIGHTS = str(rescaled(factor, Path(folder)))
            for seed in options.seeds:
                scores = run(clips, config, seed)
                found.setdefault(f"{factor:g}", {})[str(seed)] = scores
                print(factor, seed, scores, flush=True)
                result = {"unit": "% correct seconds", "clips": options.clips, "scores": found}
                options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
