"""The frame at a time is exactly the one shown then: any codec, any timestamps, any orientation."""

from bisect import bisect_right
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_builders import level, number_of, plain_pictures, tone, write_media

from avtune.media import decode, probe

TOLERANCE = 1e-6

# suffix, encoder, pixel format, options: every way in which frames come out of a decoder differently.
CODECS = {
    "h264 with B-frames": (".mp4", "libx264", "yuv420p", {"bf": "3", "g": "12", "b_strategy": "0"}),
    "h264 one key frame": (".mp4", "libx264", "yuv420p", {"g": "1000"}),
    "h264 intra": (".mkv", "libx264", "yuv420p", {"g": "1"}),
    "h264 4:4:4": (".mp4", "libx264", "yuv444p", {}),
    "h264 10 bit": (".mp4", "libx264", "yuv420p10le", {}),
    "h264 full range": (".mp4", "libx264", "yuvj420p", {}),
    "hevc": (".mp4", "libx265", "yuv420p", {}),
    "hevc 10 bit": (".mkv", "libx265", "yuv420p10le", {}),
    "vp8": (".webm", "libvpx", "yuv420p", {"b": "2M"}),
    "vp9": (".webm", "libvpx-vp9", "yuv420p", {"cpu-used": "8"}),
    "av1": (".mp4", "libsvtav1", "yuv420p", {"preset": "12", "svtav1-params": "lp=1"}),
    "mpeg4": (".mp4", "mpeg4", "yuv420p", {"b": "2M"}),
    "mpeg4 in avi": (".avi", "mpeg4", "yuv420p", {"b": "2M"}),
    "mjpeg": (".mov", "mjpeg", "yuvj420p", {}),
    "mjpeg 4:4:4 in avi": (".avi", "mjpeg", "yuvj444p", {}),
    "ffv1 gray": (".mkv", "ffv1", "gray", {}),
    "ffv1 gray 16 bit": (".mkv", "ffv1", "gray16le", {}),
    "ffv1 with alpha": (".mkv", "ffv1", "yuva444p", {}),
    "ffv1 4:2:2 10 bit": (".mkv", "ffv1", "yuv422p10le", {}),
    "png rgba": (".mov", "png", "rgba", {}),
    "gif palette": (".gif", "gif", "gray", {}),
    "quicktime animation": (".mov", "qtrle", "rgb24", {}),
    "prores": (".mov", "prores_ks", "yuv422p10le", {}),
}


@pytest.mark.parametrize("name", CODECS)
def test_every_frame_of_every_codec(name: str, tmp_path: Path) -> None:
    suffix, codec, pixel_format, options = CODECS[name]
    count = 25
    path = write_media(
        tmp_path / f"clip{suffix}",
        pictures=plain_pictures(count, 64, 64),
        video_codec=codec,
        pixel_format=pixel_format,
        video_options=options,
    )
    info = probe(path)
    assert info.video is not None
    assert (info.video.width, info.video.height) == (64, 64)
    assert info.duration == pytest.approx(count / 10, abs=0.11)
    middles = [k / 10 + 0.05 for k in range(count)]
    starts = [k / 10 for k in range(count)]
    for times in (middles, starts):
        clip = decode(path, times)
        assert clip.frames is not None
        assert clip.waveform is None
        assert [number_of(frame) for frame in clip.frames] == list(range(count))
        assert all(frame.shape == (64, 64, 3) and frame.dtype == np.uint8 for frame in clip.frames)
        assert not clip.damage.any, clip.damage


VARIABLE_TIMES = [0, 40, 50, 51, 500, 510, 1200, 1233, 1267, 1300, 3000, 3001, 3500]


@pytest.fixture(scope="module")
def variable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(
        tmp_path_factory.mktemp("variable") / "variable.mkv",
        pictures=plain_pictures(len(VARIABLE_TIMES)),
        times_ms=VARIABLE_TIMES,
        video_options={"bf": "2", "b_strategy": "0"},
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    times=st.lists(
        st.floats(-1.0, 5.0)
        | st.sampled_from([(t + late) / 1000 for t in VARIABLE_TIMES for late in (-0.1, 0, 0.1)]),
        min_size=1,
        max_size=12,
    )
)
def test_variable_frame_rate_by_definition(variable: Path, times: list[float]) -> None:
    frames = decode(variable, times).frames
    assert frames is not None
    shown = [max(bisect_right([t / 1000 for t in VARIABLE_TIMES], t + TOLERANCE) - 1, 0) for t in times]
    assert [number_of(frame) for frame in frames] == shown


def test_thirty_frames_a_second_at_every_start_in_floats(tmp_path: Path) -> None:
    path = write_media(tmp_path / "thirty.mp4", pictures=plain_pictures(40), rate=30)
    clip = decode(path, [k / 30 for k in range(40)] + [k * (1 / 30) for k in range(40)])
    assert clip.frames is not None
    assert [number_of(frame) for frame in clip.frames] == [*range(40), *range(40)]


def test_timestamps_of_avi_come_from_its_decoding_order(tmp_path: Path) -> None:
    """AVI stores none; with B-frames FFmpeg then shows every frame one interval late, and so do we."""
    path = write_media(
        tmp_path / "clip.avi",
        pictures=plain_pictures(20),
        video_codec="mpeg4",
        video_options={"b": "2M", "bf": "2"},
    )
    with av.open(str(path)) as container:
        shown = [
            (float(frame.time), number_of(frame.to_ndarray(format="rgb24"))) for frame in container.decode()
        ]
    assert [number for _, number in shown] == list(range(20))
    assert shown[0][0] == pytest.approx(0.1)
    frames = decode(path, [time + 0.01 for time, _ in shown]).frames
    assert frames is not None
    assert [number_of(frame) for frame in frames] == list(range(20))


def test_decoding_stops_after_the_last_time_asked_for(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "long.mp4", pictures=plain_pictures(40), video_options={"tune": "zerolatency"}
    )
    clip = decode(path, [1.05])
    assert 11 < clip.damage.frames_decoded <= 13
    assert decode(path, []).frames == []
    assert decode(path, []).damage.frames_decoded == 0


def test_order_repeats_and_shared_objects(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", pictures=plain_pictures(20))
    seen: list[int] = []

    def note(picture: np.ndarray) -> list[int]:
        seen.append(number_of(picture))
        return [number_of(picture)]

    clip = decode(path, [1.5, 0.31, 0.39, 0.0, 1.5], on_frame=note)
    assert clip.frames == [[15], [3], [3], [0], [15]]
    assert clip.frames[1] is clip.frames[2]
    assert clip.frames[0] is clip.frames[4]
    assert seen == [0, 3, 15]
    assert clip.times.tolist() == [1.5, 0.31, 0.39, 0.0, 1.5]


def test_times_past_the_end_get_the_last_frame_and_are_counted(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", pictures=plain_pictures(10))
    clip = decode(path, [0.95, 1.0, 1.05, 7.0])
    assert clip.frames is not None
    assert [number_of(frame) for frame in clip.frames] == [9, 9, 9, 9]
    assert clip.damage.frames_repeated == 2
    assert clip.damage.any


def test_one_frame(tmp_path: Path) -> None:
    path = write_media(tmp_path / "one.mp4", pictures=plain_pictures(1))
    clip = decode(path, [-1.0, 0.0, 0.05])
    assert clip.frames is not None
    assert [number_of(frame) for frame in clip.frames] == [0, 0, 0]
    assert clip.duration == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format"),
    [
        (".mkv", "ffv1", "gray"),
        (".gif", "gif", "gray"),
        (".mov", "png", "rgb24"),
        (".mp4", "libx264", "yuv444p"),
    ],
)
def test_one_pixel(suffix: str, codec: str, pixel_format: str, tmp_path: Path) -> None:
    path = write_media(
        tmp_path / f"pixel{suffix}",
        pictures=plain_pictures(8, 1, 1),
        video_codec=codec,
        pixel_format=pixel_format,
    )
    frames = decode(path, [k / 10 + 0.05 for k in range(8)]).frames
    assert frames is not None
    assert [number_of(frame) for frame in frames] == list(range(8))
    assert frames[0].shape == (1, 1, 3)


def test_odd_sizes(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "odd.mkv", pictures=plain_pictures(5, 37, 23), video_codec="ffv1", pixel_format="yuv420p"
    )
    frames = decode(path, [0.25]).frames
    assert frames is not None
    assert frames[0].shape == (23, 37, 3)
    assert number_of(frames[0]) == 2


CORNERS = np.zeros((32, 64, 3), np.uint8)
CORNERS[:16, :32], CORNERS[:16, 32:], CORNERS[16:, :32], CORNERS[16:, 32:] = 40, 90, 150, 220
FIXED_ONE = 1 << 16


def _corners(picture: np.ndarray) -> list[int]:
    height, width = picture.shape[:2]
    return [
        int(picture[y, x].mean())
        for y, x in ((2, 2), (2, width - 3), (height - 3, 2), (height - 3, width - 3))
    ]


@pytest.mark.parametrize(
    "a_b_c_d",
    [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)],
)
def test_every_display_matrix(a_b_c_d: tuple[int, int, int, int], tmp_path: Path) -> None:
    a, b, c, d = a_b_c_d
    matrix = [a * FIXED_ONE, b * FIXED_ONE, 0, c * FIXED_ONE, d * FIXED_ONE, 0, 0, 0, 1 << 30]
    path = write_media(
        tmp_path / "turned.mp4",
        pictures=[CORNERS],
        pixel_format="yuv444p",
        prepare=lambda stream: stream.set_display_matrix(matrix),
    )
    frames = decode(path, [0.0]).frames
    assert frames is not None
    # The matrix sends the point (x, y) to (a x + c y, b x + d y); the picture moves into that quadrant.
    expected = {}
    for name, (x, y) in {40: (-2, -1), 90: (2, -1), 150: (-2, 1), 220: (2, 1)}.items():
        expected[(a * x + c * y > 0, b * x + d * y > 0)] = name
    order = [expected[(right, below)] for below in (False, True) for right in (False, True)]
    assert frames[0].shape == ((32, 64, 3) if a else (64, 32, 3))
    assert np.abs(np.array(_corners(frames[0])) - order).max() <= 4
    info = probe(path).video
    assert info is not None
    assert (info.height, info.width) == frames[0].shape[:2]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_is_numpys(rotation: int, tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "turned.mp4",
        pictures=[CORNERS],
        pixel_format="yuv444p",
        prepare=lambda stream: stream.set_display_rotation(rotation),
    )
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0))
    info = probe(path).video
    assert info is not None
    assert info.rotation == rotation
    frames = decode(path, [0.0]).frames
    assert frames is not None
    assert np.array_equal(frames[0], np.rot90(stored.to_ndarray(format="rgb24"), k=stored.rotation // 90))


@pytest.mark.parametrize("colorspace", [1, 5, 9])
@pytest.mark.parametrize("color_range", [1, 2])
def test_colour_matrix_and_range_are_respected(colorspace: int, color_range: int, tmp_path: Path) -> None:
    """A colour of known YCbCr decodes by the matrix and the range of its tags."""
    red_weight, blue_weight = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[colorspace]
    path = tmp_path / "colour.mkv"
    luma, blue, red = 110, 100, 160
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv444p"
        stream.codec_context.colorspace = colorspace
        stream.codec_context.color_range = color_range
        planes = np.broadcast_to(np.array([luma, blue, red], np.uint8)[:, None, None], (3, 16, 16))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="yuv444p")
        frame.colorspace, frame.color_range = colorspace, color_range
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    y, cb, cr = (
        ((luma - 16) / 219, (blue - 128) / 224, (red - 128) / 224)
        if color_range == 1
        else (luma / 255, (blue - 128) / 255, (red - 128) / 255)
    )
    r = y + 2 * (1 - red_weight) * cr
    b = y + 2 * (1 - blue_weight) * cb
    g = (y - red_weight * r - blue_weight * b) / (1 - red_weight - blue_weight)
    frames = decode(path, [0.0]).frames
    assert frames is not None
    assert np.abs(frames[0][8, 8] - 255 * np.array([r, g, b])).max() < 2


def test_cover_art_is_not_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        audio = container.add_stream("aac", rate=16000, layout="mono")
        container.mux(cover.encode(av.VideoFrame.from_ndarray(plain_pictures(1)[0])))
        container.mux(cover.encode(None))
        for start in range(0, 32000, 1024):
            frame = av.AudioFrame.from_ndarray(tone(2, 16000)[None, start : start + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    info = probe(path)
    assert info.video is None
    assert info.audio is not None
    clip = decode(path, [0.5])
    assert clip.frames is None
    assert clip.waveform is not None
    assert len(clip.waveform) >= 31900


def test_two_video_streams_use_the_default_one(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for offset, disposition in ((0, 0), (10, av.stream.Disposition.default)):
            stream = container.add_stream("ffv1", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "gray"
            stream.disposition = disposition
            streams.append((offset, stream))
        for offset, stream in streams:
            for k in range(5):
                picture = np.full((32, 32, 3), level(offset + k), np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = k
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    frames = decode(path, [0.05, 0.25]).frames
    assert frames is not None
    assert [number_of(frame) for frame in frames] == [10, 12]


def test_transport_stream_does_not_start_at_zero(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "clip.ts",
        pictures=plain_pictures(40),
        video_codec="mpeg2video",
        rate=25,
        video_options={"b": "4M", "bf": "2"},
    )
    with av.open(str(path)) as container:
        assert container.streams.video[0].start_time > 0
    clip = decode(path, [(k + 0.5) / 25 for k in range(40)])
    assert clip.frames is not None
    assert [number_of(frame) for frame in clip.frames] == list(range(40))


@pytest.mark.parametrize(
    "name", ["clip 1.mp4", "50%.mp4", "a#b?.mp4", "音と映像 é.mp4", "%03d.mp4", "http:x.mp4", "-i.mp4"]
)
def test_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_media(tmp_path / "plain.mp4", pictures=plain_pictures(3)).rename(tmp_path / name)
    for path in (tmp_path / name, Path(name), name):
        frames = decode(path, [0.25]).frames
        assert frames is not None
        assert number_of(frames[0]) == 2
