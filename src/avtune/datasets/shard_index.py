"""What lies where in a tar shard: found once by walking over its headers, then kept in a file beside it.

A sample is what WebDataset calls one: the members in a row that share a key, which is a member's path up to the first
dot of its name. The media file (or the stored tensors) of a sample is never unpacked: it is read where it lies. Names
of members are keys and nothing else.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from avtune.datasets.records import VIDEO_SUFFIXES, DatasetError, Event, Question, Record, printable
from avtune.files import appearing
from avtune.media import FilePart, MediaError

FORMAT = 1
INDEX_SUFFIX = ".json"
TENSORS_SUFFIX = ".safetensors"
MEDIA_SUFFIXES = VIDEO_SUFFIXES | {TENSORS_SUFFIX}
FACTS_SUFFIX, CLASS_SUFFIX = ".json", ".cls"
LARGEST_FACTS = 1_000_000
"""More bytes of text about one clip are a mistake, and would have to be held in memory."""


@dataclass(frozen=True)
class ShardSample:
    """One sample of a shard.

    Attributes:
        part: Where its media file, or its tensors, lie.
        clips: The clips that are in it, as :func:`clip_facts` states them.
    """

    part: FilePart
    clips: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class ShardIndex:
    """The samples of a shard.

    Attributes:
        samples: In the order in which they lie.
        damaged: What is wrong with samples that are left out, by their names.
    """

    samples: tuple[ShardSample, ...]
    damaged: dict[str, str]

    def write(self, shard: Path) -> None:
        """Keep it beside its shard; the file appears whole or not at all."""
        rows = []
        for sample in self.samples:
            part = sample.part
            rows.append([part.name, part.offset, part.size, part.duration, part.checksum, sample.clips])
        content = {"format": FORMAT, "samples": rows, "damaged": self.damaged}
        write_json(index_path(shard), content)


def index_path(shard: Path) -> Path:
    """The file that keeps a shard's index."""
    return shard.with_name(shard.name + INDEX_SUFFIX)


def read_index(shard: Path) -> ShardIndex:
    """What was kept beside a shard; the shard itself is not opened.

    Raises:
        DatasetError: There is no index, or it is damaged.
    """
    path = index_path(shard)
    content = read_json(path)
    try:
        if content["format"] != FORMAT:
            raise DatasetError(
                f"{path} is of format {content['format']}, this avtune reads {FORMAT}; {_again(path)}"
            )
        samples = tuple(
            ShardSample(_part(shard, *place), tuple(dict(clip) for clip in clips))
            for *place, clips in content["samples"]
        )
        return ShardIndex(samples, {str(name): str(why) for name, why in content["damaged"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged_index(shard, error) from None


def damaged_index(shard: Path, error: Exception) -> DatasetError:
    """The error for an index that cannot be made sense of."""
    path = index_path(shard)
    return DatasetError(f"{path} is damaged ({error!r}); {_again(path)}")


def _part(
    shard: Path, name: Any, offset: Any, size: Any, duration: Any = None, checksum: Any = None
) -> FilePart:
    if not (isinstance(name, str) and isinstance(offset, int) and isinstance(size, int)):
        raise ValueError("a sample has no place")
    if min(offset, size) < 0:
        raise ValueError("a sample lies before the beginning")
    if not isinstance(duration, int | float | None):
        raise ValueError("a sample's duration is no number")
    if not isinstance(checksum, int | None):
        raise ValueError("a sample's checksum is no number")
    seconds = None if duration is None else float(duration)
    return FilePart(shard, printable(name), offset, size, seconds, checksum)


def scan_shard(shard: Path) -> ShardIndex:
    """Walk over a shard's headers; of its contents only the small files that hold labels are read.

    What cannot be used is listed: samples without a video, text that is no label, and the sample that a truncated shard
    breaks off in.

    Args:
        shard: An uncompressed tar file.

    Raises:
        OSError: It cannot be read.
    """
    damaged: dict[str, str] = {}
    samples: list[ShardSample] = []
    for key, members in groupby(_members(shard, damaged), key=lambda member: _key(member.name)):
        whole = list(members)
        try:
            if shard.name in damaged:
                raise ValueError("the shard may break off in it")
            samples.append(_sample(shard, key, whole))
        except (ValueError, MediaError) as error:
            damaged[printable(key)] = printable(" ".join(str(error).split()))
    return ShardIndex(tuple(samples), damaged)


def _members(shard: Path, damaged: dict[str, str]) -> Iterator[tarfile.TarInfo]:
    """Members that are whole files; links, folders and whatever else a tar can hold are passed over."""
    size = shard.stat().st_size
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as opened:
            for member in opened:
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("it ends within a file")
                if member.isreg() and not member.issparse():
                    yield member
            # tarfile takes a header that it cannot read for the end.
            file.seek(opened.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("it ends within a header")
    except (tarfile.TarError, ValueError) as error:
        damaged[shard.name] = f"the shard is cut off or damaged ({error}); what lies before that is used"


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.split('.', 1)[0]}"


def _sample(shard: Path, key: str, members: Sequence[tarfile.TarInfo]) -> ShardSample:
    by_suffix = {f".{member.name.rpartition('.')[2].lower()}": member for member in members}
    media = next((member for suffix, member in by_suffix.items() if suffix in MEDIA_SUFFIXES), None)
    if media is None:
        raise ValueError(f"holds no video among its files {', '.join(by_suffix)}")
    facts: dict[str, Any] = {}
    for suffix in (CLASS_SUFFIX, FACTS_SUFFIX):
        if (member := by_suffix.get(suffix)) is not None:
            facts |= _facts(shard, member, suffix)
    own = facts.get("avtune") == FORMAT and isinstance(facts.get("clips"), list)
    clips = tuple(facts["clips"]) if own else (_foreign_clip(key, facts),)
    for clip in clips:
        record_of(clip, shard)
    known = (facts.get("duration"), facts.get("checksum")) if own else ()
    return ShardSample(_part(shard, media.name, media.offset_data, media.size, *known), clips)


def _facts(shard: Path, member: tarfile.TarInfo, suffix: str) -> dict[str, Any]:
    if member.size > LARGEST_FACTS:
        raise ValueError(f"its {suffix} file is larger than {LARGEST_FACTS} bytes")
    text = FilePart(shard, member.name, member.offset_data, member.size).read().decode(errors="replace")
    if suffix == CLASS_SUFFIX:
        return {"label": text.strip()}
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("its .json file is no JSON") from None
    if not isinstance(facts, dict):
        raise ValueError("its .json file holds no object")
    return facts


def _foreign_clip(key: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The one clip of a sample that others wrote: ``label`` or ``labels`` of its JSON, or the content of ``.cls``."""
    found = facts.get("labels", facts.get("label", []))
    labels = [found] if isinstance(found, str | int) else found
    if not isinstance(labels, list) or not all(isinstance(label, str | int) for label in labels):
        raise ValueError("its labels are neither words nor numbers")
    return clip_facts(Record(printable(key), Path(), tuple(Event(printable(str(label))) for label in labels)))


def clip_facts(record: Record, place: int | None = None) -> dict[str, Any]:
    """A clip's name and truth as JSON keeps it; :func:`record_of` undoes it.

    Args:
        record: The clip; its masks are left out, which are files of their own.
        place: Its number within its split.
    """
    facts: dict[str, Any] = {"name": record.name, "start": record.start, "labels": list(record.truths)}
    for name in ("events", "heard", "seen"):
        if events := getattr(record, name):
            # JSON has no infinity: an event without an end lasts to the end of the file.
            facts[name] = [[e.label, e.start, e.end if e.end < float("inf") else None] for e in events]
    if (asked := record.question) is not None:
        facts["question"] = {
            "words": list(asked.words), "answer": asked.answer, "kind": list(asked.kind),
            "template": asked.template, "identity": asked.identity,
        }  # fmt: skip
    return facts if place is None else {**facts, "place": place}


def record_of(facts: Any, source: Any) -> Record:
    """The clip that facts state.

    Args:
        facts: What :func:`clip_facts` gave, or a file holds.
        source: What it is read from.

    Raises:
        ValueError: The facts state none.
    """
    try:
        question = facts.get("question")
        return Record(
            name=_text(facts["name"]),
            source=source,
            events=_events(facts, "events"),
            start=float(facts["start"]),
            heard=_events(facts, "heard"),
            seen=_events(facts, "seen"),
            question=None if question is None else _question(question),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"its .json file states no clip ({error!r})") from None


def _events(facts: dict[str, Any], name: str) -> tuple[Event, ...]:
    return tuple(
        Event(_text(label), float(start), float("inf") if end is None else float(end))
        for label, start, end in facts.get(name, ())
    )


def _question(facts: dict[str, Any]) -> Question:
    about, asked = facts["kind"]
    return Question(
        tuple(_text(word) for word in facts["words"]), _text(facts["answer"]), (_text(about), _text(asked)),
        _text(facts["template"]), int(facts["identity"]),
    )  # fmt: skip


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _again(path: Path) -> str:
    return f"remove it and run `avtune data index {path.parent}`"


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DatasetError: It is not there, or holds no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); {_again(path)}") from None
    except (ValueError, RecursionError):
        raise DatasetError(f"{path} holds no JSON; {_again(path)}") from None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, which appears whole or not at all."""
    with appearing(path) as partial:
        partial.write_text(json.dumps(content, ensure_ascii=True), encoding="ascii")
