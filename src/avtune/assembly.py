"""From a configuration to its parts: preprocessing, task and network, over frozen towers or as a whole encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from avtune.backbones import Tower
from avtune.config import AudioInput, EncoderConfig, InputConfig, RunConfig, VideoInput
from avtune.encoder import create_encoder, create_towers
from avtune.errors import AvtuneError
from avtune.interop.avsiam import load_avsiam
from avtune.interop.cav_mae import load_cav_mae
from avtune.options import choose
from avtune.pretrain import OBJECTIVES, Avsiam, CavMae, create_pretraining
from avtune.pretrain.backbone import Backbone, take_backbone
from avtune.pretrain.blocks import recompute_blocks
from avtune.pretrain.classifiers import create_classifier
from avtune.pretrain.finetuning import FinetunedNetwork
from avtune.pretrain.objective import PretrainingModel
from avtune.pretrain.saved import read_pretrained
from avtune.tasks import Task, create_task
from avtune.tasks.network import Network, TaskNetwork
from avtune.transforms import Preprocessing, resolve_audio
from avtune.transforms.presets import stated_audio

PUBLISHED: Mapping[str, Callable[[Path, Backbone], Avsiam | CavMae]] = {
    "avsiam": load_avsiam,
    "cav_mae": load_cav_mae,
}
"""Readers of the files that authors published, by objective."""


@dataclass(frozen=True)
class Assembled:
    """The parts of a model.

    Attributes:
        config: The configuration, with what it left open filled in.
        preprocessing: How a file becomes tensors.
        task: Loss and scores.
        network: Encoder and head.
    """

    config: RunConfig
    preprocessing: Preprocessing
    task: Task
    network: TaskNetwork


def assemble(
    config: RunConfig,
    labels: tuple[str, ...],
    words: tuple[str, ...] = (),
    *,
    depth: int | None = None,
    device: str | None = None,
    begin: bool = True,
) -> Assembled:
    """Build what a configuration states.

    Args:
        config: The configuration.
        labels: Names of the classes or answers.
        words: Words that questions are made of, in the order of their numbers.
        depth: Keep only this many blocks of each tower; ``None``: as the configuration says.
        device: ``meta`` builds shapes without memory.
        begin: Read the weights that training a whole encoder begins from; ``False``: others are about to be loaded.

    Raises:
        AvtuneError: A tower, method, objective, task or preset does not exist, or they do not fit together.
    """
    encoder = replace(config.encoder, depth=config.encoder.depth if depth is None else depth)
    if encoder.objective is None and encoder.pretraining is None:
        return _over_towers(config, encoder, labels, words, device)
    # Shapes need no weights where the configuration says whose they are.
    begin = begin and (device != "meta" or encoder.objective is None)
    return _whole(config, encoder, labels, words, device, begin)


def _over_towers(
    config: RunConfig,
    encoder: EncoderConfig,
    labels: tuple[str, ...],
    words: tuple[str, ...],
    device: str | None,
) -> Assembled:
    audio, video = create_towers(encoder, depth=encoder.depth, device=device)
    config = replace(config, input=complete_input(config.input, audio))
    preprocessing = Preprocessing.from_config(
        config.input, video.image_size, video.mean, video.std,
        audio_size=None if _takes_any_size(audio) else audio.image_size,
    )  # fmt: skip
    task = create_task(labels, config.input, config.head, words)
    walked = create_encoder(
        encoder,
        towers=(audio, video),
        segments=preprocessing.segments,
        spectrogram_shape=preprocessing.spectrogram_shape,
        frame_shape=(preprocessing.size, preprocessing.size),
        recompute=config.train.checkpoint,
        device=device,
    )
    with torch.device(device or "cpu"):
        network = Network(walked, task, preprocessing.mean, preprocessing.std)
    return Assembled(config, preprocessing, task, network)


def _whole(
    config: RunConfig,
    encoder: EncoderConfig,
    labels: tuple[str, ...],
    words: tuple[str, ...],
    device: str | None,
    begin: bool,
) -> Assembled:
    _check_whole(config)
    model, encoder, input = _pretraining_model(encoder, config.input, device, begin)
    size = model.encoder.video.size[0]
    config = replace(config, encoder=encoder, input=input)
    preprocessing = Preprocessing.from_config(input, size, input.video.mean or (), input.video.std or ())
    if (preprocessing.spectrogram_shape, preprocessing.size) != (model.encoder.audio.size, size):
        rows, columns = model.encoder.audio.size
        raise AvtuneError(
            f"{encoder.pretraining}: takes spectrograms of {rows}x{columns} and frames of {size}, input.audio and "
            "input.video say otherwise; leave both out"
        )
    if preprocessing.segments > 1 and preprocessing.audio.placement != "clip":
        raise AvtuneError(
            "a whole encoder hears each clip once, whatever the number of frames; set input.audio.placement=clip, or "
            "input.segments=1"
        )
    task = create_task(labels, input, config.head, words)
    classifier = create_classifier(model.encoder, len(labels)).to(device)
    recompute_blocks(classifier, config.train.checkpoint)
    network = FinetunedNetwork(classifier, config.head.multi_label, preprocessing.mean, preprocessing.std)
    return Assembled(config, preprocessing, task, network)


def _check_whole(config: RunConfig) -> None:
    head = config.head
    if head.task != "classification" or (head.name, head.streams) != ("segment", "both"):
        raise AvtuneError(
            "a whole pretrained encoder classifies clips with heads of its own; set head.task=classification and leave "
            "head.name out"
        )
    if config.train.compile:
        raise AvtuneError(
            "train.compile is for frozen towers; leave it out to train a whole pretrained encoder"
        )
    if config.train.floors:
        raise AvtuneError(
            "a whole pretrained encoder has heads for one stream, which are its floors; leave out train.floors"
        )


def _pretraining_model(
    encoder: EncoderConfig, input: InputConfig, device: str | None, begin: bool
) -> tuple[PretrainingModel, EncoderConfig, InputConfig]:
    """The model whose encoder is trained on, and the sections that rebuild it, filled in."""
    origin = None if encoder.pretraining is None or not begin else Path(encoder.pretraining).expanduser()
    if origin is not None and origin.is_dir():
        return _of_run(origin, encoder, input)
    if origin is not None and not origin.is_file():
        raise AvtuneError(
            f"encoder.pretraining is {origin}, where there is neither a run nor a file of weights"
        )
    if encoder.objective is None:
        raise AvtuneError(
            f"{origin}: a file does not say what it was pretrained as; set encoder.objective to one of "
            f"{', '.join(PUBLISHED)}"
        )
    objective = choose("objective", encoder.objective, OBJECTIVES)
    facts = take_backbone(encoder.tower, pretrained=False, image_size=input.video.size, device="meta")
    input = replace(
        input,
        audio=_with_preset(input.audio, {"preset": objective.sound}),
        video=_completed(input.video, facts.image_size, facts.mean, facts.std),
    )
    if origin is not None:
        parts = take_backbone(encoder.tower, pretrained=False, depth=encoder.depth)
        published = PUBLISHED[encoder.objective](origin, parts)
        return published, replace(encoder, preset=None, options=asdict(published.settings)), input
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(encoder.tower_seed)
        model = create_pretraining(
            encoder.objective,
            encoder.tower,
            encoder.preset,
            encoder.options,
            pretrained=encoder.pretrained and begin,
            depth=encoder.depth,
            spectrogram=resolve_audio(input.audio).shape,
            image_size=input.video.size,
            device=device,
        )
    return model, encoder, input


def _of_run(
    folder: Path, encoder: EncoderConfig, input: InputConfig
) -> tuple[PretrainingModel, EncoderConfig, InputConfig]:
    found = read_pretrained(folder)
    made, prepared = found.config, found.preprocessing
    if encoder.objective not in (None, made.objective):
        raise AvtuneError(
            f"{folder}: was pretrained as {made.objective}, encoder.objective is {encoder.objective}; leave it out"
        )
    encoder = replace(
        encoder,
        objective=made.objective,
        tower=made.backbone or OBJECTIVES[made.objective].backbone,
        depth=made.depth,
        preset=made.preset,
        options=made.options,
    )
    stated = {name: value for name, value in vars(stated_audio(prepared.audio)).items() if value is not None}
    input = replace(
        input,
        audio=_with_preset(input.audio, stated),
        video=_completed(input.video, prepared.size, prepared.mean, prepared.std),
    )
    return found.model, encoder, input


def _completed(
    video: VideoInput, size: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> VideoInput:
    return replace(video, size=video.size or size, mean=video.mean or mean, std=video.std or std)


def complete_input(config: InputConfig, tower: Tower) -> InputConfig:
    """The input section with an audio preset that fits the audio tower, where the recipe names none.

    Args:
        config: The recipe's section.
        tower: The audio tower.
    """
    if tower.name == "nano":
        chosen: dict[str, Any] = {"preset": "nano"}
    elif tower.audio_preset is not None:
        chosen = {"preset": tower.audio_preset}
    elif not _takes_any_size(tower):
        # 1 s of sound on as many frames as the tower is wide.
        size = tower.image_size
        shift = round(1000.0 / size, 3)
        chosen = {"preset": "ave_swin", "placement": "grid", "mels": size, "steps": size, "shift_ms": shift}
    else:
        chosen = {"preset": "ave_vit", "placement": "grid"}
    return replace(config, audio=_with_preset(config.audio, chosen))


def _with_preset(audio: AudioInput, chosen: Mapping[str, Any]) -> AudioInput:
    """``chosen`` below what the recipe states, unless it names a preset itself."""
    if audio.preset is not None:
        return audio
    return AudioInput(
        **{**chosen, **{name: value for name, value in vars(audio).items() if value is not None}}
    )


def _takes_any_size(tower: Tower) -> bool:
    return bool(getattr(tower, "any_size", False))
