"""Features of each second of a video: pooled tokens of both frozen towers, and how alike the seconds are.

python examples/features_of_a_video.py my.mp4 --tower vit_base_patch16_224.augreg_in21k
"""

import argparse

import torch
from torch.nn.functional import normalize

import avtune
from avtune.transforms import Sample, collate, normalise_frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("--tower", default="nano", help="nano, or a timm name")
    options = parser.parse_args()

    model = avtune.create_model(options.tower, labels=["any"], fusion="frozen")
    preprocessing = model.preprocessing
    prepared = preprocessing.load(options.video)  # the first ten seconds
    batch = collate([Sample("clip", prepared)])
    with torch.no_grad():
        frames = normalise_frames(batch.frames, preprocessing.mean, preprocessing.std)
        encoded = model.network.encoder(batch.spectrogram, frames)

    seconds = int(prepared.valid.sum())
    for stream, pooled in (("frames", encoded.video_pooled[0]), ("sound", encoded.audio_pooled[0])):
        features = normalize(pooled[:seconds], dim=-1)
        print(f"{stream}: {tuple(pooled.shape)}; likeness of each second to the first:")
        print("  " + " ".join(f"{value:.2f}" for value in features @ features[0]))
    print("notes:", *(prepared.notes or ("none",)))


if __name__ == "__main__":
    main()
