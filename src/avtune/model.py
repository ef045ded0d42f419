"""A trained model as people use it: build, save, load, predict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from avtune.assembly import assemble
from avtune.backbones import Tower
from avtune.config import EncoderConfig, HeadConfig, InputConfig, RunConfig
from avtune.counting import count_parameters, example_batch, millions, multiply_adds
from avtune.errors import AvtuneError
from avtune.files import appearing, write_atomically
from avtune.pretrain.saved import holds_pretrained
from avtune.recipes import parse_config, to_yaml
from avtune.tasks import Prediction, Window
from avtune.transforms import Batch, Prepared, Preprocessing, Sample, collate

WEIGHTS, LABELS, WORDS, CONFIG, PREPROCESSING = (
    "weights.safetensors",
    "labels.json",
    "words.json",
    "config.yaml",
    "preprocessing.json",
)


class ModelError(AvtuneError):
    """A run folder that cannot be loaded; the message says what to do."""


class AudioVisualModel(nn.Module):
    """Encoder, head, preprocessing and labels in one.

    Args:
        config: What it is built from; ``data``, ``optimizer`` and ``train`` are carried along for the record.
        labels: Names of the classes, background left out, or of the answers.
        words: Words that questions are made of, in the order of their numbers.
        depth: Keep only this many blocks of each tower (for tests).
        device: ``meta`` builds shapes without memory.
        begin: Read the weights that training a whole encoder begins from; ``False``: others are about to be loaded.

    Raises:
        avtune.errors.AvtuneError: A tower, method, task or preset does not exist, or they do not fit together.
    """

    def __init__(
        self,
        config: RunConfig,
        labels: tuple[str, ...],
        *,
        words: tuple[str, ...] = (),
        depth: int | None = None,
        device: str | None = None,
        begin: bool = True,
    ) -> None:
        super().__init__()
        built = assemble(config, labels, words, depth=depth, device=device, begin=begin)
        self.config, self.preprocessing = built.config, built.preprocessing
        self.task, self.network = built.task, built.network
        self.labels, self.words = labels, words
        self.eval()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the outputs, in their order; background is last where the task has one."""
        return self.task.class_names

    def summary(self) -> str:
        """What the model is and costs, as a few lines to print; works on the meta device too.

        Returns:
            Weights that are trained, frozen and both, with and without the towers' unused class head as papers
            count them, and multiply-adds of one clip.
        """
        parameters = count_parameters(self.network)
        device = next(self.parameters()).device
        batch = example_batch(self.preprocessing, device, question_length=self.task.question_length)
        gmacs = multiply_adds(self.network, batch) / 1e9
        lines = {
            "task": f"{self.config.head.task}, {len(self.class_names)} outputs",
            "towers": self._backbones(),
            "method": " and ".join(self.config.encoder.methods),
            "trainable": millions(parameters.trainable),
            **{f"  {part}": millions(count) for part, count in parameters.parts.items() if count},
            "frozen": millions(parameters.frozen),
            "total": millions(parameters.total),
            "total as published": f"{millions(parameters.total_published)} (with the towers' unused class head)",
            "multiply-adds": f"{gmacs:.2f} G per clip of {self.preprocessing.segments} segments",
        }
        width = max(map(len, lines))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())

    def _backbones(self) -> str:
        if not (towers := self.network.towers):
            return f"{self.config.encoder.tower}, trained as a whole"
        video, audio = towers["video"], towers["audio"]
        return video.name + (" for both streams" if audio is video else f", {audio.name} for the sound")

    def predict(
        self,
        path: str | Path,
        *,
        question: str | None = None,
        stride_segments: int | None = None,
        batch_size: int = 8,
        advanced: Callable[[int], None] | None = None,
    ) -> Prediction:
        """Answer for a file of any length.

        Windows of as many segments as the model was trained on slide over the file; where they overlap their
        answers are averaged.

        Args:
            path: A video; a file without sound, or sound alone, is answered from what there is, and the
                prediction's notes say so.
            question: What is asked, where the task is to answer questions.
            stride_segments: Segments between two windows; ``None``: half a window.
            batch_size: Windows per step.
            advanced: Called with the number of windows done since the last call.

        Returns:
            The form of :mod:`avtune.tasks.predictions` that belongs to the task.

        Raises:
            avtune.media.MediaError: The file cannot be read.
            avtune.errors.AvtuneError: A question is missing, holds unknown words, or is not what the task answers.
        """
        path = Path(path)
        asked = self.task.encode_question(question)
        stride = stride_segments or max(1, self.preprocessing.segments // 2)
        windows: list[Window] = []
        pending: list[tuple[float, Prepared]] = []

        def flush() -> None:
            batch = collate([Sample(path.name, prepared, question=asked) for _, prepared in pending])
            parts = self._parts(batch)
            for k, (start, prepared) in enumerate(pending):
                own = {name: values[k] for name, values in parts.items()}
                windows.append(Window(start, prepared.valid.numpy(), prepared.notes, own))
            if advanced is not None:
                advanced(len(pending))
            pending.clear()

        for window in self.preprocessing.load_windows(path, stride):
            pending.append(window)
            if len(pending) == batch_size:
                flush()
        if pending:
            flush()
        return self.task.predict(path, windows, question)

    @torch.no_grad()
    def _parts(self, batch: Batch) -> dict[str, npt.NDArray[Any]]:
        was_training = self.training
        self.eval()
        outputs, encoded = self.network(batch.to(next(self.parameters()).device))
        self.train(was_training)
        parts = self.task.parts(outputs, encoded, batch)
        return {name: values.cpu().numpy() for name, values in parts.items()}

    def save(self, folder: str | Path, state: dict[str, Tensor] | None = None) -> None:
        """Write what :func:`load` needs: ``config.yaml``, ``weights.safetensors``, labels and preprocessing.

        Args:
            folder: The run folder.
            state: Trained weights to save instead of the model's own.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = state if state is not None else self.network.trained_state()
        weights = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        with appearing(folder / WEIGHTS) as partial:
            save_file(weights, partial, metadata={"towers": self._towers()})
        write_atomically(folder / CONFIG, to_yaml(self.config).encode())
        write_atomically(folder / LABELS, json.dumps(self.labels, ensure_ascii=False, indent=1).encode())
        if self.words:
            write_atomically(folder / WORDS, json.dumps(self.words, ensure_ascii=False, indent=1).encode())
        write_atomically(folder / PREPROCESSING, json.dumps(self.preprocessing.state(), indent=1).encode())

    def _towers(self) -> str:
        return json.dumps({stream: fingerprint(tower) for stream, tower in self.network.towers.items()})


def load(folder: str | Path, *, device: str | None = None) -> AudioVisualModel:
    """Load a run.

    Args:
        folder: A run folder that ``avtune train`` (or :meth:`AudioVisualModel.save`) wrote.
        device: Where to put it; ``None``: the CPU; ``auto``: the accelerator, where there is one.

    Raises:
        ModelError: A file is missing or damaged, or the frozen towers are not those it was trained on.
    """
    folder = Path(folder)
    if holds_pretrained(folder):
        raise ModelError(
            f"{folder}: a pretraining run, which answers no task; search with it (avtune index VIDEOS --run {folder}), "
            f"or fine-tune it (--encoder.pretraining {folder})"
        )
    for name in (CONFIG, WEIGHTS, LABELS, PREPROCESSING):
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder}: no {name}, so this is no finished run; give the folder that `avtune train` wrote, or "
                "run the same train command again to finish it"
            )
    config = parse_config(base=folder / CONFIG)
    try:
        labels = _names(folder / LABELS)
        words = _names(folder / WORDS) if (folder / WORDS).is_file() else ()
        preprocessing = Preprocessing.from_state(
            json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
        )
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            towers = (file.metadata() or {}).get("towers", "")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (json.JSONDecodeError, SafetensorError, OSError) as error:
        raise ModelError(f"{folder}: damaged ({error}); train it again or copy it again") from error
    model = AudioVisualModel(config, labels, words=words, begin=False)
    if towers and json.loads(towers) != json.loads(model._towers()):
        raise ModelError(
            f"{folder}: was trained on other weights of {config.encoder.tower} than are here; use the same timm "
            "version and pretrained weights as in training"
        )
    try:
        model.network.load_trained_state(state)
    except ValueError as error:
        raise ModelError(f"{folder}: {error}; config.yaml and {WEIGHTS} are not of the same run") from error
    model.preprocessing = preprocessing
    if device == "auto":
        device = accelerator()
    return model if device is None else model.to(device)


def accelerator() -> str | None:
    """The kind of accelerator that there is; ``None``: none."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None else found.type


def _names(path: Path) -> tuple[str, ...]:
    return tuple(str(name) for name in json.loads(path.read_text(encoding="utf-8")))


def create_model(
    tower: str = "nano",
    *,
    labels: list[str] | tuple[str, ...],
    words: list[str] | tuple[str, ...] = (),
    fusion: str = "lavish",
    task: str = "localization",
    audio_tower: str | None = None,
    tuning: str | None = None,
    pretrained: bool = True,
    preset: str | None = None,
    segments: int = 10,
    device: str | None = None,
    **options: Any,
) -> AudioVisualModel:
    """A model to train or to look at, without a recipe.

    Args:
        tower: timm name of the frozen backbone, or ``nano``.
        labels: Names of the classes, without background, or of the answers.
        words: Words that questions are made of, where the task answers questions.
        fusion: Method in ``avtune.fusion.METHODS``.
        task: Task in ``avtune.tasks.TASKS``.
        audio_tower: A second backbone for the sound; ``None``: both streams share ``tower``.
        tuning: What is trained within each stream besides, in ``avtune.tuning.TUNINGS``; ``None``: nothing.
        pretrained: Load pretrained weights.
        preset: Named settings of the method; ``None``: the paper's.
        segments: Time steps per clip, T.
        device: ``meta`` builds shapes without memory.
        **options: Settings of the method that differ from the preset.

    Raises:
        avtune.errors.AvtuneError: A name does not exist or things do not fit together.
    """
    config = RunConfig(
        encoder=EncoderConfig(
            tower=tower,
            audio_tower=audio_tower,
            pretrained=pretrained,
            tuning=tuning,
            fusion=fusion,
            preset=preset,
            options=options,
        ),
        input=InputConfig(segments=segments),
        head=HeadConfig(task=task),
    )
    return AudioVisualModel(config, tuple(labels), words=tuple(words), device=device)


def fingerprint(tower: Tower) -> str:
    """A short name of a tower's frozen weights: equal towers have equal ones, on any machine.

    Args:
        tower: The tower; what a method trains of it is left out, since training changes it.
    """
    digest = hashlib.sha256(tower.name.encode())
    trained = {name for name, weight in tower.named_parameters() if weight.requires_grad}
    for name, value in sorted(tower.state_dict().items()):
        if value.device.type != "meta" and name not in trained:
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
