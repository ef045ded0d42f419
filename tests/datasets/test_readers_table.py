from pathlib import Path

import pytest

from avtune.config import DataConfig
from avtune.datasets import DatasetError, Event, existing, read


def table(root: Path, text: str, name: str = "events.csv", encoding: str = "utf-8") -> DataConfig:
    (root / name).write_text(text, encoding=encoding)
    return DataConfig(name="csv", root=str(root), test_share=0, validation_share=0)


ROWS = """file,label,start,end
day 1/dog.mp4,bark,2,5.5
day 1/dog.mp4,horn,5.5,9
"a, b.mp4",bark,,
quiet.mp4,,,
other.mp4,Background,0,3
"""


def test_rows_become_clips(tmp_path):
    collection = read(table(tmp_path, ROWS))
    assert collection.labels == ("bark", "horn")
    events = {record.name: record.events for record in collection.splits["train"]}
    assert events == {
        "day 1/dog.mp4": (Event("bark", 2.0, 5.5), Event("horn", 5.5, 9.0)),
        "a, b.mp4": (Event("bark", 0.0, float("inf")),),
        "quiet.mp4": (),
        "other.mp4": (),
    }
    assert collection.records[0].source == tmp_path / "day 1" / "dog.mp4"
    assert collection.warnings == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_spreadsheets_write(tmp_path, encoding, line_end):
    text = line_end.join([" End ,LABEL,file,Start", "9,Hupe ü,x.mp4,1", ",,,", ""])
    collection = read(table(tmp_path, text, encoding=encoding))
    assert collection.records[0].events == (Event("Hupe ü", 1.0, 9.0),)


def test_the_index_may_lie_elsewhere(tmp_path, monkeypatch):
    clips, elsewhere = tmp_path / "clips", tmp_path / "elsewhere"
    clips.mkdir()
    elsewhere.mkdir()
    table(elsewhere, ROWS, "mine.csv")
    config = DataConfig(name="csv", root=str(clips), index=str(elsewhere / "mine.csv"))
    assert read(config).records[0].source == clips / "day 1" / "dog.mp4"
    table(clips, ROWS, "inside.csv")
    monkeypatch.chdir(elsewhere)
    for name in ("mine.csv", "inside.csv"):
        assert len(read(DataConfig(name="csv", root=str(clips), index=name)).records) == 4


def test_a_split_column(tmp_path):
    rows = ["a.mp4,x,0,1,train", "b.mp4,x,0,1,Val", "c.mp4,y,0,1,test", "d.mp4,y,0,1,train"]
    text = "\n".join(["file,label,start,end,split", *rows])
    splits = read(table(tmp_path, text)).splits
    assert {name: [record.name for record in records] for name, records in splits.items()} == {
        "train": ["a.mp4", "d.mp4"],
        "validation": ["b.mp4"],
        "test": ["c.mp4"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: column 'file' is absent"),
        ("file;label;start;end\n", "line 1: column 'file;label;start;end' is unknown"),
        ("file,label,start,end,colour\n", "line 1: column 'colour' is unknown"),
        ("file,label,start\n", "line 1: column 'end' is absent"),
        ("file,label,start,end,end\n", "line 1: a column is there twice"),
        ("file,label,start,end\n", "holds no event"),
        ("file,label,start,end\na.mp4,,0,1\n", "holds no event"),
        ("file,label,start,end\na.mp4,x,0\n", "line 2: 3 fields for 4 columns"),
        ("file,label,start,end\na.mp4,x,0,1\na, b.mp4,x,0,1\n", "line 3: 5 fields for 4 columns"),
        ("file,label,start,end\n\na.mp4,x,zero,1\n", "line 3: start 'zero' is no number"),
        ("file,label,start,end\na.mp4,x,0,1:30\n", "line 2: end '1:30' is no number"),
        ("file,label,start,end\na.mp4,x,nan,1\n", "line 2: start 'nan' has to be finite"),
        ("file,label,start,end\na.mp4,x,-1,1\n", "line 2: start '-1' has to be finite and at least 0"),
        ("file,label,start,end\na.mp4,x,3,2\n", r"line 2: end \(2 s\) has to be later than start \(3 s\)"),
        ("file,label,start,end\na.mp4,x,3,3\n", "line 2: end"),
        ("file,label,start,end\n,x,0,1\n", "line 2: '' names no file"),
        ("file,label,start,end\n../a.mp4,x,0,1\n", "line 2: '../a.mp4' leads out of the root"),
        ("file,label,start,end\na/../../b.mp4,x,0,1\n", "line 2: .* leads out of the root"),
        ("file,label,start,end\n/etc/passwd,x,0,1\n", "line 2: '/etc/passwd' leads out of the root"),
        ("file,label,start,end\nC:\\a.mp4,x,0,1\n", "line 2: .* leads out of the root"),
        ("file,label,start,end\na\\b.mp4,x,0,1\n", "line 2: .* leads out of the root"),
        ('file,label,start,end\n"a.mp4,x,0,1\n', "cannot be read as CSV"),
        ("file,label,start,end,split\na.mp4,x,0,1,dev\n", "line 2: split 'dev' is unknown"),
        ("file,label,start,end,split\na.mp4,x,0,1,test\n", "puts no file into train"),
        (
            "file,label,start,end,split\na.mp4,x,0,1,train\n./a.mp4,x,2,3,test\n",
            "line 3: a.mp4 is in test here and in train in line 2",
        ),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message) as caught:
        read(table(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_text(tmp_path):
    config = table(tmp_path, "")
    (tmp_path / "events.csv").write_bytes(bytes(range(256)))
    with pytest.raises(DatasetError, match="cannot be read as CSV"):
        read(config)
    (tmp_path / "events.csv").unlink()
    with pytest.raises(
        DatasetError, match="is not there; write a table whose first line is file,label,start,end"
    ):
        read(config)
    with pytest.raises(DatasetError, match="is not a folder"):
        read(DataConfig(name="csv", root=str(tmp_path / "none")))


def test_overlaps_are_mentioned_with_both_lines(tmp_path):
    text = "file,label,start,end\na.mp4,x,0,5\na.mp4,y,4,6\na.mp4,x,6,9\na.mp4,x,8,10\nb.mp4,y,0,9\n"
    warnings = read(table(tmp_path, text)).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith("events.csv line 3: overlaps another event of a.mp4 (line 2)")
    many = "file,label,start,end\n" + "".join(f"{n}.mp4,x,0,5\n{n}.mp4,y,1,2\n" for n in range(9))
    warnings = read(table(tmp_path, many)).warnings
    assert len(warnings) == 6
    assert warnings[-1] == "events.csv: 4 more events overlap another one"


def test_an_enclosing_event_is_an_overlap_too(tmp_path):
    text = "file,label,start,end\na.mp4,x,0,9\na.mp4,y,9,10\na.mp4,x,1,2\na.mp4,y,5,6\n"
    warnings = read(table(tmp_path, text)).warnings
    assert [warning.split(":")[0] for warning in warnings] == ["events.csv line 5"]


def test_events_too_short_to_label_a_second_are_mentioned(tmp_path):
    warnings = read(table(tmp_path, "file,label,start,end\na.mp4,x,0,5\na.mp4,x,7,7.3\n")).warnings
    assert len(warnings) == 1
    assert "1 events last less than 0.5 s, first in line 3" in warnings[0]


def test_absent_files_are_named_with_their_line(tmp_path):
    config = table(tmp_path, "file,label,start,end\na.mp4,x,0,5\nb.mp4,y,0,5\n")
    (tmp_path / "a.mp4").touch()
    collection = existing(read(config))
    assert [record.name for record in collection.records] == ["a.mp4"]
    assert collection.missing == (f"b.mp4: {tmp_path / 'b.mp4'} is not there (events.csv line 3)",)
    assert collection.labels == ("x", "y")
