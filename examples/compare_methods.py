"""Train several methods on the same clips with the same seed, and compare.

avtune data bandstand --clips 240 --out clips
python examples/compare_methods.py clips runs/compared --train.epochs 10
"""

import argparse
from pathlib import Path

from avtune.counting import count_parameters
from avtune.model import load
from avtune.recipes import parse_config, recipe_path
from avtune.runs import train_run

METHODS = {
    "LAVISH": [],
    "LAVISH, frames hear sound": ["--encoder.options.direction", "audio_to_visual"],
    "LAVISH, sound hears frames": ["--encoder.options.direction", "visual_to_audio"],
    "adapters, no exchange": ["--encoder.options.direction", "none"],
    "head only": ["--encoder.fusion", "frozen"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path, help="folder in the layout of AVE")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=list(METHODS))
    options, settings = parser.parse_known_args()

    shared = ["--data.root", str(options.clips), "--train.floors", "false", *settings]
    rows = []
    for name in options.only:
        config = parse_config([*shared, *METHODS[name]], recipe_path("bandstand/lavish_nano"))
        folder = options.out / name.replace(", ", "_").replace(" ", "_")
        sheet = train_run(config, folder)
        trained = count_parameters(load(folder).network).trainable
        rows.append((sheet.scores.value, name, trained))
    print(f"{'method':28} {'score':>7} {'trained weights':>16}")
    for value, name, trained in sorted(rows, reverse=True):
        print(f"{name:28} {value:7.1%} {trained:16,}")


if __name__ == "__main__":
    main()
