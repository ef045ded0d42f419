"""The plain files that tell what a bandstand set holds: one per clip, and indexes of the whole set."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from avtune.datasets.bandstand.questions import questions
from avtune.datasets.bandstand.render import Rendering
from avtune.datasets.bandstand.scene import CLASSES, SECONDS, SPLITS, Program
from avtune.files import write_atomically

BACKGROUND = "background"
_SPLIT_FILES = {"train": "trainSet.txt", "validation": "valSet.txt", "test": "testSet.txt"}


def write_text(path: Path, text: str) -> None:
    """Write a text file that is either complete or absent, even after a kill."""
    write_atomically(path, text.encode())


def second_labels(program: Program) -> list[str]:
    """The label of every second: the clip's class within its event, else ``background``."""
    start, end = program.event
    return [program.label if start <= second < end else BACKGROUND for second in range(SECONDS)]


def write_clip_truth(out: Path, rendering: Rendering) -> None:
    """Write a clip's masks, its instances and, last, its scene program; the last marks the clip as finished.

    Args:
        out: Folder of the set.
        rendering: The clip.
    """
    program = rendering.program
    folder = out / "masks" / program.name
    folder.mkdir(parents=True, exist_ok=True)
    (out / "instances").mkdir(exist_ok=True)
    instances = []
    for second in range(SECONDS):
        owner = rendering.instances(second)
        sounding = np.isin(owner, [number + 1 for number in program.sounding(second)])
        Image.fromarray(np.where(sounding, 255, 0).astype(np.uint8)).save(folder / f"{second}.png")
        instances.append(owner)
    Image.fromarray(np.concatenate(instances)).save(out / "instances" / f"{program.name}.png")
    content = program.as_dict()
    content["labels"] = second_labels(program)
    content["heard"] = [sorted(program.heard(second)) for second in range(SECONDS)]
    content["seen"] = [sorted(program.seen(second)) for second in range(SECONDS)]
    content["sounding"] = [list(program.sounding(second)) for second in range(SECONDS)]
    for sound in content["sounds"]:
        sound["onsets"] = rendering.onsets[sound["number"]]
    for instrument in content["instruments"]:
        instrument["strikes"] = rendering.strikes.get(instrument["number"], [])
    (out / "truth").mkdir(exist_ok=True)
    write_text(clip_truth(out, program.name), json.dumps(content, indent=1) + "\n")


def clip_truth(out: Path, name: str) -> Path:
    """Where a clip's scene program is."""
    return out / "truth" / f"{name}.json"


def clip_video(out: Path, name: str) -> Path:
    """Where a clip's video is."""
    return out / "AVE" / f"{name}.mp4"


def write_indexes(out: Path, programs: Sequence[Program], seed: int) -> None:
    """Write every index of a set: events as AVE and as CSV, sound and sight, classes, questions, pairs.

    Args:
        out: Folder of the set.
        programs: All its clips, in order.
        seed: Seed of the set; the choice of questions depends on it.
    """
    rows = {program.name: _ave_row(program) for program in programs}
    header = "Category&VideoID&Quality&StartTime&EndTime"
    write_text(out / "Annotations.txt", "\n".join([header, *rows.values()]) + "\n")
    for split, file in _SPLIT_FILES.items():
        lines = [rows[program.name] for program in programs if program.split == split]
        write_text(out / file, "".join(f"{line}\n" for line in lines))
    columns = ["file", "label", "start", "end", "split"]
    events = [[_file(p), p.label, *p.event, p.split] for p in programs]
    write_text(out / "events.csv", _table(columns, events))
    heard = [[_file(p), s.label, *s.heard, p.split] for p in programs for s in p.sounds]
    write_text(out / "heard.csv", _table(columns, heard))
    seen = [[_file(p), i.label, *i.seen, p.split] for p in programs for i in p.instruments]
    write_text(out / "seen.csv", _table(columns, seen))
    classes = [
        [
            _file(p),
            p.label,
            ";".join(sorted({sound.label for sound in p.sounds})),
            ";".join(sorted({instrument.label for instrument in p.instruments})),
            p.split,
        ]
        for p in programs
        if p.event[0] < p.event[1]
    ]
    write_text(out / "classes.csv", _table(["file", "label", "heard", "seen", "split"], classes))
    write_text(out / "questions.json", _lines(questions(programs, seed)))
    write_text(out / "retrieval.json", json.dumps(retrieval(programs), indent=1) + "\n")


def retrieval(programs: Sequence[Program]) -> dict[str, dict[str, Any]]:
    """Which clips to search among, and which of them differ from a query in anything but the class.

    Only clips with an event are in it: in the others sound and picture do not belong together.

    Args:
        programs: All clips of the set.

    Returns:
        Per split ``pairs``, the clips whose own sound and picture should find each other, and ``groups``,
        per class the clips that are one another's hardest distractors.
    """
    found: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        members = [p for p in programs if p.split == split and p.event[0] < p.event[1]]
        groups = {label: [p.name for p in members if p.label == label] for label in CLASSES}
        found[split] = {"pairs": [p.name for p in members], "groups": groups}
    return found


def _file(program: Program) -> str:
    return f"AVE/{program.name}.mp4"


def _ave_row(program: Program) -> str:
    return "&".join([program.label, program.name, "good", *map(str, program.event)])


def _table(columns: list[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    """A JSON list with one row per line."""
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
