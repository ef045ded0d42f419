"""Which test clips are scored: a list, or some of each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avtune.config import DataConfig
from avtune.datasets import Collection, DatasetError, Event, Record
from avtune.datasets.subsets import restrict_test


def collection(tests: int = 30) -> Collection:
    records = tuple(
        Record(f"clip{k}", Path(f"clip{k}.mp4"), (Event("abc"[k % 3]),) if k else ()) for k in range(tests)
    )
    train = (Record("first", Path("first.mp4"), (Event("a"),)),)
    return Collection("made_up", Path(), ("a", "b", "c"), {"train": train, "test": records})


def names(found: Collection) -> list[str]:
    return [record.name for record in found.splits["test"]]


def restricted(tests: int = 30, **data: Any) -> Collection:
    return restrict_test(collection(tests), DataConfig(**data))


def test_all_are_kept_where_nothing_is_asked() -> None:
    whole = collection()
    assert restrict_test(whole, DataConfig()) is whole


def test_some_of_each_class_by_seed_and_names_alone() -> None:
    found = restricted(test_per_class=5)
    labels = [record.events[0].label for record in found.splits["test"]]
    assert sorted(labels) == ["a"] * 5 + ["b"] * 5 + ["c"] * 5
    assert found.splits["train"] == collection().splits["train"]
    assert found.warnings == ("15 of 30 test clips are scored (data.test_list, data.test_per_class)",)
    assert names(found) == names(restricted(test_per_class=5))
    assert names(found) != names(restricted(test_per_class=5, split_seed=1))
    # The order among the clips of a class does not hang on how many there are.
    some = set(names(restricted(15, test_per_class=2)))
    assert set(names(restricted(test_per_class=2))) & {f"clip{k}" for k in range(15)} <= some


def test_a_list_comes_first_and_keeps_the_sets_own_order(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("clip9\n\n clip3 \nelsewhere\nclip4\n", encoding="utf-8")
    assert names(restricted(test_list=str(file))) == ["clip3", "clip4", "clip9"]
    assert len(names(restricted(test_list=str(file), test_per_class=1))) == 2


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("elsewhere\n", encoding="utf-8")
    for data, message in (
        ({"test_list": str(tmp_path / "none.txt")}, "names none of the 30 test clips, such as clip0"),
        ({"test_list": str(tmp_path / "absent.txt")}, "cannot be read as UTF-8 text"),
    ):
        with pytest.raises(DatasetError, match=message) as caught:
            restricted(**data)
        assert "\n" not in str(caught.value)
