"""Masks: every form a mask comes in, the nearest pixel, and one clear line for whatever is wrong."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageOps

from avtune.datasets import DatasetError, FrameFolder, MaskFiles, Record
from avtune.datasets.masks import UNLABELLED, load_masks, mask_folder, voc_palette
from avtune.media import write_video

# The first colours of PASCAL VOC, as its development kit lists them.
VOC = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
       (64, 0, 0), (192, 0, 0), (64, 128, 0))  # fmt: skip


def clip(
    folder: Path, pictures: list[Image.Image | None], *, frame: tuple[int, int] = (40, 20), **how: object
) -> Record:
    """An unpacked clip whose frames have a size, with masks of its seconds."""
    frames = folder / "frames"
    frames.mkdir(parents=True)
    Image.new("RGB", frame).save(frames / "0001.jpg")
    files: list[Path | None] = []
    for k, picture in enumerate(pictures):
        path = folder / f"{k}.png"
        files.append(None if picture is None else path)
        if picture is not None:
            picture.save(path)
    masks = MaskFiles(tuple(files), **how)  # type: ignore[arg-type]
    return Record("clip", FrameFolder(frames, folder / "sound.wav"), (), masks=masks)


def half(mode: str, value: object) -> Image.Image:
    """A picture of 40 x 20 whose left half has a value."""
    picture = Image.new(mode, (40, 20))
    picture.paste(value, (0, 0, 20, 20))  # type: ignore[arg-type]
    return picture


def palette_mask(*colours: int) -> Image.Image:
    """The left half has the second of the colours."""
    picture = half("P", 1)
    picture.putpalette(colours)
    return picture


def quantised() -> Image.Image:
    """The left half is white, which Pillow puts first into the palette that it makes."""
    picture = half("RGB", (255, 255, 255)).quantize(2)
    assert picture.getpixel((0, 0)) == 0
    return picture


def with_transparency(picture: Image.Image, transparency: int) -> Image.Image:
    picture.info["transparency"] = transparency
    return picture


@pytest.mark.parametrize(
    "picture",
    [
        half("1", 1),
        half("L", 255),
        half("L", 1),
        # The index 1 has a colour as dark as black, as in some of MS3's masks.
        palette_mask(0, 0, 0, 0, 0, 0, 255, 255, 255),
        ImageOps.mirror(palette_mask(255, 255, 255, 0, 0, 0)),
        quantised(),
        half("RGB", (0, 0, 7)),
        half("RGBA", (9, 0, 0, 255)),
        ImageChops.add(half("RGBA", (0, 0, 0, 1)), Image.new("RGBA", (40, 20), (255, 255, 255, 0))),
        ImageChops.add(half("LA", (0, 255)), Image.new("LA", (40, 20), (255, 0))),
        with_transparency(ImageChops.add(half("L", 100), Image.new("L", (40, 20), 100)), 100),
        with_transparency(palette_mask(255, 255, 255, 255, 255, 255), 0),
    ],
    ids=[
        "bits", "grey", "faint", "palette", "palette from white", "quantised", "colour", "opaque",
        "transparent white", "transparent grey", "transparent value", "transparent index",
    ],
)  # fmt: skip
def test_whatever_is_neither_black_nor_transparent_sounds(tmp_path: Path, picture: Image.Image) -> None:
    target = load_masks(clip(tmp_path, [picture]), 1, 8)
    assert target.dtype == torch.uint8
    expected = torch.zeros(1, 8, 8, dtype=torch.uint8)
    expected[:, :, :4] = 1
    assert torch.equal(target, expected)


def test_the_palette_is_that_of_pascal_voc() -> None:
    palette = voc_palette(71)
    assert palette[: len(VOC)] == VOC
    assert len(set(palette)) == 71


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999))
def test_colours_become_the_indices_they_were_made_from(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    indices = np.random.default_rng(seed).integers(0, 71, (16, 16))
    palette = voc_palette(71)
    picture = Image.fromarray(np.array(palette, dtype=np.uint8)[indices])
    record = clip(tmp_path_factory.mktemp("m"), [picture], frame=(16, 16), classes=palette)
    assert np.array_equal(load_masks(record, 1, 16)[0].numpy(), indices)


def test_a_colour_of_no_class_is_not_labelled(tmp_path: Path) -> None:
    picture = half("RGB", VOC[3])
    picture.putpixel((39, 19), (224, 224, 192))
    target = load_masks(clip(tmp_path, [picture], frame=(40, 20), classes=VOC), 1, 40)
    assert target.unique().tolist() == [0, 3, UNLABELLED]
    assert (target == UNLABELLED).sum() == 2


def test_a_transparent_pixel_is_of_no_class(tmp_path: Path) -> None:
    picture = half("RGBA", (*VOC[3], 255))
    picture.paste((*VOC[2], 0), (20, 0, 40, 20))
    target = load_masks(clip(tmp_path, [picture], classes=VOC), 1, 8)
    assert (target[:, :, :4] == 3).all()
    assert (target[:, :, 4:] == 0).all()


def test_resizing_takes_the_nearest_pixel_and_makes_no_new_value(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    palette = voc_palette(64)
    picture = Image.fromarray(np.array(palette, dtype=np.uint8)[values])
    record = clip(tmp_path, [picture], frame=(400, 400), classes=palette)
    assert np.array_equal(load_masks(record, 1, 16)[0].numpy(), values.repeat(2, axis=0).repeat(2, axis=1))
    assert np.array_equal(load_masks(record, 1, 4)[0].numpy(), values[1::2, 1::2])


def test_seconds_are_those_of_the_clips_section_and_the_rest_is_not_labelled(tmp_path: Path) -> None:
    record = clip(tmp_path, [half("L", 0), None, half("L", 255)])
    target = load_masks(record, 5, 4)
    assert (target[0] == 0).all()
    assert (target[[1, 3, 4]] == UNLABELLED).all()
    assert target[2].float().mean() == 0.5
    later = Record("clip", record.source, (), start=2.0, masks=record.masks)
    assert torch.equal(load_masks(later, 2, 4), target[2:4])


def test_a_clip_without_masks_says_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="clip has no masks; put them into masks/"):
        load_masks(Record("clip", tmp_path / "a.mp4", ()), 1, 4)


def refused(record: Record) -> str:
    with pytest.raises(DatasetError) as caught:
        load_masks(record, 1, 8)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_and_damaged_masks_are_named(tmp_path: Path) -> None:
    record = clip(tmp_path, [half("L", 255)])
    path = tmp_path / "0.png"
    whole = path.read_bytes()
    for content in (b"", b"no picture", whole[:40], whole[:-20], whole.replace(b"IDAT", b"IDAX")):
        path.write_bytes(content)
        assert "0.png is no PNG that can be decoded" in refused(record)
    half("RGB", (9, 9, 9)).save(path, format="JPEG")
    assert "is no PNG" in refused(record)
    path.unlink()
    assert "0.png is not there; restore the mask" in refused(record)


def test_a_mask_that_claims_too_many_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "is no PNG" in refused(clip(tmp_path, [half("L", 255)], frame=(4, 2)))


def test_another_shape_than_the_frames_is_an_error_and_another_resolution_is_none(tmp_path: Path) -> None:
    assert "0.png is 40x20, its frame 40x40" in refused(clip(tmp_path / "a", [half("L", 1)], frame=(40, 40)))
    # A mask of 40 x 20 was rounded from 2.01 to 1.
    load_masks(clip(tmp_path / "b", [half("L", 1)], frame=(1207, 600)), 1, 8)
    load_masks(clip(tmp_path / "c", [half("L", 1)], frame=(40, 40), squeezed=True), 1, 8)


@settings(max_examples=40, deadline=None)
@given(
    frame=st.tuples(st.integers(90, 400), st.integers(90, 400)),
    scale=st.floats(0.1, 1.5),
    rounded=st.sampled_from([math.floor, round, math.ceil]),
    beyond=st.integers(2, 9),
)
def test_a_resolution_may_be_rounded_and_not_a_shape_be_changed(
    frame: tuple[int, int],
    scale: float,
    rounded: Callable[[float], int],
    beyond: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    width, height = (rounded(side * scale) for side in frame)
    folder = tmp_path_factory.mktemp("m")
    load_masks(clip(folder / "right", [Image.new("L", (width, height))], frame=frame), 1, 8)
    # Two pixels beyond what rounding made of the shorter side are always too many.
    wide = frame[0] > frame[1]
    other = (width, height + beyond) if wide else (width + beyond, height)
    refused(clip(folder / "wrong", [Image.new("L", other)], frame=frame))


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 2), (7, 7), (24, 16), (160, 90)])
def test_a_mask_that_shows_no_shape_or_another_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    message = refused(clip(tmp_path, [Image.new("L", size, 255)], frame=(160, 160)))
    assert f"0.png is {size[0]}x{size[1]}, its frame 160x160; draw masks over whole frames" in message
    assert "8 pixels a side or more" in message


def test_a_videos_own_shape_counts(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    write_video(video, [np.zeros((32, 64, 3), np.uint8)] * 3, 5)
    half("L", 255).save(tmp_path / "0.png")
    masks = MaskFiles((tmp_path / "0.png",))
    assert load_masks(Record("a", video, (), masks=masks), 1, 8).sum() == 32
    half("L", 255).resize((20, 20)).save(tmp_path / "0.png")
    assert "its frame 64x32" in refused(Record("a", video, (), masks=masks))


def test_masks_of_ones_own_are_named_by_their_seconds(tmp_path: Path) -> None:
    assert mask_folder(tmp_path) is None
    assert mask_folder(tmp_path / "absent") is None
    for second in (0, 2, 11):
        half("L", 1).save(tmp_path / f"{second}.png")
    found = mask_folder(tmp_path)
    assert found is not None
    assert len(found.files) == 12
    assert [k for k, path in enumerate(found.files) if path is not None] == [0, 2, 11]
    for name in ("first.png", "01.png", "-1.png", "86401.png", "20000000.png"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(DatasetError, match="is not named by its second"):
            mask_folder(tmp_path)
        (tmp_path / name).unlink()
