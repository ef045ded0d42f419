"""Runs as embedders: what their models make of a file's sound and frames, window by window."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from avtune.errors import AvtuneError
from avtune.heads.retrieval import RetrievalHead
from avtune.model import LABELS, PREPROCESSING, WEIGHTS, AudioVisualModel, accelerator, load
from avtune.pretrain.saved import Pretrained, read_pretrained
from avtune.retrieval import Embedder, FileVectors
from avtune.retrieval.embedders import Floats
from avtune.tasks import RetrievalPrediction
from avtune.tasks.retrieval import unit
from avtune.transforms import Prepared, normalise_frames

WINDOWS_AT_ONCE = 8


def load_embedder(run: str | Path) -> Embedder:
    """The model of a run of the retrieval task or of ``avtune pretrain``, on the accelerator where there is one.

    Args:
        run: Its folder.

    Raises:
        AvtuneError: It is no finished run, or one whose model gives no vectors to search with.
    """
    run = Path(run).expanduser()
    if not (run / WEIGHTS).is_file():
        raise AvtuneError(
            f"{run}: no {WEIGHTS}, so this is no finished run; give the folder of one of `avtune pretrain`, or of "
            "`avtune train` with --head.task retrieval"
        )
    if not (run / LABELS).is_file():
        return PretrainedEmbedder(run, read_pretrained(run, device=accelerator()))
    model = load(run, device="auto")
    if model.config.head.task != "retrieval":
        raise AvtuneError(
            f"{run}: is a run of the task {model.config.head.task}, whose model gives no vectors to search with; train "
            "one with --head.task retrieval, or pretrain one"
        )
    return RetrievalEmbedder(run, model)


class RetrievalEmbedder:
    """A model of the retrieval task. Windows are as long as the clips that it was trained on and overlap by half.

    Args:
        run: Its folder.
        model: What lies in it.
    """

    def __init__(self, run: Path, model: AudioVisualModel) -> None:
        head = model.network.head
        assert isinstance(head, RetrievalHead)
        self.run, self.fingerprint, self.width = run, _fingerprint(run), head.width
        self._model = model

    def embed(self, path: Path, advanced: Callable[[int], None] | None = None) -> FileVectors:
        """See :meth:`avtune.retrieval.Embedder.embed`."""
        prediction = self._model.predict(path, batch_size=WINDOWS_AT_ONCE, advanced=advanced)
        assert isinstance(prediction, RetrievalPrediction)
        return FileVectors(
            prediction.starts,
            prediction.starts + prediction.weights * np.float32(prediction.segment_seconds),
            prediction.audio if prediction.audio.any() else None,
            prediction.video if prediction.video.any() else None,
            prediction.notes,
        )


class PretrainedEmbedder:
    """A pretrained model. Windows are as long as its clips and overlap by half.

    A window's sound is one spectrogram, its picture the frame in its middle, as in CAV-MAE's and AVSiam's retrieval.

    Args:
        run: The folder.
        pretrained: What lies in it.
    """

    def __init__(self, run: Path, pretrained: Pretrained) -> None:
        self.run, self.fingerprint = run, _fingerprint(run)
        self.width = pretrained.model.encoder.dim
        self._encoder, self._preprocessing = pretrained.model.encoder, pretrained.preprocessing
        self._device = next(pretrained.model.parameters()).device

    def embed(self, path: Path, advanced: Callable[[int], None] | None = None) -> FileVectors:
        """See :meth:`avtune.retrieval.Embedder.embed`."""
        windows = self._preprocessing.load_windows(path, max(1, self._preprocessing.segments // 2))
        starts: list[float] = []
        ends: list[float] = []
        vectors: list[Floats] = []
        notes: dict[str, None] = {}
        while part := list(islice(windows, WINDOWS_AT_ONCE)):
            vectors.append(self._vectors([prepared for _, prepared in part]))
            for start, prepared in part:
                starts.append(start)
                ends.append(start + int(prepared.valid.sum()) * self._preprocessing.segment_seconds)
                notes |= dict.fromkeys(prepared.notes)
            # All windows are of one file, which has sound and frames or not.
            has_sound, has_picture = bool(part[0][1].has_audio), bool(part[0][1].has_video)
            if advanced is not None:
                advanced(len(part))
        sound, picture = np.concatenate(vectors).swapaxes(0, 1)
        return FileVectors(
            np.asarray(starts, np.float32),
            np.asarray(ends, np.float32),
            sound if has_sound else None,
            picture if has_picture else None,
            tuple(notes),
        )

    @torch.inference_mode()
    def _vectors(self, windows: list[Prepared]) -> Floats:
        """(windows, 2, width), sound first, of unit length."""
        sounds = torch.stack([window.spectrogram[0] for window in windows])
        middles = torch.stack([window.frames[int(window.valid.sum()) // 2] for window in windows])
        frames = normalise_frames(middles.to(self._device), self._preprocessing.mean, self._preprocessing.std)
        both = [self._encoder.embed_audio(sounds.to(self._device)), self._encoder.embed_video(frames)]
        return unit(torch.stack(both, dim=1).double().cpu().numpy())


def _fingerprint(run: Path) -> str:
    """Names a run's weights and preprocessing: the same bytes, the same vectors."""
    digest = hashlib.sha256()
    for name in (WEIGHTS, PREPROCESSING):
        with (run / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]
