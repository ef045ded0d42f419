from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from avtune.config import DataConfig
from avtune.datasets import Event, Record
from avtune.datasets.splits import complete, hold_out


def clip(name: str, *labels: str, start: float = 0.0) -> Record:
    return Record(name, Path("/data") / name, tuple(Event(label, 0.0, 2.0) for label in labels), start=start)


@st.composite
def collections(draw):
    records = []
    for number in range(draw(st.integers(1, 40))):
        labels = draw(st.lists(st.sampled_from("abcd"), max_size=2, unique=True))
        windows = range(draw(st.integers(1, 2)))
        records += [clip(f"{number}.mp4", *labels, start=10.0 * window) for window in windows]
    return records


# Two held-out files show c, which no kept one does: which of them goes back must not depend on the order.
@example([clip("0.mp4", "a"), clip("1.mp4", "b"), clip("2.mp4", "a", "c"), clip("3.mp4", "b", "c")], 0.5, 0)
@given(collections(), st.floats(0, 0.6), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_a_division_keeps_files_whole_and_every_label_in_train(records, share, seed):
    kept, held = hold_out(records, share, seed, "test")
    assert sorted(map(id, kept + held)) == sorted(map(id, records))
    assert not {record.source for record in kept} & {record.source for record in held}
    labels = {event.label for record in records for event in record.events}
    assert {event.label for record in kept for event in record.events} == labels
    assert hold_out(list(reversed(records)), share, seed, "test")[1] == list(reversed(held))
    files = len({record.source for record in records})
    assert len({record.source for record in held}) <= max(round(share * files), 1)


@given(collections(), st.floats(0, 0.6), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_clips_of_one_recording_stay_together_whatever_their_files(records, share, seed):
    def recording(record: Record) -> str:
        return str(int(record.name.removesuffix(".mp4")) % 7)

    kept, held = hold_out(records, share, seed, "test", recording)
    assert sorted(map(id, kept + held)) == sorted(map(id, records))
    assert not set(map(recording, kept)) & set(map(recording, held))
    assert len(set(map(recording, held))) <= max(round(share * len(set(map(recording, records)))), 1)


def test_shares_are_met_label_by_label():
    records = [clip(f"{label}{n}.mp4", label) for label in "abc" for n in range(20)]
    kept, held = hold_out(records, 0.15, 0, "test")
    assert len(held) == 9
    assert sorted(record.events[0].label for record in held) == list("aaabbbccc")
    few = [clip(f"{label}{n}.mp4", label) for label in "abcde" for n in range(4)]
    assert len(hold_out(few, 0.15, 0, "test")[1]) == 3
    assert hold_out(records, 0.0, 0, "test")[1] == []
    assert len(kept) == 51


def test_clips_without_events_keep_one_in_train_too():
    records = [clip("quiet.mp4"), *(clip(f"a{n}.mp4", "a") for n in range(9))]
    kept, held = hold_out(records, 0.6, 0, "test")
    assert records[0] in kept
    assert len(held) == 6


def test_a_file_that_alone_shows_two_labels_stays_in_train():
    records = [clip("rare.mp4", "a", "d", "e"), *(clip(f"{n}.mp4", "a") for n in range(3))]
    for seed in range(20):
        kept, held = hold_out(records, 0.5, seed, "test")
        assert records[0] in kept
        assert 1 <= len(held) <= 2


def test_the_seed_and_the_purpose_choose_and_later_clips_hardly_matter():
    records = [clip(f"{label}{n}.mp4", label) for label in "ab" for n in range(30)]

    def held(seed: int, purpose: str = "test", clips=records) -> set[str]:
        return {record.name for record in hold_out(clips, 0.2, seed, purpose)[1]}

    assert held(0) == held(0)
    assert held(0) != held(1)
    assert held(0) != held(0, "validation")
    grown = held(0, clips=[*records, clip("new.mp4", "a")])
    assert len(held(0) ^ grown) <= 2


def test_given_splits_stay_and_absent_ones_are_held_out():
    train = [clip(f"{label}{n}.mp4", label) for label in "ab" for n in range(20)]
    test = (clip("t.mp4", "a"),)
    splits, warnings = complete({"train": train, "test": test}, DataConfig())
    assert splits["test"] == test
    assert len(splits["validation"]) == 6
    assert len(splits["train"]) == 34
    assert warnings == ()
    every, _ = complete({"train": train}, DataConfig())
    sources = [{record.source for record in records} for records in every.values()]
    assert sum(map(len, sources)) == len(set().union(*sources)) == 40


def test_too_few_clips_are_said():
    lonely = [clip("a.mp4", "a"), clip("b.mp4", "b")]
    splits, warnings = complete({"train": lonely}, DataConfig())
    assert len(splits["train"]) == 2
    assert [warning.split(":")[0] for warning in warnings] == ["no test split", "no validation split"]
    uneven = [clip("a.mp4", "a"), *(clip(f"b{n}.mp4", "b") for n in range(10))]
    _, warnings = complete({"train": uneven}, DataConfig())
    assert any("test split has no clip of a" in warning for warning in warnings)
    assert complete({"train": lonely}, DataConfig(test_share=0, validation_share=0))[1] == ()
