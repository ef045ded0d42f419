"""Media files: the only place that knows containers and codecs (through PyAV)."""

from avtune.media.decode import Clip, Damage, decode, decode_audio
from avtune.media.encode import write_video
from avtune.media.errors import MediaError
from avtune.media.part import FilePart, MediaFile
from avtune.media.probe import AudioStream, MediaInfo, VideoStream, probe

__all__ = [
    "AudioStream",
    "Clip",
    "Damage",
    "FilePart",
    "MediaError",
    "MediaFile",
    "MediaInfo",
    "VideoStream",
    "decode",
    "decode_audio",
    "probe",
    "write_video",
]
