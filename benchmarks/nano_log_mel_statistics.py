"""Mean and standard deviation of the log-mel of bandstand's sound: the constants of the ``nano`` preset.

    python benchmarks/nano_log_mel_statistics.py [--clips 60] [--seed 1]

renders clips into a temporary folder, takes the nano preset's spectrograms of their training part before
normalising, and writes benchmarks/results/nano_log_mel_statistics.json. Where bandstand's sound has changed,
put the rounded values into ``avtune/transforms/presets.py``; a test compares the two.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from avtune.config import InputConfig
from avtune.datasets.bandstand import VERSION, render_bandstand
from avtune.transforms import AUDIO_PRESETS, Preprocessing

RESULT = Path(__file__).parent / "results" / "nano_log_mel_statistics.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Mean 0 and a divisor of 1 leave the logarithms as they are.
    raw = replace(AUDIO_PRESETS["nano"], mean=0.0, std=0.5)
    half = (0.5, 0.5, 0.5)
    preprocessing = replace(Preprocessing.from_config(InputConfig(), 64, half, half), audio=raw)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bandstand"
        render_bandstand(root, arguments.clips, seed=arguments.seed, workers=1)
        rows = (root / "trainSet.txt").read_text(encoding="utf-8").splitlines()
        names = [row.split("&")[1] for row in rows if row]
        values = torch.stack(
            [preprocessing.load(root / "AVE" / f"{name}.mp4").spectrogram for name in names]
        ).double()
    result = {
        "what": "natural log-mel of bandstand's training clips, preset nano, before normalising",
        "bandstand_version": VERSION,
        "seed": arguments.seed,
        "clips_rendered": arguments.clips,
        "clips_measured": len(names),
        "mean": round(values.mean().item(), 4),
        "std": round(values.std().item(), 4),
        "least": round(values.min().item(), 4),
        "greatest": round(values.max().item(), 4),
        "share_at_floor": round((values < -15.94).double().mean().item(), 4),
        "quantiles_5_50_95": [
            round(values.flatten().sort().values[int(share * (values.numel() - 1))].item(), 4)
            for share in (0.05, 0.5, 0.95)
        ],
        "torch": torch.__version__,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
