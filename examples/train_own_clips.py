"""Train on your own clips from Python, then predict one of them.

    python examples/train_own_clips.py clips/ runs/mine

The folder holds ``events.csv`` (file,label,start,end), or one folder of clips per label. Further settings as on
the command line: ``--encoder.tower vit_base_patch16_224.augreg_in21k --train.epochs 10``.
"""

import argparse
from pathlib import Path

import avtune
from avtune.datasets import existing, read
from avtune.recipes import parse_config
from avtune.runs import train_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("run", type=Path)
    options, settings = parser.parse_known_args()

    reader = "csv" if (options.clips / "events.csv").is_file() else "folder"
    config = parse_config(["--data.root", str(options.clips), "--data.name", reader, *settings])
    sheet = train_run(config, options.run)
    print(f"{sheet.scores.name} on {sheet.clips} {sheet.split} clips: {sheet.scores.value:.1%}")
    for name, value in sheet.floors.items():
        print(f"  {name}: {value:.1%}")
    for name, problem in sheet.damaged.items():
        print(f"  could not be read: {name}: {problem}")

    model = avtune.load(options.run)
    record = existing(read(config.data)).splits["test"][0]
    print(record.name)
    for event in model.predict(record.files[0]).timeline:
        print(f"  {event.start:.0f} to {event.end:.0f} s: {event.label} ({event.probability:.0%})")


# Files are read by worker processes, which import this script: keep its own code under this line.
if __name__ == "__main__":
    main()
