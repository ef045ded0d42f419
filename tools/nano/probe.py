"""Linear probes on the nano backbone: pretrained weights, random weights and pixels (16x16), on pictures it never saw.

    OMP_NUM_THREADS=1 python tools/nano/probe.py --bandstand runs/nano_band --out benchmarks/results/nano_probes.json

Bandstand is rendered into the folder first if it is absent.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from linear import accuracy
from pictures import GLYPHS, Labelled, bandstand, glyphs
from torch import Tensor, nn

from avtune.backbones.nano import create_nano
from avtune.datasets.bandstand import CLASSES, render_bandstand

TRAIN_SHARE, INNER_SHARE = 0.7, 0.8


def features(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return torch.cat([model(batch).float() for batch in images.split(128)])


def stream_scale(model: nn.Module, images: Tensor) -> list[float]:
    """Standard deviation of the residual stream: behind the embedding, then behind each block."""
    scales = []
    with torch.no_grad():
        tokens = model.patch_embed(images) + model.pos_embed
        scales.append(float(tokens.std()))
        for block in model.blocks:
            tokens = block(tokens)
            scales.append(float(tokens.std()))
    return [round(s, 3) for s in scales]


def probe(rows: Tensor, data: Labelled, classes: int, seed: int, train_groups: int | None) -> float:
    """Accuracy on held-out groups, %; `train_groups` limits how many groups the probe learns from."""
    groups = data.groups.unique()
    groups = groups[torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))]
    split = round(TRAIN_SHARE * len(groups))
    learning = groups[:split][:train_groups]
    inner_groups = learning[: round(INNER_SHARE * len(learning))]
    train, test = torch.isin(data.groups, learning), torch.isin(data.groups, groups[split:])
    inner = torch.isin(data.groups[train], inner_groups)
    pairs = [(rows[side], data.labels[side]) for side in (train, test)]
    return 100 * accuracy(pairs[0], pairs[1], inner, classes)


def arms(pretrained: Path | None) -> dict[str, list[Callable[[Tensor], Tensor]]]:
    """What is compared; each arm has one way to features per seed."""
    trained = create_nano(pretrained=pretrained is None, seed=0).eval()
    if pretrained:
        state = torch.load(pretrained, weights_only=True)["model"]
        trained.load_state_dict({k[8:]: v for k, v in state.items() if k.startswith("encoder.")})
    untrained = [create_nano(pretrained=False, seed=seed).eval() for seed in range(3)]

    def pixels(images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 4).flatten(1)

    def learned(images: Tensor) -> Tensor:
        return features(trained, images)

    return {
        "pretrained": [learned] * 3,
        "random": [lambda x, m=m: features(m, x) for m in untrained],
        "pixels": [pixels] * 3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bandstand", type=Path, default=Path("runs/nano_band"), help="folder of a bandstand set"
    )
    parser.add_argument("--clips", type=int, default=400, help="clips to render where the folder holds fewer")
    parser.add_argument(
        "--checkpoint", type=Path, help="judge this checkpoint instead of the packaged weights"
    )
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--quick", action="store_true", help="one seed, without raw pixels")
    options = parser.parse_args()
    render_bandstand(options.bandstand, options.clips, seed=11, workers=1)
    played = bandstand(options.bandstand)
    tasks = {
        "glyphs": (glyphs(4000, 0), len(GLYPHS), None),
        "bandstand frames": (played["frames"], len(CLASSES), None),
        "bandstand spectrograms": (played["spectrograms"], len(CLASSES), None),
        "bandstand frames, 30 clips": (played["frames"], len(CLASSES), 30),
        "bandstand spectrograms, 30 clips": (played["spectrograms"], len(CLASSES), 30),
    }
    compared = arms(options.checkpoint)
    if options.quick:
        compared = {name: ways[:1] for name, ways in compared.items() if name != "pixels"}
    results: dict[str, object] = {"unit": "% correct, linear probe on the mean of the final tokens"}
    for task, (data, classes, limit) in tasks.items():
        row = {}
        for arm, ways in compared.items():
            # An arm without chance in its features computes them once.
            rows = {id(way): way(data.images) for way in ways}
            scores = [round(probe(rows[id(w)], data, classes, seed, limit), 1) for seed, w in enumerate(ways)]
            spread = round(statistics.stdev(scores), 1) if len(scores) > 1 else None
            row[arm] = {"mean": round(statistics.mean(scores), 1), "std": spread, "seeds": scores}
        majority = float(data.labels.bincount().max() / len(data.labels))
        results[task] = {"pictures": len(data.labels), "majority": round(100 * majority, 1), **row}
        print(task, json.dumps(results[task]), flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1) + "\n")
    if not options.checkpoint:
        images = {kind: data.images[:128] for kind, data in played.items()}
        results["stream std behind embedding and each block"] = {
            arm: {kind: stream_scale(model, pictures) for kind, pictures in images.items()}
            for arm, model in (
                ("pretrained", create_nano().eval()),
                ("random", create_nano(pretrained=False, seed=0).eval()),
            )
        }
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
