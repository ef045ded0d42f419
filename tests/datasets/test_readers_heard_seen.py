"""A user's own tables of what is heard and what is seen."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from avtune.config import DataConfig
from avtune.datasets import DatasetError, Event, read

HEARD = "file,label,start,end,split\na.mp4,dog,0,2,train\na.mp4,horn,1,,train\nday/b.mp4,dog,,,train\nc.mp4,,,,test\n"
SEEN = "file,label,start,end,split\na.mp4,dog,3,4,train\nd.mp4,cat,0,1,val\n"


def tables(root: Path, heard: str = HEARD, seen: str = SEEN) -> DataConfig:
    (root / "heard.csv").write_text(heard, encoding="utf-8")
    (root / "seen.csv").write_text(seen, encoding="utf-8")
    return DataConfig(name="heard_seen", root=str(root))


def test_both_tables_make_one_clip_a_file(tmp_path: Path) -> None:
    collection = read(tables(tmp_path))
    assert collection.labels == ("cat", "dog", "horn")
    first, second = collection.splits["train"]
    assert first.heard == (Event("dog", 0, 2), Event("horn", 1, math.inf))
    assert first.seen == (Event("dog", 3, 4),)
    assert first.events == first.heard + first.seen
    assert first.source == tmp_path / "a.mp4"
    assert first.origin == "heard.csv line 2"
    assert (second.name, second.seen) == ("day/b.mp4", ())
    assert second.heard == (Event("dog", 0, math.inf),)
    (third,) = collection.splits["test"]
    assert third.heard == third.seen == third.events == ()
    (fourth,) = collection.splits["validation"]
    assert (fourth.heard, fourth.seen, fourth.origin) == ((), (Event("cat", 0, 1),), "seen.csv line 3")


@pytest.mark.parametrize(
    ("heard", "seen", "message"),
    [
        (HEARD.replace("c.mp4,,,,test", "c.mp4,,,,tset"), SEEN, "heard.csv line 5: split 'tset' is unknown"),
        (
            HEARD,
            SEEN.replace("3,4,train", "3,4,test"),
            "a.mp4 is in test and in train, by heard.csv and seen.csv",
        ),
        (HEARD, SEEN.replace("3,4", "4,3"), "seen.csv line 2: end"),
        (HEARD, SEEN.replace("d.mp4", "../d.mp4"), "seen.csv line 3: '../d.mp4' leads out of the root"),
        ("file,label,start,end\na.mp4,,,\n", "file,label,start,end\n", "hold no event"),
        (HEARD.replace("train", "test"), SEEN.replace("train", "test"), "no file is in train"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, heard: str, seen: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read(tables(tmp_path, heard, seen))
    assert "\n" not in str(caught.value)


def test_a_table_that_is_absent_is_named(tmp_path: Path) -> None:
    config = tables(tmp_path)
    (tmp_path / "seen.csv").unlink()
    with pytest.raises(
        DatasetError, match=r"seen\.csv is not there; write a table whose first line is file,label"
    ):
        read(config)
