"""LLP: weak labels, what is heard and what is seen, made up and real."""

from pathlib import Path

import pytest

from avtune.config import DataConfig
from avtune.datasets import DatasetError, Event, read
from avtune.datasets.llp import LABELS

WEAK = "filename\tevent_labels\n"
DENSE = "filename\tonset\toffset\tevent_labels\n"
FILES = {
    "AVVP_train.csv": WEAK + "".join(f"train{k:06d}_0_10\tDog,Speech\n" for k in range(8)),
    "data/AVVP_test_pd.csv": WEAK + "BjCEufrlXm4_20_30\tSpeech,Dog\n4YdbENYcIyE_23_33\tBlender\n",
    "AVVP_eval_audio.csv": DENSE + "BjCEufrlXm4_20_30\t0\t4\tSpeech\nBjCEufrlXm4_20_30\t9\t9\tDog\n",
    "AVVP_eval_visual.csv": DENSE + "BjCEufrlXm4_20_30\t2\t10\tSpeech\n",
}


def llp(root: Path, files: dict[str, str]) -> DataConfig:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return DataConfig(name="llp", root=str(root))


def test_labels_of_clips_and_what_is_heard_and_seen(tmp_path: Path) -> None:
    (tmp_path / "video").mkdir()
    for name in ("BjCEufrlXm4.mp4", "4YdbENYcIyE_23_33.mp4"):
        (tmp_path / "video" / name).touch()
    collection = read(llp(tmp_path, FILES))
    assert collection.labels == LABELS
    first, second = collection.splits["test"]
    assert [event.label for event in first.events] == ["Speech", "Dog"]
    assert first.heard == (Event("Speech", 0, 4),)
    assert first.seen == (Event("Speech", 2, 10),)
    assert second.heard == second.seen == ()
    assert [record.files[0].name for record in (first, second)] == [
        "BjCEufrlXm4.mp4",
        "4YdbENYcIyE_23_33.mp4",
    ]
    assert len(collection.splits["train"]) + len(collection.splits["validation"]) == 8
    assert len(collection.splits["validation"]) > 0


def test_blanks_around_labels_and_rows_of_blanks_do_no_harm(tmp_path: Path) -> None:
    files = {
        **FILES,
        "data/AVVP_test_pd.csv": f"{WEAK}BjCEufrlXm4_20_30\t Speech, Dog ,\n  \n\t\n",
        "AVVP_eval_audio.csv": f"{FILES['AVVP_eval_audio.csv']}\t \t\t\n",
    }
    (test,) = read(llp(tmp_path, files)).splits["test"]
    assert test.truths == ("Speech", "Dog")
    assert test.heard == (Event("Speech", 0, 4),)


def test_the_real_lists(annotations_dir: Path) -> None:
    collection = read(DataConfig(name="llp", root=str(annotations_dir / "llp")))
    test = collection.splits["test"]
    assert len(test) == 1200
    assert {event.label for record in test for event in record.events} == set(LABELS)
    assert "can only be scored" in collection.warnings[0]
    # What is heard or seen at some time is as a rule among the clip's labels, but the published lists differ in places.
    labelled = [
        {event.label for event in (*record.heard, *record.seen)} <= {event.label for event in record.events}
        for record in test
    ]
    assert sum(labelled) > 0.95 * len(test)
    assert sum(bool(record.heard) for record in test) > 1000
    assert all(event.end > event.start for record in test for event in (*record.heard, *record.seen))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("AVVP_train.csv", WEAK + "a_0_10\tTrumpet\n", "AVVP_train.csv line 2: 'Trumpet' is none of the 25"),
        ("AVVP_train.csv", "filename,event_labels\n", "AVVP_train.csv line 1: column 'filename' is absent"),
        ("AVVP_train.csv", WEAK + "a_0_10\n", "AVVP_train.csv line 2: expected 2 fields, found 1"),
        ("AVVP_train.csv", WEAK + "a_0_10\t ,\n", "AVVP_train.csv line 2: there is no label"),
        ("AVVP_eval_audio.csv", DENSE + "a\tx\t3\tDog\n", "onset 'x' and offset '3' must be seconds"),
        ("AVVP_eval_audio.csv", DENSE + "a\t4\t13\tDog\n", "onset and offset must lie in 0 to 10"),
        ("AVVP_train.csv", WEAK + "../a\tDog\n", "leads out of the root"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, file: str, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read(llp(tmp_path, {**FILES, file: text}))
    assert "\n" not in str(caught.value)


def test_no_list_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds none of AVVP_train"):
        read(llp(tmp_path, {}))
