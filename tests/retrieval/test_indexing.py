"""An index follows its folder: new, changed, vanished and damaged files, and whatever kills the process."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import faiss
import pytest
from made_up_index import MadeUpEmbedder, Watcher, write_made_up

from avtune.errors import AvtuneError
from avtune.retrieval import SearchError, SearchIndex, store, update_index
from avtune.retrieval.indexing import MOST_ATTEMPTS
from avtune.retrieval.store import DATABASE, VECTORS, FileState, Store


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    write_made_up(folder / "a.mp4", 1, windows=3)
    write_made_up(folder / "deep" / "b.MKV", 2)
    write_made_up(folder / "c.wav", 3, streams="sound")
    write_made_up(folder / "d.mp4", 4, windows=2, streams="picture")
    (folder / "damaged.mp4").write_text("nothing")
    (folder / "notes.txt").write_text("no media")
    write_made_up(folder / ".hidden" / "e.mp4", 5)
    write_made_up(folder / ".f.mp4", 6)
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "index"


def found_by(index: Path, videos: Path, name: str) -> str:
    with SearchIndex(index) as opened:
        return opened.search(MadeUpEmbedder().embed(videos / name), top=1)[0].file.as_posix()


def test_every_file_is_indexed_by_what_it_has(videos: Path, index: Path) -> None:
    watcher = Watcher()
    done = update_index(videos, MadeUpEmbedder(), index, watcher)
    assert (done.embedded, done.unchanged, done.removed, done.noted, done.windows) == (4, 0, 0, 2, 7)
    assert done.damaged == {"damaged.mp4": "holds no video; copy it again"}
    assert watcher.files == len(watcher.done) == 5
    assert watcher.windows == {"a.mp4": 3, "b.MKV": 1, "c.wav": 1, "d.mp4": 2, "damaged.mp4": 0}
    for name in ("a.mp4", "deep/b.MKV", "c.wav", "d.mp4"):
        assert found_by(index, videos, name) == name


def test_only_new_and_changed_files_are_read_again(videos: Path, index: Path) -> None:
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    embedder = MadeUpEmbedder()
    assert update_index(videos, embedder, index, Watcher()).unchanged == 5
    assert embedder.read == []

    (videos / "c.wav").unlink()
    write_made_up(videos / "g.mp4", 7)
    write_made_up(videos / "a.mp4", 9)
    state = (videos / "d.mp4").stat()
    os.utime(videos / "d.mp4", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    shutil.copy2(videos / "d.mp4", videos / "damaged.mp4")
    done = update_index(videos, embedder, index, Watcher())
    assert embedder.read == ["a.mp4", "d.mp4", "damaged.mp4", "g.mp4"]
    assert (done.embedded, done.unchanged, done.removed, done.damaged) == (4, 1, 1, {})
    assert done.windows == 1 + 1 + 2 + 2 + 1
    for name in ("a.mp4", "deep/b.MKV", "d.mp4", "g.mp4"):
        assert found_by(index, videos, name) == name
    with SearchIndex(index) as opened:
        assert Path("c.wav") not in {
            place.file for place in opened.search(embedder.embed(videos / "a.mp4"), top=9)
        }


def test_an_updated_index_equals_one_made_at_once(videos: Path, index: Path, tmp_path: Path) -> None:
    write_made_up(videos / "a.mp4", 20, windows=4)
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    write_made_up(videos / "a.mp4", 1, windows=3)
    write_made_up(videos / "z.mp4", 8, windows=2)
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    update_index(videos, MadeUpEmbedder(), tmp_path / "at once", Watcher())
    query = MadeUpEmbedder().embed(videos / "z.mp4")
    with SearchIndex(index) as grown, SearchIndex(tmp_path / "at once") as whole:
        assert grown.search(query, top=20) == whole.search(query, top=20)
        assert len(grown.search(query, top=20)) == 5


def test_what_goes_while_an_index_is_open_is_not_found(videos: Path, index: Path) -> None:
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    query = MadeUpEmbedder().embed(videos / "a.mp4")
    with SearchIndex(index) as opened:
        assert opened.search(query, top=1)[0].file == Path("a.mp4")
        (videos / "a.mp4").unlink()
        update_index(videos, MadeUpEmbedder(), index, Watcher())
        assert {place.file.name for place in opened.search(query)} == {"b.MKV", "c.wav", "d.mp4"}


def test_what_a_person_interrupts_is_read_again(videos: Path, index: Path) -> None:
    def interrupt(path: Path) -> None:
        if path.name == "c.wav":
            raise KeyboardInterrupt

    for _ in range(MOST_ATTEMPTS + 1):
        with pytest.raises(KeyboardInterrupt):
            update_index(videos, MadeUpEmbedder(before=interrupt), index, Watcher())
    embedder = MadeUpEmbedder()
    update_index(videos, embedder, index, Watcher())
    assert embedder.read == ["c.wav", "d.mp4", "damaged.mp4", "b.MKV"]
    assert found_by(index, videos, "c.wav") == "c.wav"


def test_a_file_that_kills_the_process_again_and_again_is_left_out(videos: Path, index: Path) -> None:
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    write_made_up(videos / "a.mp4", 30)
    with Store(index) as store:
        for _ in range(MOST_ATTEMPTS):
            store.begin(Path("a.mp4"), FileState.of(videos / "a.mp4"))
    embedder = MadeUpEmbedder()
    done = update_index(videos, embedder, index, Watcher())
    assert embedder.read == []
    assert "the process died 3 times" in done.damaged["a.mp4"]
    assert update_index(videos, embedder, index, Watcher()).damaged == done.damaged
    write_made_up(videos / "a.mp4", 31, windows=2)
    assert "a.mp4" not in update_index(videos, embedder, index, Watcher()).damaged
    assert embedder.read == ["a.mp4"]


def without_vectors(content: bytes, folder: Path) -> bytes:
    whole = faiss.read_index(str(folder / VECTORS))
    codes: bytes = faiss.vector_to_array(faiss.downcast_index(whole.index).codes).tobytes()
    assert content.count(codes) == 1
    return content.replace(codes, bytes(len(codes)))


def of_other_videos(content: bytes, folder: Path) -> bytes:
    """Windows of the same numbers by the same model."""
    for seed, name in enumerate(("a.mp4", "b.mp4", "c.mp4", "d.mp4"), start=50):
        write_made_up(folder / "others" / name, seed, windows=2 if name < "d.mp4" else 1)
    update_index(folder / "others", MadeUpEmbedder(), folder / "other", Watcher())
    return (folder / "other" / VECTORS).read_bytes()


@pytest.mark.parametrize(
    "harm", [None, lambda content, folder: content[:100], without_vectors, of_other_videos]
)
def test_the_vector_file_follows_from_the_database(
    videos: Path, index: Path, harm: Callable[[bytes, Path], bytes] | None
) -> None:
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    file = index / VECTORS
    content = file.read_bytes()
    if harm is None:
        file.unlink()
    else:
        file.write_bytes(harm(content, index))
        assert file.read_bytes() != content
    for name in ("a.mp4", "d.mp4"):
        assert found_by(index, videos, name) == name
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    assert file.read_bytes() == content


def test_an_old_vector_file_beside_a_new_database_is_made_anew(videos: Path, index: Path) -> None:
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    (index / DATABASE).unlink()
    for seed, name in enumerate(("a.mp4", "d.mp4"), start=50):
        write_made_up(videos / name, seed, windows=3 if name == "a.mp4" else 2)
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    for name in ("a.mp4", "d.mp4"):
        assert found_by(index, videos, name) == name


def test_an_index_refuses_another_folder_or_model(videos: Path, index: Path, tmp_path: Path) -> None:
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    other = write_made_up(tmp_path / "other" / "a.mp4", 1).parent
    with pytest.raises(SearchError, match=r"is the index of .*videos, not of .*other; name another --out"):
        update_index(other, MadeUpEmbedder(), index, Watcher())
    with pytest.raises(SearchError, match="of another model, that of /runs/made_up at the time"):
        update_index(videos, MadeUpEmbedder(fingerprint="second"), index, Watcher())
    with SearchIndex(index) as opened:
        opened.refuse_other("first", Path("/runs/made_up"))
        with pytest.raises(SearchError, match="of another model than /runs/again holds now"):
            opened.refuse_other("second", Path("/runs/again"))


def test_a_folder_without_media_empties_no_index(videos: Path, index: Path) -> None:
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    shutil.rmtree(videos)
    with pytest.raises(SearchError, match="is not a folder"):
        update_index(videos, MadeUpEmbedder(), index, Watcher())
    videos.mkdir()
    with pytest.raises(SearchError, match=r"no video or sound in it; check that .* mounted"):
        update_index(videos, MadeUpEmbedder(), index, Watcher())
    with SearchIndex(index) as opened:
        assert len(opened) == 7


def test_names_that_are_no_text_are_indexed(videos: Path, index: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(videos) + b"/\xff odd\n.mp4"))
    write_made_up(path, 77)
    done = update_index(videos, MadeUpEmbedder(), index, Watcher())
    assert done.embedded == 5
    with SearchIndex(index) as opened:
        assert opened.search(MadeUpEmbedder().embed(path), top=1)[0].file == path.relative_to(videos)


def test_damaged_and_foreign_databases_are_one_line(videos: Path, index: Path, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no index; make one with"):
        SearchIndex(index)
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    with Store(index) as store:
        store._database.execute(
            "UPDATE files SET path = CAST('../../secret.mp4' AS BLOB) WHERE path = ?", (b"a.mp4",)
        )
    with SearchIndex(index) as opened, pytest.raises(SearchError, match="not below its videos"):
        opened.search(MadeUpEmbedder().embed(videos / "a.mp4"))
    with Store(index) as store:
        store._database.execute("UPDATE facts SET value = '0' WHERE name = 'format'")
    with pytest.raises(SearchError, match="format 0, this avtune reads 1"):
        SearchIndex(index)
    (index / DATABASE).write_bytes(b"no database" * 1000)
    with pytest.raises(SearchError, match="damaged, or of another version"):
        SearchIndex(index)


def use_all(videos: Path, index: Path) -> list[str]:
    """Index, search and map; what each says where it cannot."""

    def search() -> None:
        with SearchIndex(index) as opened:
            opened.search(MadeUpEmbedder().embed(videos / "a.mp4"))

    def draw() -> None:
        with Store(index) as opened:
            opened.file_vectors()

    said = []
    for use in (lambda: update_index(videos, MadeUpEmbedder(), index, Watcher()), search, draw):
        try:
            use()
        except SearchError as error:
            said.append(str(error))
    return said


def test_damaged_pages_of_the_database_are_one_line(videos: Path, index: Path) -> None:
    for seed in range(30):
        write_made_up(videos / f"more{seed}.mp4", seed, windows=8)
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    content = bytearray((index / DATABASE).read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 600] = b"\xa5" * 600
    (index / DATABASE).write_bytes(content)
    said = use_all(videos, index)
    assert len(said) == 3
    for line in said:
        assert "damaged, or of another version" in line
        assert line.endswith(f"delete {index} and make the index again")
        assert "\n" not in line


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ("UPDATE windows SET sound = x'0000803f', picture = x'0000803f'", 3),
        ("UPDATE windows SET sound = zeroblob(23) || x'7f', picture = zeroblob(23) || x'7f'", 3),
        ("UPDATE windows SET sound = 'text', picture = 'text'", 3),
        # A map does not show remarks.
        ("UPDATE files SET notes = '{'", 2),
        ("UPDATE files SET notes = CAST(x'ff' AS TEXT)", 2),
        ("UPDATE files SET path = number", 3),
        ("DROP TABLE windows", 3),
    ],
)
def test_damaged_values_of_the_database_are_one_line(
    videos: Path, index: Path, change: str, refused: int
) -> None:
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    (index / VECTORS).unlink()
    with closing(sqlite3.connect(index / DATABASE)) as database, database:
        database.execute(change)
    said = use_all(videos, index)
    assert len(said) == refused
    assert all("damaged, or of another version" in line for line in said)


def test_a_busy_database_is_no_damaged_one(
    videos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    monkeypatch.setattr(store, "WAIT_SECONDS", 0.01)
    with closing(sqlite3.connect(index / DATABASE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        said = use_all(videos, index)
    assert len(said) == 3
    for line in said:
        assert "cannot be used now (database is locked), and is left as it was" in line
        assert "delete" not in line
    assert use_all(videos, index) == []


def test_a_full_disk_loses_only_what_was_being_written(videos: Path, index: Path) -> None:
    update_index(videos, MadeUpEmbedder(), index, Watcher())
    vectors = MadeUpEmbedder().embed(write_made_up(videos / "large.mp4", 9, windows=2000))
    with Store(index) as opened:
        before = opened.numbers().tolist()
        opened.begin(Path("large.mp4"), FileState.of(videos / "large.mp4"))
        (pages,) = opened._database.execute("PRAGMA page_count").fetchone()
        opened._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(SearchError, match=r"cannot be used now \(database or disk is full\)"):
            opened.add(Path("large.mp4"), vectors)
        assert opened.numbers().tolist() == before
        opened._database.execute("PRAGMA max_page_count = 100000")
        opened.add(Path("large.mp4"), vectors)
        assert len(opened.numbers()) == len(before) + 2000


def test_an_index_is_not_made_in_place_of_a_file(videos: Path, tmp_path: Path) -> None:
    file = tmp_path / "frame.jpg"
    file.write_bytes(b"picture")
    for folder in (file, file / "index"):
        with pytest.raises(AvtuneError, match=r"frame\.jpg is a file, not a folder; name another place"):
            update_index(videos, MadeUpEmbedder(), folder, Watcher())
    assert file.read_bytes() == b"picture"
