"""LAVISH on the frozen nano backbone against LAVISH on the same network with random weights, on bandstand.

    OMP_NUM_THREADS=1 python benchmarks/experiments/nano_vs_random.py --out benchmarks/results/nano_vs_random.json

Both arms see the same clips and train equally long. The learning rate of each arm is chosen on the validation clips
with the first seed; every seed then trains with it, and the test clips are scored once, with the weights of the best
validation epoch. A seed decides the adapters and the order of the clips, in the random arms also the backbone. In the
arm `random_scaled` the random network's residual stream is as large as the pretrained one's: it computes the same as at
its own scale, but what adapters add counts for less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from avtune.backbones.nano import scale_stream
from avtune.config import DataConfig, EncoderConfig, HeadConfig, OptimizerConfig, RunConfig, TrainConfig
from avtune.datasets.bandstand import render_bandstand
from avtune.model import AudioVisualModel
from avtune.runs import Clips, RunObserver, prepare_clips, read_collection
from avtune.train import Trainer, evaluate

ARMS = ("pretrained", "random", "random_scaled")
# From the 0.29 of timm's initialisation to the packaged weights' 10, behind the last block.
RANDOM_SCALE = 34.5
SEED_OF_CLIPS = 11


def configure(options: argparse.Namespace, arm: str, lr: float, seed: int) -> RunConfig:
    return RunConfig(
        data=DataConfig(name="bandstand", root=str(options.bandstand), workers=0),
        encoder=EncoderConfig(tower="nano", fusion="lavish", pretrained=arm == "pretrained", tower_seed=seed),
        head=HeadConfig(hidden=128),
        optimizer=OptimizerConfig(lr=lr, lr_gate=10 * lr, weight_decay=0.01, schedule="cosine"),
        train=TrainConfig(
            epochs=options.epochs, batch_size=8, precision="bf16", crop_segments=4, flip=0.5, seed=seed
        ),
    )


def prepare(options: argparse.Namespace) -> Clips:
    config, observer = configure(options, "random", options.rates[0], 0), RunObserver()
    collection = read_collection(config, observer)
    fewer = {**collection.splits, "train": collection.splits["train"][: options.train_clips]}
    collection = replace(collection, splits=fewer)
    return prepare_clips(config, AudioVisualModel(config, collection.labels), collection, observer)


def run(config: RunConfig, clips: Clips, splits: tuple[str, ...], scaled: bool) -> dict[str, float]:
    """Share of correct seconds, %, on each of `splits`, and the processor seconds that training took."""
    torch.manual_seed(config.train.seed)
    model = AudioVisualModel(config, clips.collection.labels)
    if scaled:
        scale_stream(dict(model.network.encoder.video_tower.named_parameters()), RANDOM_SCALE)
    train = clips.splits["train"]
    before = time.process_time()
    # The fused attention's backward in bfloat16 on CPUs is several times slower than the written-out one.
    with tempfile.TemporaryDirectory() as folder, sdpa_kernel(SDPBackend.MATH):
        trainer = Trainer(
            model.network, model.task, model.config, Path(folder), train, clips.splits["validation"],
            names=[record.name for record in train.records],
        )  # fmt: skip
        model.network.load_trained_state(trainer.fit().weights)
    spent = time.process_time() - before
    model.eval()
    scores = {s: evaluate(model.network, model.task, clips.splits[s], batch_size=8).scores for s in splits}
    return {s: round(100 * float(found.value), 2) for s, found in scores.items()} | {
        "cpu_seconds": round(spent, 1)
    }


def study(options: argparse.Namespace, arm: str, clips: Clips) -> dict[str, Any]:
    """Choose an arm's learning rate, then train and score it with every seed."""
    search, scaled = {}, arm == "random_scaled"
    for rate in options.rates:
        search[rate] = run(configure(options, arm, rate, 0), clips, ("validation", "test"), scaled)
        print(arm, rate, search[rate], flush=True)
    best = max(search, key=lambda rate: search[rate]["validation"])
    seeds = [search[best]]
    for seed in range(1, options.seeds):
        seeds.append(run(configure(options, arm, best, seed), clips, ("validation", "test"), scaled))
        print(arm, best, seed, seeds[-1], flush=True)
    test = [row["test"] for row in seeds]
    config = asdict(configure(options, arm, best, 0))
    config["data"].pop("root")
    return {
        # The test score of a rate that was not chosen is no result.
        "validation_by_rate": {str(rate): found["validation"] for rate, found in search.items()},
        "learning_rate": best,
        "seeds": seeds,
        "test_mean": round(statistics.mean(test), 2),
        "test_std": round(statistics.stdev(test), 2) if len(test) > 1 else None,
        "clips": {split: len(part) for split, part in clips.splits.items()},
        "config": config,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bandstand", type=Path, default=Path("runs/nano_band"), help="folder of the clips")
    parser.add_argument("--clips", type=int, default=400, help="clips to render where the folder holds fewer")
    parser.add_argument(
        "--train-clips", type=int, default=140, help="training clips used, the first of the split"
    )
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2], help="learning rates tried"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=list(ARMS), help="the other's result is kept"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/nano_vs_random.json"))
    options = parser.parse_args()
    render_bandstand(options.bandstand, options.clips, seed=SEED_OF_CLIPS, workers=1)
    clips = prepare(options)
    for arm in options.arms:
        found = study(options, arm, clips)
        # Read again, so that the arms may run side by side.
        results = json.loads(options.out.read_text()) if options.out.exists() else {}
        results["unit"] = "% correct seconds, background included"
        results[arm] = found
        if all(name in results for name in ARMS):
            random = max(results[name]["test_mean"] for name in ARMS[1:])
            results["gain"] = round(results["pretrained"]["test_mean"] - random, 2)
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
