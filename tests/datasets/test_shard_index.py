"""What is found in tar files, held against Python's own reading of them."""

from __future__ import annotations

import io
import json
import math
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_case import as_json, write_tar

from avtune.datasets.records import DatasetError, Event, Question, Record
from avtune.datasets.shard_index import (
    clip_facts,
    index_path,
    read_index,
    record_of,
    scan_shard,
)
from avtune.media import MediaError
from avtune.media.part import BLOCK_BYTES

words = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)
moments = st.floats(0, 1e4)
events = st.lists(st.builds(Event, words, moments, moments | st.just(math.inf)), max_size=3).map(tuple)
questions = st.none() | st.builds(
    Question,
    st.lists(words, max_size=3).map(tuple),
    words,
    st.tuples(words, words),
    words,
    st.integers(-1, 9),
)
# Keys and suffixes as others choose them, folders and further dots among them.
keys = st.from_regex(r"[a-c]{1,3}(/[a-d_ -]{1,110})?", fullmatch=True)
suffixes = st.sets(st.sampled_from(["mp4", "json", "cls", "jpg", "wide.MKV", "txt"]), min_size=1)


@given(words, moments, events, events, events, questions, st.none() | st.integers(0, 10**7))
def test_a_clips_truth_goes_through_json_unchanged(
    name: str, start: float, happens: tuple[Event, ...], heard: tuple[Event, ...], seen: tuple[Event, ...],
    question: Question | None, place: int | None,
) -> None:  # fmt: skip
    record = Record(name, Path("clip.mp4"), happens, start, heard=heard, seen=seen, question=question)
    facts = json.loads(json.dumps(clip_facts(record, place), allow_nan=False))
    assert record_of(facts, record.source) == record
    assert facts.get("place") == place


@given(
    st.lists(st.tuples(keys, suffixes, st.binary(max_size=1500)), max_size=6, unique_by=lambda row: row[0])
)
def test_samples_are_what_the_tar_holds(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, set[str], bytes]]
) -> None:
    shard = tmp_path_factory.mktemp("tar") / "some.tar"
    members = [
        (f"{key}.{suffix}", as_json({"label": key}) if suffix == "json" else content)
        for key, of_key, content in rows
        for suffix in sorted(of_key)
    ]
    write_tar(shard, members)
    found = scan_shard(shard)
    usable = [row for row in rows if row[1] & {"mp4", "wide.MKV"}]
    assert [record_of(sample.clips[0], shard).name for sample in found.samples] == [row[0] for row in usable]
    assert len(found.damaged) == len(rows) - len(usable)
    for sample, (key, of_key, content) in zip(found.samples, usable, strict=True):
        assert sample.part.read() == content
        assert sample.part.name in {f"{key}.mp4", f"{key}.wide.MKV"}
        if "json" in of_key:
            assert record_of(sample.clips[0], shard).truths == (key,)
    found.write(shard)
    assert read_index(shard) == found


@pytest.mark.parametrize("size", [0, 5, BLOCK_BYTES, BLOCK_BYTES + 3])
def test_a_sample_with_another_checksum_is_damaged(tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    facts = {"avtune": 1, "clips": [{"name": "x", "start": 0}], "checksum": zlib.crc32(content)}
    shard = write_tar(tmp_path / "a.tar", [("x.mp4", content), ("x.json", as_json(facts))])
    scan_shard(shard).write(shard)
    part = read_index(shard).samples[0].part
    part.verify()
    assert part.read() == content
    other = replace(part, checksum=zlib.crc32(content) ^ 1)
    for use in (other.verify, other.read):
        with pytest.raises(MediaError, match=r"a\.tar/x\.mp4: is damaged: its checksum is another; copy"):
            use()


def test_an_index_without_checksums_is_read(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", [("x.mp4", b"content")])
    index_path(shard).write_text(
        '{"format": 1, "samples": [["x.mp4", 512, 7, 1.5, [{"name": "x", "start": 0}]]], "damaged": {}}'
    )
    part = read_index(shard).samples[0].part
    part.verify()
    assert (part.read(), part.duration, part.checksum) == (b"content", 1.5, None)


@given(st.integers(0, 8 * 512))
def test_a_truncated_shard_loses_its_tail_alone(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    shard = tmp_path_factory.mktemp("tar") / "cut.tar"
    contents = [bytes([number]) * 700 for number in range(3)]
    # Each member: a header and two blocks.
    write_tar(shard, [(f"{number}.mp4", content) for number, content in enumerate(contents)])
    shard.write_bytes(shard.read_bytes()[:cut])
    found = scan_shard(shard)
    whole = [content for number, content in enumerate(contents) if cut >= 3 * 512 * number + 512 + 700]
    read = [sample.part.read() for sample in found.samples]
    assert read == contents[: len(read)]
    assert len(whole) - 1 <= len(read) <= len(whole)
    if cut % (3 * 512):
        assert "cut off or damaged" in found.damaged["cut.tar"]


def test_a_sample_whose_label_is_cut_off_is_left_out_with_it(tmp_path: Path) -> None:
    members = [("a.mp4", b"x" * 500), ("a.cls", b"0"), ("b.mp4", b"y" * 500), ("b.cls", b"1")]
    shard = write_tar(tmp_path / "cut.tar", members)
    shard.write_bytes(shard.read_bytes()[: 7 * 512 + 1])
    found = scan_shard(shard)
    assert [sample.part.name for sample in found.samples] == ["a.mp4"]
    assert set(found.damaged) == {"cut.tar", "b"}


def test_only_whole_files_of_the_tar_are_samples(tmp_path: Path) -> None:
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(b"secret")
    shard = tmp_path / "shards" / "odd.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for kind, name in (
            (tarfile.SYMTYPE, "link.mp4"),
            (tarfile.LNKTYPE, "hard.mp4"),
            (tarfile.DIRTYPE, "d.mp4"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "../outside.mp4"
            tar.addfile(member)
        for name in ("../../outside.mp4", "/etc/absolute.mp4"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"mine"))
    found = scan_shard(shard)
    assert [sample.part.read() for sample in found.samples] == [b"mine", b"mine"]
    assert all(sample.part.path.is_relative_to(shard) for sample in found.samples)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["odd.tar", "outside.mp4", "shards"]


@pytest.mark.parametrize(
    ("facts", "labels"),
    [
        ({"label": "dog"}, ("dog",)),
        ({"label": 7}, ("7",)),
        ({"labels": ["dog", "horn"]}, ("dog", "horn")),
        ({"caption": "a dog"}, ()),
        ({"label": {"dog": 1}}, None),
        ([1, 2], None),
        ({"avtune": 1, "clips": 3, "label": "dog"}, ("dog",)),
        ({"avtune": 1, "clips": [{"name": "x"}]}, None),
        ({"avtune": 1, "clips": [{"name": "x", "start": 0}], "duration": "long"}, None),
        ({"avtune": 1, "clips": [{"name": "x", "start": 0}], "checksum": "a5"}, None),
        ({"label": "dog", "duration": "10000 ms", "checksum": "a5"}, ("dog",)),
    ],
)
def test_labels_of_others(tmp_path: Path, facts: object, labels: tuple[str, ...] | None) -> None:
    shard = write_tar(tmp_path / "a.tar", [("x.mp4", b"1"), ("x.json", json.dumps(facts).encode())])
    found = scan_shard(shard)
    if labels is None:
        assert not found.samples
        assert list(found.damaged) == ["x"]
    else:
        assert record_of(found.samples[0].clips[0], shard).truths == labels


@pytest.mark.parametrize(
    "content",
    [
        "no json", "[]", "{}", '{"format": 2, "samples": [], "damaged": {}}',
        '{"format": 1, "samples": [["x.mp4", -1, 5, null, []]], "damaged": {}}',
        '{"format": 1, "samples": [["x.mp4", "0", 5, null, []]], "damaged": {}}',
        '{"format": 1, "samples": [[1]], "damaged": {}}',
    ],
)  # fmt: skip
def test_a_damaged_index_is_one_line_with_its_mend(tmp_path: Path, content: str) -> None:
    shard = tmp_path / "a.tar"
    index_path(shard).write_text(content)
    with pytest.raises(DatasetError, match=r"a\.tar\.json.*avtune data index"):
        read_index(shard)


def test_a_part_beyond_the_end_is_an_error_of_the_media(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", [("x.mp4", b"1" * 600)])
    part = scan_shard(shard).samples[0].part
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(MediaError, match=r"a\.tar/x\.mp4: lies beyond the end of a\.tar"):
        part.read()
    shard.unlink()
    with pytest.raises(MediaError, match="cannot be read"):
        part.read()
