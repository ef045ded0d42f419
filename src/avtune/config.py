"""The dataclasses that a recipe fills; every field can be set from YAML or the command line.

A number out of its setting's range (:mod:`avtune.ranges`) is refused when the dataclass is made. This module imports
nothing else of avtune and only the standard library, so anything may import it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from avtune.ranges import check_ranges


@dataclass
class AudioInput:
    """How a second of sound becomes a picture that a vision transformer can read.

    Attributes:
        preset: Name in ``avtune.transforms.presets.AUDIO_PRESETS``; fields left ``None`` come from it. ``None``:
            the one that fits the tower.
        mels: Number of mel bands.
        shift_ms: Distance of two frames of the spectrogram, milliseconds.
        steps: Length of the spectrogram in frames; ``None``: what the tower's image size asks for.
        seconds: Length of the sound window that one segment hears, seconds.
        mean: Mean of the log-mel values, subtracted.
        std: Standard deviation of the log-mel values; the difference is divided by twice this.
        pad: Whether padding to ``steps`` happens before or after normalising.
        placement: ``grid``: segment t hears a window centred on its own second; ``spread``: windows spread
            evenly from the first to the last sample, as the LAVISH authors' code does; ``clip``: every segment hears
            the clip from its beginning on.
    """

    preset: str | None = None
    mels: int | None = None
    shift_ms: float | None = None
    steps: int | None = None
    seconds: float | None = None
    mean: float | None = None
    std: float | None = None
    pad: Literal["after_normalising", "before_normalising"] | None = None
    placement: Literal["grid", "spread", "clip"] | None = None


@dataclass
class VideoInput:
    """How frames are prepared.

    Attributes:
        size: Side of the square that the tower sees, pixels; ``None``: the tower's own.
        mean: Mean per channel of RGB in [0, 1]; ``None``: the tower's own.
        std: Standard deviation per channel of RGB in [0, 1]; ``None``: the tower's own.
        placement: ``grid``: the frame in the middle of its segment; ``spread``: frames spread evenly from
            the first to the last, as the LAVISH authors' code does.
    """

    size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    placement: Literal["grid", "spread"] = "grid"


@dataclass
class InputConfig:
    """What the model sees of a clip.

    Attributes:
        segments: Time steps per clip, T (AVE 10, AVS 5).
        segment_seconds: Length of one time step, seconds.
        audio: Preparation of the sound.
        video: Preparation of the frames.
    """

    segments: int = 10
    segment_seconds: float = 1.0
    audio: AudioInput = field(default_factory=AudioInput)
    video: VideoInput = field(default_factory=VideoInput)

    def __post_init__(self) -> None:
        check_ranges("input", self)


@dataclass
class DataConfig:
    """Which clips are trained on.

    Attributes:
        name: Reader in ``avtune.datasets.READERS`` (ave, bandstand, folder, csv).
        root: Folder that holds the clips and their annotations.
        manifest: List of files that ``avtune check`` wrote: only the usable ones are taken. ``None``: all.
        split: Split variant where the dataset offers several (``official``, ``clean``).
        index: For ``csv``: the file of ``file,label,start,end`` rows; ``None``: ``<root>/events.csv``.
        validation_share: Share of the training clips held out where the dataset has no validation split.
        test_share: Share of all clips held out for testing where the dataset has no test split.
        split_seed: Seed of every split that avtune makes itself.
        test_list: File with the names of the test clips to score, one a line; ``None``: all.
        test_per_class: Test clips of each class that are scored (CAV-MAE's retrieval sets: 5), chosen by
            ``split_seed``; ``None``: all.
        cache: Keep prepared clips in memory, so that a clip is decoded once.
        cache_folder: Keep prepared clips in this folder too, for later epochs and runs; ``None``: nowhere.
        cache_gigabytes: Most that the files in ``cache_folder`` take together, in units of 10^9 bytes.
        workers: Loader processes per training process.
        shards_at_once: For ``shards``: an epoch goes through the shards in random order, so many at a time, whose clips
            are mixed: for disks that are slow at random places. ``None``: through all clips in random order.
    """

    name: str = "folder"
    root: str = "."
    split: str = "official"
    manifest: str | None = None
    index: str | None = None
    validation_share: float = 0.15
    test_share: float = 0.15
    split_seed: int = 0
    test_list: str | None = None
    test_per_class: int | None = None
    cache: bool = True
    cache_folder: str | None = None
    cache_gigabytes: float = 20.0
    workers: int = 2
    shards_at_once: int | None = None

    def __post_init__(self) -> None:
        check_ranges("data", self)


@dataclass
class EncoderConfig:
    """The frozen towers and what is trained between their layers; or a whole pretrained encoder.

    With ``objective`` the network is the encoder of a pretraining model, all of it trained: of the other settings only
    ``tower``, ``pretrained``, ``tower_seed``, ``depth``, ``preset`` and ``options`` are read then.

    Attributes:
        objective: Name in ``avtune.pretrain.OBJECTIVES`` whose encoder is trained as a whole, to classify clips;
            ``None``: that of ``pretraining``, or frozen towers where that is ``None`` too.
        pretraining: Where the whole encoder's weights come from: the folder of a pretraining run, or a file that the
            authors of AVSiam or CAV-MAE published; ``tower``, ``depth``, ``preset`` and ``options`` are then those it
            was made with. ``None``: it begins as an objective does, from the tower's weights.
        tower: timm name of the backbone, or ``nano`` for the bundled one.
        audio_tower: timm name of a second backbone for sound; ``None``: both streams share ``tower``.
        separate: Give the sound a copy of its own of a tower that both streams would share.
        pretrained: Load pretrained weights (``False``: random weights, for studies).
        tower_seed: Seed of those random weights.
        depth: Keep only each tower's first blocks; ``None``: all.
        position_resampling: How a learned position embedding is fitted to a spectrogram whose size is not the
            tower's: ``grid`` (two dimensions) or ``sequence`` (as the LAVISH authors' code).
        fusion: Method in ``avtune.fusion.METHODS``.
        preset: Named settings of that method, or of the objective; ``None``: the paper's.
        options: Settings of that method or objective that differ from the preset, by name.
        tuning: What is trained within each stream besides, in ``avtune.tuning.TUNINGS``; ``None``: nothing.
        tuning_preset: Named settings of that tuning; ``None``: its first.
        tuning_options: Settings of that tuning that differ from the preset, by name.
        plan: Pairs of block indices (sound, frames) in the order of the walk, ``null`` where one stream waits;
            ``None``: block by block, or stage by stage where the towers' depths differ.
    """

    objective: str | None = None
    pretraining: str | None = None
    tower: str = "nano"
    audio_tower: str | None = None
    separate: bool = False
    pretrained: bool = True
    tower_seed: int = 0
    depth: int | None = None
    position_resampling: Literal["grid", "sequence"] = "grid"
    fusion: str = "lavish"
    preset: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    tuning: str | None = None
    tuning_preset: str | None = None
    tuning_options: dict[str, Any] = field(default_factory=dict)
    plan: list[tuple[int | None, int | None]] | None = None

    def __post_init__(self) -> None:
        check_ranges("encoder", self)

    @property
    def methods(self) -> tuple[str, ...]:
        """What is trained: the objective's encoder, or the method, and the tuning where there is one."""
        if self.objective is not None:
            return (self.objective,)
        return (self.fusion,) if self.tuning is None else (self.fusion, self.tuning)


@dataclass
class HeadConfig:
    """What turns tokens into outputs.

    Attributes:
        task: Name in ``avtune.tasks.TASKS``.
        name: Head in ``avtune.heads.HEADS``, for event localization and classification.
        preset: Named settings of that head, or of the other tasks' own; ``None``: its first, the paper's.
        hidden: Width of the head's first linear layer.
        loss: Loss of the head ``segment``: ``cross_entropy``, or ``binary_on_softmax`` as the LAVISH authors' AVE
            code. The other heads bring their own.
        dropout: Share of the head ``segment``'s hidden values that training leaves out (STG-CMA's AVE code 0.5). The
            other heads bring their own.
        supervision: For event localization: ``segments``: the class of each segment is told; ``clips``: only which
            events a clip holds (weakly supervised).
        multi_label: For classification: a clip can have any number of labels.
        label_smoothing: For classification: what training takes of every label's truth and spreads over all classes,
            in [0, 1): t becomes (1 - s) t + s / classes.
        streams: ``both``; ``alone``: two heads, of which each sees one stream: the floors of a score.
        options: Settings of the other tasks' heads that differ from the preset, by name.
    """

    task: str = "localization"
    name: Literal["segment", "avel", "psp", "cmbs", "ma_avt", "mbt", "dg_sct"] = "segment"
    preset: str | None = None
    hidden: int = 512
    loss: Literal["cross_entropy", "binary_on_softmax"] = "cross_entropy"
    dropout: float = 0.0
    supervision: Literal["segments", "clips"] = "segments"
    multi_label: bool = False
    label_smoothing: float = 0.0
    streams: Literal["both", "alone"] = "both"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges("head", self)


@dataclass
class OptimizerConfig:
    """How weights are updated.

    Attributes:
        name: ``adamw`` or ``adam``.
        lr: Learning rate of the method's weights.
        lr_gate: Learning rate of the method's scalar gates; ``None``: ``lr``. Gates start at zero, and Adam moves a
            weight by about its rate a step: in a short run a gate needs a higher one to open at all.
        lr_head: Learning rate of the head; ``None``: ``lr``.
        lr_tower: Learning rate of the towers' own weights, where a method trains some, and of a whole encoder;
            ``None``: ``lr``.
        lr_joint: Learning rate of the layers that a whole encoder has over both modalities; ``None``: ``lr_tower``.
        weight_decay: Decoupled (adamw) or L2 (adam) decay, on matrices only.
        betas: Decay of the two running means.
        schedule: ``constant``, ``cosine``, ``linear`` or ``step``.
        warmup_share: Share of all steps over which the rate rises from zero.
        step_start: For ``step``: epochs before the first drop; ``None``: ``step_epochs``.
        step_epochs: For ``step``: epochs between two drops.
        step_factor: For ``step``: factor of each drop.
        clip_norm: Largest gradient norm; ``None``: no clipping.
    """

    name: Literal["adamw", "adam"] = "adamw"
    lr: float = 1e-3
    lr_gate: float | None = None
    lr_head: float | None = None
    lr_tower: float | None = None
    lr_joint: float | None = None
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["constant", "cosine", "linear", "step"] = "cosine"
    warmup_share: float = 0.05
    step_start: int | None = None
    step_epochs: int = 3
    step_factor: float = 0.35
    clip_norm: float | None = 1.0

    def __post_init__(self) -> None:
        check_ranges("optimizer", self)


@dataclass
class TrainConfig:
    """How long, on what and how exactly.

    Attributes:
        epochs: Passes over the training clips.
        batch_size: Clips per process and step.
        accumulate: Steps whose gradients are added up before one update.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        seed: Source of every random choice of the run.
        patience: Epochs without a better validation score before stopping; ``None``: never stop early.
        average_from: Epoch, counted from 1, from whose end on the weights behind each epoch are averaged: their mean is
            the result, as CAV-MAE's; ``None``: the result is what the validation clips find best.
        save_every: Steps between two saved states; ``None``: at each epoch's end only.
        crop_segments: Segments in a row that are drawn from each training clip, anew at every pass; ``None``: all.
            Seconds of one clip are much alike, so more clips with fewer segments teach more in the same time.
        sampling: ``uniform``: each training clip once an epoch; ``balanced``: as many draws, with replacement, a clip's
            chance being the sum over its labels of 1 / the clips that have the label; ``by_clip``: ``uniform``, with
            the questions about a clip side by side, so that a batch encodes it once.
        flip: Share of the training clips whose frames are mirrored left to right each time they are drawn.
        mixup: Share of the training clips that are mixed with another clip of their batch each time they are drawn:
            frames, spectrograms and truth in one proportion of Beta(10, 10), as CAV-MAE. For classification.
        drop_stream: Share of the batches of which one stream is left out each time they are drawn, the sound or the
            frames equally often; AVSiam's 0.5. Each process draws for its own batches.
        mask_mels: Fewer than so many mel bands in a row are blanked in a training clip each time it is drawn
            (SpecAugment).
        mask_steps: Fewer than so many steps of the spectrogram in a row are blanked likewise.
        noise: Most noise that is added to a training clip's normalised spectrogram: each value gets U(0, 1) times a
            share of this that is drawn for the clip.
        roll_steps: Most steps that a training clip's spectrogram is shifted by, to either side; what leaves it at one
            end comes back at the other.
        mining: Make training clips whose sound and frames belong to different events and call them background, as
            MA-AVT (``paper``); ``official`` does as its authors' code does in effect: it calls matched ones so.
        mining_share: Share of the clips that are so changed each time they are drawn, where there is a partner.
        compile: Run the encoder through ``torch.compile``.
        checkpoint: Recompute each step of the walk in the backward pass instead of keeping it.
        floors: Also train an audio-only and a video-only model on the same clips, as floors for the score;
            costs about as much again.
    """

    epochs: int = 20
    batch_size: int = 8
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0
    patience: int | None = None
    average_from: int | None = None
    save_every: int | None = None
    crop_segments: int | None = None
    sampling: Literal["uniform", "balanced", "by_clip"] = "uniform"
    flip: float = 0.0
    mixup: float = 0.0
    drop_stream: float = 0.0
    mask_mels: int = 0
    mask_steps: int = 0
    noise: float = 0.0
    roll_steps: int = 0
    mining: Literal["off", "paper", "official"] = "off"
    mining_share: float = 0.2
    compile: bool = False
    checkpoint: bool = False
    floors: bool = False

    def __post_init__(self) -> None:
        check_ranges("train", self)


@dataclass
class RunConfig:
    """A whole run: what a recipe states and ``config.yaml`` of a run folder repeats.

    Attributes:
        data: The clips.
        input: What the model sees of them.
        encoder: Towers and method.
        head: Task and head.
        optimizer: Update rule.
        train: Length, batch, precision, seed.
    """

    data: DataConfig = field(default_factory=DataConfig)
    input: InputConfig = field(default_factory=InputConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class PretrainingConfig:
    """Which model is pretrained on clips without labels.

    Attributes:
        objective: Name in ``avtune.pretrain.OBJECTIVES``.
        backbone: timm name of the transformer that it begins from, ``nano`` or ``ast``; ``None``: its authors'.
        preset: Named settings of the objective; ``None``: its first, the paper's.
        options: Settings of the objective that differ from the preset, by name.
        pretrained: Begin from the backbone's weights (``False``: random ones, of ``train.seed``).
        depth: Keep only the backbone's first blocks; ``None``: all.
    """

    objective: str = "avsiam"
    backbone: str | None = None
    preset: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = True
    depth: int | None = None

    def __post_init__(self) -> None:
        check_ranges("pretraining", self)


@dataclass
class PretrainingTrainConfig:
    """How long, on what and how exactly a model is pretrained.

    Attributes:
        epochs: Passes over the training clips.
        batch_size: Clips per process and step.
        accumulate: Steps whose gradients make one update. Their clips are each other's negatives, as if they were one
            batch; the encoders then run twice.
        precision: ``fp32``, ``bf16`` or ``fp16``; losses are computed in fp32.
        seed: Source of every random choice of the run.
        save_every: Updates between two saved states; ``None``: at each epoch's end only.
        noise: Most noise that is added to a clip's normalised spectrogram: each value gets U(0, 1) times a share of it
            that is drawn for the clip.
        roll_steps: Most steps that a clip's spectrogram is shifted by, to either side; what leaves it at one end comes
            back at the other.
        checkpoint: Recompute each block in the backward pass instead of keeping what it computed.
        shard: Spread weights, gradients and the optimiser's state over the processes (FSDP2) instead of keeping all of
            them on each.
    """

    epochs: int = 20
    batch_size: int = 32
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0
    save_every: int | None = None
    noise: float = 0.0
    roll_steps: int = 0
    checkpoint: bool = False
    shard: bool = False

    def __post_init__(self) -> None:
        check_ranges("train", self)


@dataclass
class PretrainingRunConfig:
    """A whole pretraining run: what a recipe states and ``config.yaml`` of its folder repeats.

    Attributes:
        data: The clips; their labels are not read.
        input: What the model sees of them: one spectrogram, and one of ``segments`` frames.
        pretraining: The model.
        optimizer: Update rule.
        train: Length, batch, precision, seed.
    """

    data: DataConfig = field(default_factory=DataConfig)
    input: InputConfig = field(default_factory=InputConfig)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: PretrainingTrainConfig = field(default_factory=PretrainingTrainConfig)
