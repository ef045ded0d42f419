"""Clips a second on one core: 10 frames and the sound of 10-second clips, and the writing of small ones.

Makes its own clips (moving noise, so that the decoder has real work), counts CPU time of this process, and
writes benchmarks/results/decode_speed.json. Run from the repository root:

    OMP_NUM_THREADS=1 python benchmarks/decode_speed.py
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
from machine import machine

from avtune.media import decode, decode_audio, probe, write_video

SECONDS = 10
RATE = 30
SAMPLE_RATE = 44100
TIMES = [k + 0.5 for k in range(SECONDS)]
SIZES = {"360p": (360, 640), "1080p": (1080, 1920)}
KEY_FRAME_SECONDS = (2, 10)


def moving_noise(height: int, width: int, count: int, seed: int) -> list[np.ndarray]:
    """A random texture with detail at several scales that drifts and brightens from frame to frame."""
    rng = np.random.default_rng(seed)
    texture = np.zeros((height + count * 2, width + count * 2, 3), np.float32)
    for step in (4, 16, 64):
        coarse = rng.normal(
            0, 12 * step**0.25, (texture.shape[0] // step + 1, texture.shape[1] // step + 1, 3)
        )
        texture += np.kron(coarse, np.ones((step, step, 1)))[: texture.shape[0], : texture.shape[1]]
    frames = []
    for k in range(count):
        window = texture[2 * k : 2 * k + height, k : k + width] + 128 + 20 * np.sin(k / 9)
        frames.append(np.clip(window, 0, 255).astype(np.uint8))
    return frames


def make_clip(path: Path, height: int, width: int, key_seconds: int) -> None:
    """A clip as cameras and sites make them: H.264 with B-frames, stereo AAC at 44.1 kHz."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream(
            "libx264", rate=RATE, options={"preset": "fast", "g": str(key_seconds * RATE)}
        )
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        # One second of pictures goes back and forth: ten seconds of 1080p would not fit into memory.
        pictures = moving_noise(height, width, RATE, seed=1)
        order = [*range(RATE), *reversed(range(RATE))]
        for k in range(SECONDS * RATE):
            frame = av.VideoFrame.from_ndarray(pictures[order[k % len(order)]], format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, SECONDS * SAMPLE_RATE, 1024):
            frame = av.AudioFrame.from_ndarray(
                (0.1 * rng.standard_normal((2, 1024))).astype(np.float32), format="fltp", layout="stereo"
            )
            frame.sample_rate, frame.pts = SAMPLE_RATE, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def bare_decode(path: Path) -> None:
    """The floor: FFmpeg decodes every packet on one thread, and nothing is kept."""
    with av.open(str(path)) as container:
        for stream in (container.streams.video[0], container.streams.audio[0]):
            stream.codec_context.thread_count = 1
        for packet in container.demux():
            packet.decode()


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds of a call, after one to warm up."""
    work()
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return statistics.median(spent)


def measure(repeats: int, folder: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []

    def add(what: str, seconds: float, **details: object) -> None:
        rows.append(
            {
                "what": what,
                **details,
                "cpu_ms": round(1000 * seconds, 1),
                "clips_per_second_per_core": round(1 / seconds, 2),
            }
        )
        print(rows[-1], flush=True)

    for name, (height, width) in SIZES.items():
        for key_seconds in KEY_FRAME_SECONDS:
            path = folder / f"{name}_{key_seconds}.mp4"
            make_clip(path, height, width, key_seconds)
            details = {
                "size": name,
                "key_frame_every_s": key_seconds,
                "megabytes": round(path.stat().st_size / 1e6, 2),
            }
            add("10 frames and sound", cpu_seconds(partial(decode, path, TIMES), repeats), **details)
            if key_seconds == KEY_FRAME_SECONDS[0]:
                every = partial(decode, path, TIMES, every_frame=True)
                add("10 frames and sound, every frame decoded", cpu_seconds(every, repeats), **details)
                add("open and probe", cpu_seconds(partial(probe, path), repeats), **details)
            add(
                "floor: FFmpeg decodes all, nothing is kept",
                cpu_seconds(partial(bare_decode, path), repeats),
                **details,
            )
            if key_seconds == KEY_FRAME_SECONDS[0]:
                add("10 frames", cpu_seconds(partial(decode, path, TIMES, audio=False), repeats), **details)
                add("sound", cpu_seconds(partial(decode_audio, path), repeats), **details)
    pictures = moving_noise(160, 160, 100, seed=2)
    sound = (0.1 * np.random.default_rng(3).standard_normal(160_000)).astype(np.float32)
    path = folder / "small.mp4"
    add(
        "write 100 frames of 160x160 and 10 s of sound",
        cpu_seconds(lambda: write_video(path, pictures, 10, sound), repeats),
    )
    add("read it: 10 frames and sound", cpu_seconds(lambda: decode(path, TIMES), repeats))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "decode_speed.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments.repeats, Path(folder))
    result = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/decode_speed.py --repeats {arguments.repeats}",
        "machine": machine(
            ffmpeg={name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
        ),
        "note": "CPU time of one process with one decoding thread, median; other programs ran on the machine.",
        "clips": f"{SECONDS} s, {RATE} frames a second, H.264 with B-frames, AAC stereo {SAMPLE_RATE} Hz, generated",
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
