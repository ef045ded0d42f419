"""Predict videos with a trained run and write a page for each.

python examples/predict_videos.py try/run my.mp4 other.mov
"""

import argparse
from pathlib import Path

import avtune
from avtune.media import MediaError
from avtune.report import write_prediction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("predictions"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    model = avtune.load(options.run)
    for video in options.videos:
        try:
            prediction = model.predict(video)
        except MediaError as error:  # names the file, what is wrong, and what to do
            print(error)
            continue
        print(video.name, *prediction.notes, sep="; ")
        for event in prediction.timeline:
            print(f"  {event.start:.1f} to {event.end:.1f} s: {event.label} ({event.probability:.0%})")
        page = write_prediction(prediction, options.out, video.stem, {"Run": str(options.run)})
        print(f"  {page}")


if __name__ == "__main__":
    main()
