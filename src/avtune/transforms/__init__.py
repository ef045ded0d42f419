"""From a clip to tensors: frames, log-mel spectrograms, and batches of both."""

from avtune.transforms.augment import crop_segments, drop_stream, flip_frames, mix_clips
from avtune.transforms.augment_sound import add_noise, mask_sound, roll_sound
from avtune.transforms.collate import Batch, Damaged, Sample, collate
from avtune.transforms.frames import normalise_frames, resize_frame
from avtune.transforms.log_mel import log_mel
from avtune.transforms.mining import mine_foreground
from avtune.transforms.prepared import Prepared
from avtune.transforms.preprocessing import Preprocessing
from avtune.transforms.presets import AUDIO_PRESETS, AudioPreset, check_spectrogram_size, resolve_audio

__all__ = [
    "AUDIO_PRESETS",
    "AudioPreset",
    "Batch",
    "Damaged",
    "Prepared",
    "Preprocessing",
    "Sample",
    "add_noise",
    "check_spectrogram_size",
    "collate",
    "crop_segments",
    "drop_stream",
    "flip_frames",
    "log_mel",
    "mask_sound",
    "mine_foreground",
    "mix_clips",
    "normalise_frames",
    "resize_frame",
    "resolve_audio",
    "roll_sound",
]
