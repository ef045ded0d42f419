"""Files appear whole under their names, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from avtune.errors import AvtuneError
from avtune.files import appearing, write_atomically


def test_a_file_is_written_into_a_new_folder_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    for content in (b"first", b"second"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_halfway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), appearing(path) as partial, partial.open("wb") as file:
        file.writelines([b"half", "no bytes"])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_lies_in_the_way_is_named_and_kept(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_bytes(b"old")
    with pytest.raises(AvtuneError, match=r"folder is a folder; name a file$"):
        write_atomically(folder, b"new")
    for below in (file / "new", file / "deep" / "new"):
        with pytest.raises(AvtuneError, match=r"file is a file, not a folder; name another place$"):
            write_atomically(below, b"new")
    assert file.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == [file, folder]
    assert list(folder.iterdir()) == []
