"""Leaving out what nothing shown depends on changes no frame by one bit, in healthy files and in damaged ones."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_builders import tone, write_media

from avtune.datasets import Collection, Record
from avtune.datasets.check import check
from avtune.media import Clip, decode
from avtune.media.sparing import NeedsEveryFrame, PacketPlan

COUNT = 40
# suffix, x264 options, presentation times in milliseconds: the ways in which pictures of H.264 refer to each other.
STREAMS = {
    "pyramid of B-frames": (
        ".mp4",
        {"g": "15", "bf": "5", "x264-params": "b-pyramid=normal:b-adapt=0"},
        None,
    ),
    "one key frame": (".mp4", {"g": "1000", "bf": "3"}, None),
    "no B-frames": (".mp4", {"g": "10", "bf": "0"}, None),
    "temporal direct": (".mp4", {"g": "12", "bf": "3", "x264-params": "direct=temporal:weightb=1"}, None),
    "open groups": (".mp4", {"g": "8", "bf": "3", "x264-params": "open-gop=1"}, None),
    "intra refresh": (".mp4", {"x264-params": "intra-refresh=1:keyint=10"}, None),
    "many references, slices": (".mp4", {"g": "20", "bf": "2", "x264-params": "ref=8:slices=4"}, None),
    "interlaced": (".mp4", {"g": "12", "bf": "2", "x264-params": "interlaced=1"}, None),
    "transport stream": (".ts", {"g": "12", "bf": "3"}, None),
    "Matroska": (".mkv", {"g": "12", "bf": "3"}, None),
    "variable frame rate": (".mp4", {"g": "12", "bf": "3"}, [int(100 * k**1.2) for k in range(COUNT)]),
    "AVI": (".avi", {"g": "12", "bf": "2"}, None),
}


def scene() -> list[np.ndarray]:
    """Detail that moves, so that no two frames and no two references are alike."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (24, 32, 3)).repeat(4, 0).repeat(4, 1)
    still = [np.roll(coarse, (k, 2 * k), (0, 1)) for k in range(COUNT)]
    return [(0.8 * picture + rng.integers(0, 50, picture.shape)).astype(np.uint8) for picture in still]


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sparing")
    pictures = scene()
    files = {}
    for name, (suffix, options, times_ms) in STREAMS.items():
        files[name] = write_media(
            folder / f"{name}{suffix}",
            pictures=pictures,
            times_ms=times_ms,
            video_options=options,
            sound=tone(4, 48000),
            audio_codec="mp2" if suffix in (".ts", ".avi") else "aac",
        )
    files["edit list"] = remux(files["pyramid of B-frames"], folder / "cut.mp4", first=7)
    files["lost pictures"] = remux(files["pyramid of B-frames"], folder / "lost.mp4", lost={5, 6, 20, 33})
    files["lost without a trace"] = remux(files["no B-frames"], folder / "trace.mp4", lost={13, 24})
    return files


def remux(source: Path, path: Path, first: int = 0, lost: frozenset[int] | set[int] = frozenset()) -> Path:
    """Copies the video packets, so that presentation begins in the middle or without some of them."""
    with av.open(str(source)) as original, av.open(str(path), "w") as copy:
        video = original.streams.video[0]
        stream = copy.add_stream_from_template(video)
        for index, packet in enumerate(original.demux(video)):
            if packet.size and index not in lost:
                shift = first * packet.duration
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                copy.mux(packet)
    return path


def assert_same(sparing: Clip, whole: Clip) -> None:
    # Numbers of decoded frames may differ either way: decoding in order stops at the first frame, its group unread.
    assert (sparing.frames is None) == (whole.frames is None)
    for one, other in zip(sparing.frames or [], whole.frames or [], strict=True):
        assert np.array_equal(one, other)
    assert (sparing.waveform is None) == (whole.waveform is None)
    if sparing.waveform is not None:
        assert np.array_equal(sparing.waveform, whole.waveform)
    assert sparing.duration == whole.duration


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from([*STREAMS, "edit list", "lost pictures", "lost without a trace"]),
    times=st.lists(st.floats(-0.5, 5.0) | st.integers(0, COUNT).map(lambda k: k / 10), max_size=8),
)
def test_frames_are_those_of_decoding_all(streams: dict[str, Path], name: str, times: list[float]) -> None:
    sparing, whole = (decode(streams[name], times, every_frame=every) for every in (False, True))
    assert_same(sparing, whole)
    assert sparing.damage == replace(whole.damage, frames_decoded=sparing.damage.frames_decoded)


def test_packets_that_cannot_be_told_apart_are_all_decoded(
    streams: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise av.error.InvalidDataError(1094995529, "Invalid data found when processing input")

    path, times = streams["pyramid of B-frames"], [0.5, 2.5]
    whole = decode(path, times, every_frame=True)
    # As FFmpeg does where the header of the pictures is damaged.
    monkeypatch.setattr("avtune.media.sparing.BitStreamFilterContext", refuse)
    assert_same(decode(path, times), whole)


@pytest.mark.parametrize("name", ["pyramid of B-frames", "one key frame", "transport stream", "edit list"])
def test_most_frames_are_left_out(name: str, streams: dict[str, Path]) -> None:
    times = [0.5, 1.5, 2.5]
    sparing, whole = (decode(streams[name], times, every_frame=every) for every in (False, True))
    assert sparing.damage.frames_decoded < 0.7 * whole.damage.frames_decoded


def test_what_follows_the_last_frame_before_a_key_frame_is_left_out(streams: dict[str, Path]) -> None:
    """Every picture is referred to; those at 0.1 and 2.1 are the second ones after key frames."""
    clip = decode(streams["no B-frames"], [0.1, 2.1], audio=False)
    # Two for each time, and the one after it, which by its times might be the second field of the same picture.
    assert clip.damage.frames_decoded == 6


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["pyramid of B-frames", "one key frame", "transport stream", "Matroska"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    kept=st.just(1.0) | st.floats(0.5, 1.0),
)
def test_damaged_files_give_the_same_frames(
    streams: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    changes: list[tuple[float, int]],
    kept: float,
) -> None:
    content = bytearray(streams[name].read_bytes())
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    path = tmp_path_factory.getbasetemp() / f"flipped{streams[name].suffix}"
    path.write_bytes(content[: int(len(content) * kept)])
    clips = []
    for every in (False, True):
        try:
            clips.append(decode(path, [0.25, 1.05, 1.55, 3.95], audio=False, every_frame=every))
        except av.FFmpegError:
            raise
        except Exception as error:
            clips.append(str(error))
    if isinstance(clips[1], str):
        assert clips[0] == clips[1]
    else:
        assert_same(*clips)


def test_damage_found_late_begins_anew(streams: dict[str, Path]) -> None:
    path = streams["lost pictures"].with_name("damaged.mp4")
    content = bytearray(streams["pyramid of B-frames"].read_bytes())
    with av.open(str(streams["pyramid of B-frames"])) as container:
        packet = [packet for packet in container.demux(video=0) if packet.is_keyframe][2]
        place = packet.pos
    content[place + 40 : place + 400 : 3] = bytes(len(range(place + 40, place + 400, 3)))
    path.write_bytes(content)
    clip, whole = (decode(path, [0.5, 1.2, 3.2, 3.8], every_frame=every) for every in (False, True))
    assert clip.damage.any
    assert clip.damage == whole.damage
    assert_same(clip, whole)


def packet(dts: int, pts: int | None, key: bool = False, duration: int = 10) -> SimpleNamespace:
    flags = {"is_keyframe": key, "is_corrupt": False, "is_discard": False}
    return SimpleNamespace(dts=dts, pts=pts, duration=duration, **flags)


def plan_of(limits: list[int], reorders: bool = False) -> PacketPlan:
    return PacketPlan(limits, 10.0, reorders, lambda packet: packet.is_keyframe)


def test_the_second_field_of_a_shown_picture_is_decoded() -> None:
    """Fields in packets of their own: key, key, then pairs, of which nobody refers to the second."""
    plan = plan_of([25])
    told = []
    for place in range(6):
        told += plan.push(packet(10 * place, 10 * place, key=place == 0))
    assert plan.complete
    assert [(one.pts, skip) for one, skip in told] == [
        (0, "DEFAULT"),
        (10, "DEFAULT"),
        (20, "DEFAULT"),
        (30, "DEFAULT"),
    ]


def test_what_nothing_refers_to_is_told_apart() -> None:
    """Two groups I P B B in decoding order; the B-frame at 10 and the second I are shown."""
    plan = plan_of([12, 40], reorders=True)
    order = [
        (0, True),
        (30, False),
        (10, False),
        (20, False),
        (40, True),
        (70, False),
        (50, False),
        (60, False),
    ]
    told = []
    for place, (pts, key) in enumerate(order):
        told += plan.push(packet(10 * (place - 2), pts, key))
    told += plan.finish()
    assert [(one.pts, skip) for one, skip in told] == [
        (0, "NONREF"),
        (30, "NONREF"),
        (10, "DEFAULT"),
        # By its times it might be the second field of the one before.
        (20, "DEFAULT"),
        (40, "DEFAULT"),
    ]


def test_times_that_ignore_the_order_of_frames_are_refused() -> None:
    plan = plan_of([15], reorders=True)
    for place in range(2):
        assert plan.push(packet(10 * place, 10 * place, key=place == 0)) == []
    with pytest.raises(NeedsEveryFrame):
        plan.push(packet(20, 20))


def test_a_gap_between_presentation_times_is_refused() -> None:
    """The third frame's time is damaged: the one shown at 25 may be another than the times say."""
    plan = plan_of([5, 25])
    for place, pts in enumerate([0, 10, 45, 30]):
        plan.push(packet(10 * place - 10, pts, key=place == 0))
    with pytest.raises(NeedsEveryFrame):
        plan.push(packet(30, 40))


@pytest.mark.parametrize(
    "packets",
    [
        [packet(0, 0)],
        [packet(0, None, key=True)],
        [packet(10, 0, key=True)],
        [packet(0, 0, key=True), packet(20, 20)],
        [packet(0, 0, key=True), packet(0, 10)],
        [packet(0, 0, key=True), packet(10, 20), packet(20, 20)],
    ],
    ids=["no key", "no time", "shown before decoded", "gap", "standing still", "same time twice"],
)
def test_what_is_not_certain_is_refused(packets: list[SimpleNamespace]) -> None:
    plan = plan_of([1000])
    *good, bad = packets
    for one in good:
        plan.push(one)
    with pytest.raises(NeedsEveryFrame):
        plan.push(bad)


def test_a_check_of_files_sees_damage_in_frames_that_nobody_asks_for(
    streams: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "late.mp4"
    content = bytearray(streams["no B-frames"].read_bytes())
    with av.open(str(streams["no B-frames"])) as container:
        # Key frames stand at whole seconds: nothing that is shown at half past refers to what comes at 0.8.
        packet = next(p for p in container.demux(video=0) if p.pts is not None and p.pts * p.time_base > 0.75)
        place, size = packet.pos, packet.size
    content[place + size // 3 : place + size] = bytes(size - size // 3)
    path.write_bytes(content)
    assert not decode(path, [0.5, 1.5, 2.5, 3.5]).damage.any
    report = check(Collection("folder", tmp_path, ("a",), {"train": (Record("late", path, ()),)}), workers=0)
    assert "damaged" in {problem.kind for problem in report.files[0].problems}
