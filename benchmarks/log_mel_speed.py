"""CPU time of the log-mel of ten seconds at one thread, beside kaldi-native-fbank.

    python benchmarks/log_mel_speed.py

writes benchmarks/results/log_mel_speed.json. CPU time of the process is measured, not wall-clock time, so
that other work on the machine disturbs it less. kaldi-native-fbank takes a Python list, which costs it
some of its time.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import kaldi_native_fbank
import torch

from avtune.transforms.log_mel import log_mel

RESULT = Path(__file__).parent / "results" / "log_mel_speed.json"
SECONDS, SAMPLE_RATE, MELS, REPEATS = 10, 16000, 128, 200


def kaldi_fbank(samples: list[float]) -> None:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hanning"
    options.mel_opts.num_bins = MELS
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(SAMPLE_RATE, samples)
    computer.input_finished()


def cpu_milliseconds(work: Callable[[], object], repeats: int) -> dict[str, float]:
    for _ in range(5):
        work()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - begin))
    return {"median_ms": round(statistics.median(times), 2), "least_ms": round(min(times), 2)}


def main() -> None:
    torch.set_num_threads(1)
    waveform = torch.randn(SECONDS * SAMPLE_RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    samples = waveform.tolist()
    result = {
        "what": f"{SECONDS} s of {SAMPLE_RATE} Hz, {MELS} mels, 25 ms by 10 ms; CPU time, one thread",
        "repeats": REPEATS,
        "avtune.transforms.log_mel": cpu_milliseconds(lambda: log_mel(waveform), REPEATS),
        "kaldi-native-fbank": cpu_milliseconds(lambda: kaldi_fbank(samples), REPEATS // 4),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
