"""LLP: 11,849 ten-second clips. Training knows what happens in each; testing also when it is heard and when seen.

======  ==================================================================================================
media   ``<YouTube id>_<start>_<end>.mp4``, or ``<YouTube id>.mp4``, in ``video``, ``videos``, ``clips`` or the root
weak    ``AVVP_train.csv``, ``AVVP_val_pd.csv``, ``AVVP_test_pd.csv``: ``filename``, ``event_labels`` (a,b,c)
dense   ``AVVP_eval_audio.csv``, ``AVVP_eval_visual.csv``: ``filename``, ``onset``, ``offset``, ``event_labels``
======  ==================================================================================================

Columns are separated by tabs. All are looked for in the root and in ``<root>/data``.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from avtune.config import DataConfig
from avtune.datasets.leaks import leak_warnings, youtube_video
from avtune.datasets.listed import MediaFolders, first_file, listed_labels, table_rows
from avtune.datasets.records import Collection, DatasetError, Event, Record, file_name
from avtune.datasets.splits import complete_or_score

WEAK = {"train": "AVVP_train.csv", "validation": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
HEARD, SEEN = "AVVP_eval_audio.csv", "AVVP_eval_visual.csv"
MEDIA = ("video", "videos", "clips", ".")
LABELS = (
    "Speech", "Car", "Cheering", "Dog", "Cat", "Frying_(food)", "Basketball_bounce", "Fire_alarm", "Chainsaw", "Cello",
    "Banjo", "Singing", "Chicken_rooster", "Violin_fiddle", "Vacuum_cleaner", "Baby_laughter", "Accordion",
    "Lawn_mower", "Motorcycle", "Helicopter", "Acoustic_guitar", "Telephone_bell_ringing", "Baby_cry_infant_cry",
    "Blender", "Clapping",
)  # fmt: skip
"""The 25 classes in the order of the authors' code."""
CLIP_SECONDS = 10.0


def read(config: DataConfig) -> Collection:
    """Read LLP; no media file is opened.

    Args:
        config: ``root``; ``validation_share`` and ``split_seed`` where a list is absent.

    Returns:
        The clips. What a clip is labelled with is an event from its beginning to its end; ``heard`` and ``seen`` are
        the annotated stretches, where there are any.

    Raises:
        DatasetError: A list that is needed is absent, or a row is malformed; the message names it.
    """
    root = Path(config.root).expanduser()
    dense = [_dense(root, name) for name in (HEARD, SEEN)]
    media = MediaFolders(root, MEDIA)
    given: dict[str, list[Record]] = {"train": []}
    for split, name in WEAK.items():
        path = first_file((root, root / "data"), name)
        if path is None:
            continue
        given[split] = []
        for row, where in table_rows(path, ("filename", "event_labels"), "\t"):
            clip = row["filename"]
            labels = listed_labels(row["event_labels"], where)
            events = tuple(Event(_label(label, where)) for label in labels)
            heard, seen = (tuple(part.get(clip, ())) for part in dense)
            # A file is called by its name, or by the YouTube id that this begins with.
            file = media.file(clip if clip in media else file_name(clip, where)[:11], where)
            given[split].append(Record(clip, file, events, origin=where, heard=heard, seen=seen))
    if not any(given.values()):
        raise DatasetError(f"{root} holds none of {', '.join(WEAK.values())}; put the lists there")
    untrained = "there is no list of training clips, so this can only be scored; add AVVP_train.csv"
    splits, warnings = complete_or_score(given, config, untrained, youtube_video)
    warnings += leak_warnings(splits, youtube_video, "videos")
    return Collection(config.name, root, LABELS, splits, warnings, clip_seconds=CLIP_SECONDS)


def _dense(root: Path, name: str) -> dict[str, list[Event]]:
    """Annotated stretches by clip; none where the file is absent."""
    path = first_file((root, root / "data"), name)
    found: dict[str, list[Event]] = defaultdict(list)
    columns = ("filename", "onset", "offset", "event_labels")
    for row, where in table_rows(path, columns, "\t") if path else ():
        clip, onset, offset, label = (row[column] for column in columns)
        try:
            start, end = float(onset), float(offset)
        except ValueError:
            raise DatasetError(f"{where}: onset {onset!r} and offset {offset!r} must be seconds") from None
        if not (0 <= start <= CLIP_SECONDS and 0 <= end <= CLIP_SECONDS):
            raise DatasetError(
                f"{where}: onset and offset must lie in 0 to {CLIP_SECONDS:g}, found {start:g} and {end:g}"
            )
        # Some published rows end where they begin, or before: the authors' code takes nothing from them either.
        if start < end:
            found[clip].append(Event(_label(label, where), start, end))
    return found


def _label(label: str, where: str) -> str:
    if label not in LABELS:
        raise DatasetError(f"{where}: {label!r} is none of the {len(LABELS)} classes, such as {LABELS[0]!r}")
    return label
