"""A run from its configuration to its folder: read, prepare, train, score, report."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import avtune
from avtune.backbones.timm_loading import timm
from avtune.config import EncoderConfig, RunConfig
from avtune.counting import count_parameters
from avtune.datasets import Collection, DatasetError, existing, read
from avtune.datasets.clips import ClipDataset, clip_bytes, prepare_all
from avtune.datasets.manifest import restrict
from avtune.datasets.sections import cut
from avtune.errors import AvtuneError
from avtune.media import MediaError
from avtune.model import CONFIG, AudioVisualModel, load
from avtune.recipes import to_yaml
from avtune.report import RunReport, TimelineClip, write_run_page
from avtune.tasks import Scores
from avtune.train import Observer, Trainer, evaluate
from avtune.train.evaluate import ShuffledSound
from avtune.train.files import write_atomically
from avtune.train.log import read_log
from avtune.transforms import Damaged, Prepared, Sample

METRICS, REPORT, FLOORS = "metrics.json", "report.html", "floors"
CLIPS_WORTH_A_WORKER = 16
MEMORY_LIMIT_BYTES = 2_000_000_000


class RunObserver(Observer):
    """Watches a whole run; the command line shows progress bars through one."""

    def reading(self, clips: int) -> Callable[[int, int], None] | None:
        """``clips`` clips are about to be read; the answer is called with (done, all)."""
        return None

    def scoring(self, what: str, clips: int) -> Callable[[int], None] | None:
        """``clips`` clips are about to be scored; the answer is called with the number just done."""
        return None


@dataclass
class Clips:
    """The clips of a run, prepared.

    Attributes:
        collection: Labels, and the records of each split that are on disk.
        splits: A dataset for each split that has clips.
    """

    collection: Collection
    splits: dict[str, ClipDataset]


@dataclass
class ScoreSheet:
    """A score and what it is read beside.

    Attributes:
        split: Which clips were scored.
        scores: The score.
        floors: Scores that need less: ``majority``, ``audio only``, ``video only``, ``shuffled audio`` and so on.
        clips: Number of clips scored.
        damaged: Files that could not be read.
    """

    split: str
    scores: Scores
    floors: dict[str, float]
    clips: int
    damaged: dict[str, str] = field(default_factory=dict)


def prepare_clips(
    config: RunConfig,
    model: AudioVisualModel,
    collection: Collection,
    observer: RunObserver,
    splits: tuple[str, ...] = ("train", "validation", "test"),
) -> Clips:
    """Make datasets of a collection's splits, decoding every clip once where all fit in memory."""
    present = {split: records for split in splits if (records := collection.splits.get(split, ()))}
    everything = [record for records in present.values() for record in records]
    prepared: list[Prepared | Damaged] | None = None
    size = len(everything) * clip_bytes(model.preprocessing)
    if config.data.cache and size > MEMORY_LIMIT_BYTES:
        observer.message(
            f"{len(everything)} prepared clips would take {size / 1e9:.1f} GB of memory: they are read anew each time"
        )
    elif config.data.cache:
        # Starting a process costs as much as reading some clips.
        workers = min(config.data.workers, len(everything) // CLIPS_WORTH_A_WORKER)
        prepared = prepare_all(everything, model.preprocessing, workers, observer.reading(len(everything)))
    datasets, first = {}, 0
    for split, records in present.items():
        mine = None if prepared is None else prepared[first : first + len(records)]
        datasets[split] = ClipDataset(records, model.preprocessing, model.task.target, prepared=mine)
        first += len(records)
    return Clips(collection, datasets)


def read_collection(config: RunConfig, observer: RunObserver) -> Collection:
    """Read a run's dataset and say what is to be said about it; files longer than one input become several clips.

    Raises:
        DatasetError: It is not there, or holds nothing to train on.
    """
    collection = existing(read(config.data))
    if config.data.manifest is not None:
        collection = restrict(collection, Path(config.data.manifest))
    collection = cut(collection, config.input.segments, config.input.segment_seconds)
    for warning in collection.warnings:
        observer.message(warning)
    if collection.missing:
        observer.message(
            f"{len(collection.missing)} annotated clips are not on disk, first {collection.missing[0]}; going on with "
            f"{len(collection.records)}"
        )
    if not collection.splits.get("train"):
        raise DatasetError(f"{collection.root}: no clip to train on; check data.root and data.name")
    return collection


def train_run(config: RunConfig, folder: Path, observer: RunObserver | None = None) -> ScoreSheet:
    """Train, score and report; the same call goes on with a run that was cut short.

    Args:
        config: What to do.
        folder: The run folder.
        observer: Who watches.

    Returns:
        The score on the test split (where there is none, on the validation split).

    Raises:
        avtune.errors.AvtuneError: Something is wrong that the user can mend.
    """
    observer = observer or RunObserver()
    started = time.perf_counter()
    collection = read_collection(config, observer)
    torch.manual_seed(config.train.seed)
    model = AudioVisualModel(config, collection.labels)
    if not (folder / "state").exists():
        # A run with other settings in this folder is refused later and must keep its own.
        write_atomically(folder / CONFIG, to_yaml(model.config).encode())
    clips = prepare_clips(config, model, collection, observer)
    prepared = time.perf_counter()

    seconds = {"preparing clips": prepared - started}
    damaged = fit_model(model, config, folder, clips, observer)
    seconds["training"] = time.perf_counter() - prepared
    main = _is_main()
    if main:
        model.save(folder)
    if config.train.floors:
        before = time.perf_counter()
        _fit_floors(config, folder / FLOORS, clips, observer)
        seconds["training the floors"] = time.perf_counter() - before
    before = time.perf_counter()
    split = "test" if "test" in clips.splits else "validation"
    sheet = score_run(model, folder, clips, split, observer)
    sheet.damaged = {**damaged, **sheet.damaged}
    seconds["scoring"] = time.perf_counter() - before
    seconds = {name: round(value, 2) for name, value in seconds.items()}
    if main:
        write_metrics(model, folder, clips, sheet, seconds)
        write_run_page(folder / REPORT, run_report(model, folder, clips, sheet, seconds))
    return sheet


def fit_model(
    model: AudioVisualModel, config: RunConfig, folder: Path, clips: Clips, observer: RunObserver
) -> dict[str, str]:
    """Train a model and put its best weights into it.

    Args:
        model: What is trained.
        config: How.
        folder: Run folder: log and state; the same call goes on with a run that was cut short.
        clips: On what.
        observer: Who watches.

    Returns:
        The files that could not be read, with what is wrong with each.
    """
    train = clips.splits["train"]
    if config.train.compile:
        if config.train.checkpoint:
            raise AvtuneError(
                "train.compile and train.checkpoint do not go together: the compiler cannot follow a step that is "
                "computed twice; leave one of them out"
            )
        model.network.encoder.compile()
    trainer = Trainer(
        model.network, model.task, model.config, folder, train, clips.splits.get("validation"),
        names=[record.name for record in train.records], observer=observer,
        workers=0 if train.cached else config.data.workers,
    )  # fmt: skip
    result = trainer.fit()
    model.network.load_trained_state(result.weights)
    model.eval()
    return result.progress.damaged


def _fit_floors(config: RunConfig, folder: Path, clips: Clips, observer: RunObserver) -> None:
    """Train the audio-only and the video-only model, as bottleneck adapters without exchange."""
    observer.message("training the floors: the sound alone and the frames alone, same clips and schedule")
    options = config.encoder.options if config.encoder.fusion == "lavish" else {}
    encoder = EncoderConfig(**{
        **asdict(config.encoder), "fusion": "lavish", "options": {**options, "direction": "none"},
        "preset": config.encoder.preset if config.encoder.fusion == "lavish" else None,
    })  # fmt: skip
    head = replace(config.head, task=f"{config.head.task}_single_stream")
    alone = replace(
        config, encoder=encoder, head=head, train=replace(config.train, floors=False, mining="off")
    )
    torch.manual_seed(config.train.seed)
    model = AudioVisualModel(alone, clips.collection.labels)
    fit_model(model, alone, folder, clips, observer)
    if _is_main():
        model.save(folder)
    if torch.distributed.is_initialized():
        # Every process reads them back for scoring.
        torch.distributed.barrier()


def _is_main() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def score_run(
    model: AudioVisualModel, folder: Path, clips: Clips, split: str, observer: RunObserver | None = None
) -> ScoreSheet:
    """Score a model on a split, with its floors.

    Floors: the most frequent class of the training clips; an audio-only and a video-only model, if the run
    trained them, else the same model with one stream removed; the same model hearing another clip's sound.

    Raises:
        DatasetError: The split has no clip, or none that can be read.
    """
    observer = observer or RunObserver()
    if split not in clips.splits:
        known = ", ".join(clips.splits)
        raise DatasetError(f"{clips.collection.root}: there is no {split} split; it has {known}")
    chosen = clips.splits[split]
    batch = model.config.train.batch_size

    def score(what: str, dataset: Any, scored: AudioVisualModel = model, **how: Any) -> Any:
        workers = 0 if chosen.cached else model.config.data.workers
        return evaluate(
            scored.network, scored.task, dataset, batch_size=batch, workers=workers,
            advanced=observer.scoring(what, len(dataset)), **how,
        )  # fmt: skip

    result = score("fused", chosen)
    if result.scores is None:
        raise DatasetError(
            f"{clips.collection.root}: not one clip of the {split} split can be read; run avtune check"
        )
    floors = {}
    if "train" in clips.collection.splits:
        floors["majority"] = model.task.majority(training_truths(model, clips), result.scores)
    if (folder / FLOORS / CONFIG).is_file():
        alone = score("single streams", chosen, load(folder / FLOORS))
        floors |= {name: alone.scores.details[name] for name in ("audio only", "video only")}
    else:
        for stream, removed in (("audio", "video"), ("video", "audio")):
            part = score(f"{removed} removed", chosen, without=removed)
            floors[f"{stream} only ({removed} removed)"] = part.scores.value
    if len(chosen) > 1:
        seed = model.config.train.seed
        shuffled = score("shuffled audio", ShuffledSound(chosen, seed)).scores
        if shuffled is None:
            observer.message(
                f"the {split} split has one readable clip: the floor of shuffled audio is left out"
            )
        else:
            floors["shuffled audio"] = shuffled.value
    return ScoreSheet(split, result.scores, floors, result.clips, result.damaged)


def training_truths(model: AudioVisualModel, clips: Clips) -> torch.Tensor:
    """The truths of the training clips, one after another: what the majority floor is read from."""
    train = clips.splits.get("train")
    if train is None or not train.cached:
        return torch.stack([model.task.target(record) for record in clips.collection.splits["train"]])
    # What lies beyond a file's end is no segment of it.
    samples = (train[k] for k in range(len(train)))
    return torch.cat(
        [s.target[s.prepared.valid] for s in samples if isinstance(s, Sample) and s.target is not None]
    )


def write_metrics(
    model: AudioVisualModel, folder: Path, clips: Clips, sheet: ScoreSheet, seconds: dict[str, float]
) -> None:
    """Write ``metrics.json``: scores, floors, weights, clips, time, versions."""
    epochs = [row for row in read_log(folder / "log.jsonl") if row["event"] == "epoch"]
    parameters = count_parameters(model.network)
    content = {
        "split": sheet.split,
        "score": {"name": sheet.scores.name, "value": sheet.scores.value},
        "floors": sheet.floors,
        "validation": max((row["validation"] for row in epochs if "validation" in row), default=None),
        "details": sheet.scores.details,
        "parameters": {**asdict(parameters), "total": parameters.total},
        "clips": {split: len(dataset) for split, dataset in clips.splits.items()},
        "scored_clips": sheet.clips,
        "missing": list(clips.collection.missing),
        "damaged": sheet.damaged,
        "warnings": list(clips.collection.warnings),
        "seconds": seconds,
        "seed": model.config.train.seed,
        "versions": {
            "avtune": avtune.__version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "python": platform.python_version(),
        },
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
    }
    write_atomically(folder / METRICS, json.dumps(content, indent=1, ensure_ascii=False).encode())


def read_metrics(folder: Path) -> tuple[ScoreSheet, dict[str, float]]:
    """What :func:`write_metrics` recorded: the scores, and the seconds of each stage.

    Raises:
        AvtuneError: The run was not finished.
    """
    path = folder / METRICS
    if not path.is_file():
        raise AvtuneError(f"{folder}: no {METRICS}; run the train command again to finish the run")
    recorded = json.loads(path.read_text(encoding="utf-8"))
    scores = Scores(**recorded["score"], details=recorded["details"])
    sheet = ScoreSheet(
        recorded["split"], scores, recorded["floors"], recorded["scored_clips"], recorded["damaged"]
    )
    return sheet, recorded["seconds"]


def run_report(
    model: AudioVisualModel, folder: Path, clips: Clips, sheet: ScoreSheet, seconds: dict[str, float],
    shown: int = 3,
) -> RunReport:  # fmt: skip
    """What the run's page tells, with a few scored clips to play."""
    config, details = model.config, sheet.scores.details
    parameters = count_parameters(model.network)
    dataset = clips.splits[sheet.split]
    notes = [*clips.collection.warnings]
    if clips.collection.missing:
        notes.append(f"{len(clips.collection.missing)} annotated clips were not on disk.")
    notes += [f"Could not be read: {name}: {problem}" for name, problem in sheet.damaged.items()]
    method = " and ".join(config.encoder.methods)
    return RunReport(
        title=f"{method} on {clips.collection.name}",
        summary={
            "Task": config.head.task,
            "Tower": config.encoder.tower,
            "Method": method,
            "Clips": ", ".join(f"{len(part)} {split}" for split, part in clips.splits.items()),
            "Scored on": f"{sheet.clips} {sheet.split} clips, {details.get('segments', 0)} segments",
            "Seed": config.train.seed,
        },
        score=sheet.scores.value,
        score_name=sheet.scores.name,
        floors=sheet.floors,
        log=read_log(folder / "log.jsonl"),
        parameters={
            "trainable": parameters.trainable,
            "frozen": parameters.frozen,
            "total": parameters.total,
            "by_part": {name: count for name, count in parameters.parts.items() if count},
        },
        seconds=seconds,
        per_class=details.get("per_class", ()),
        confusion=torch.tensor(details["confusion"]).numpy() if "confusion" in details else None,
        labels=model.class_names,
        clips=list(islice(_timeline_clips(model, dataset), shown)),
        config_yaml=to_yaml(config),
        notes=notes,
    )


def timeline_clip(model: AudioVisualModel, dataset: ClipDataset, index: int) -> TimelineClip:
    """One labelled clip with what the model says of it."""
    record = dataset.records[index]
    path = record.files[0]
    prediction = model.predict(path)
    true = model.task.target(record).numpy()
    length = min(len(true), len(prediction.classes))
    return TimelineClip(
        name=record.name,
        segment_seconds=prediction.segment_seconds,
        labels=model.class_names,
        probabilities=prediction.probabilities[:length],
        predicted=prediction.classes[:length],
        true=true[:length],
        video=path,
        notes=prediction.notes,
    )


def _timeline_clips(model: AudioVisualModel, dataset: ClipDataset) -> Iterator[TimelineClip]:
    """The clips that can be read as one file, those that hold an event; all where none does."""
    files = [k for k, record in enumerate(dataset.records) if record.files[0].is_file() and record.start == 0]
    for k in [k for k in files if dataset.records[k].events] or files:
        try:
            yield timeline_clip(model, dataset, k)
        except MediaError:
            # It is listed among the damaged files already.
            continue
