"""What is in a video file, and what a model would see and hear of it.

python examples/look_into_a_file.py my.mp4
"""

import argparse

import torch

from avtune.media import decode, probe
from avtune.transforms import log_mel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    options = parser.parse_args()

    info = probe(options.video)
    print(f"{info.duration:.2f} s, {info.size_bytes} bytes")
    print("picture:", info.video or "none")
    print("sound:", info.audio or "none")

    # One frame in the middle of each second, and the whole sound on the same clock, in one pass.
    times = [second + 0.5 for second in range(int(info.duration))]
    clip = decode(options.video, times)
    if clip.frames:
        print(f"{len(clip.frames)} frames of {clip.frames[0].shape}, brightness by second:")
        print("  " + " ".join(f"{frame.mean():.0f}" for frame in clip.frames))
    if clip.waveform is not None:
        values = log_mel(torch.from_numpy(clip.waveform), mels=64)
        loudness = [f"{part.mean():.1f}" for part in values.split(100)]
        print(f"log-mel values {tuple(values.shape)}, mean by second:\n  {' '.join(loudness)}")
    print("damage:", clip.damage if clip.damage.any else "none")


if __name__ == "__main__":
    main()
