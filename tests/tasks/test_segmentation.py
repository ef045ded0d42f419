"""The segmentation task: truth, losses by hand, sums that no batch changes, floors, predictions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from avtune.config import HeadConfig, InputConfig, RunConfig, TrainConfig, VideoInput
from avtune.datasets import Event, FrameFolder, MaskFiles, Record
from avtune.datasets.masks import UNLABELLED, voc_palette
from avtune.encoder import Encoded
from avtune.errors import AvtuneError
from avtune.fusion import Notes
from avtune.heads.segmentation import PIXELS, SOUNDS, matching_divergence
from avtune.metrics.segmentation import mask_ious
from avtune.tasks import MaskPrediction, SegmentationTask, Truth, Window, create_task
from avtune.train.augmentation import augment
from avtune.transforms import Batch

LABELS = ("dog", "horn")
SIZE = 32


def task(
    semantic: bool = False, segments: int = 3, labels: tuple[str, ...] = LABELS, **options: object
) -> SegmentationTask:
    head = HeadConfig(
        task="segmentation",
        preset="semantic" if semantic else "s4",
        options={"size": SIZE, "matching": 0.0, "channels": [2, 2, 2, 2], "width": 4, **options},
    )
    found = create_task(labels, InputConfig(segments=segments), head)
    assert isinstance(found, SegmentationTask)
    return found


def batch(target: torch.Tensor, valid: torch.Tensor | None = None) -> Batch:
    clips, segments = target.shape[:2]
    here = torch.ones(clips, dtype=torch.bool)
    return Batch(
        frames=torch.zeros(clips, segments, 3, 4, 4, dtype=torch.uint8), spectrogram=torch.zeros(clips, segments, 2, 2),
        has_audio=here, has_video=here, valid=torch.ones(clips, segments, dtype=torch.bool) if valid is None else valid,
        target=target, names=[f"clip {k}" for k in range(clips)],
    )  # fmt: skip


def encoded(notes: Notes | None = None) -> Encoded:
    blank = torch.zeros(1)
    return Encoded(blank, blank, blank, blank, notes or Notes())


def clips(
    classes: int, clips: int = 4, segments: int = 3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, truth with an unlabelled frame and pixels, and which segments exist."""
    torch.manual_seed(seed)
    logits = torch.randn(clips, segments, max(classes, 1), SIZE, SIZE)
    target = torch.randint(0, max(classes, 2), (clips, segments, SIZE, SIZE)).to(torch.uint8)
    target[0, 1] = UNLABELLED
    target[1, 0, :5] = UNLABELLED
    target[2, 2] = 0
    valid = torch.ones(clips, segments, dtype=torch.bool)
    valid[3, 1:] = False
    return logits, target, valid


def test_the_loss_is_binary_cross_entropy_over_labelled_frames_that_exist() -> None:
    logits, target, valid = clips(1)
    found = task().loss(logits, encoded(), batch(target, valid))
    expected, count = 0.0, 0
    for b in range(4):
        for t in range(3):
            told = target[b, t] != UNLABELLED
            if valid[b, t] and told.any():
                p = logits[b, t, 0][told].double().sigmoid()
                y = target[b, t][told].double()
                expected += float(-(y * p.log() + (1 - y) * (1 - p).log()).mean())
                count += 1
    assert found.count == count == 9
    assert float(found.total) == pytest.approx(expected, rel=1e-5)


def test_s4_learns_from_the_first_frame_alone() -> None:
    logits, target, _ = clips(1)
    target[:] = target % 2
    target[:, 1:] = UNLABELLED
    logits.requires_grad_()
    found = task().loss(logits, encoded(), batch(target))
    found.total.backward()
    assert found.count == 4
    assert logits.grad is not None
    assert logits.grad[:, 0].all()
    assert not logits.grad[:, 1:].any()
    first = F.binary_cross_entropy(logits[:, 0, 0].detach().sigmoid(), target[:, 0].float(), reduction="mean")
    assert float(found.total.detach()) / 4 == pytest.approx(float(first), rel=1e-5)


def test_the_semantic_loss_is_cross_entropy_without_unlabelled_pixels() -> None:
    logits, target, valid = clips(3)
    found = task(semantic=True).loss(logits, encoded(), batch(target, valid))
    expected = 0.0
    for b in range(4):
        for t in range(3):
            told = target[b, t] != UNLABELLED
            if valid[b, t] and told.any():
                scores = logits[b, t].log_softmax(0).permute(1, 2, 0)[told]
                expected += float(-scores.gather(1, target[b, t][told].long()[:, None]).mean())
    assert found.count == 9
    assert float(found.total) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("semantic", [False, True])
def test_matching_is_added_over_the_same_frames(semantic: bool) -> None:
    logits, target, valid = clips(3 if semantic else 1)
    notes = Notes(segments=3)
    for side in (4, 2):
        notes.record(PIXELS, torch.randn(4, 3, 4, side, side))
        notes.record(SOUNDS, torch.randn(4, 3, 4))
    plain = task(semantic).loss(logits, encoded(), batch(target, valid))
    matched = task(semantic, matching=2.5).loss(logits, encoded(notes), batch(target, valid))
    divergence = matching_divergence(logits, notes.records[PIXELS], notes.records[SOUNDS])
    counted = valid.clone()
    counted[0, 1] = False
    assert matched.count == plain.count
    assert float(matched.total - plain.total) == pytest.approx(
        2.5 * float(divergence[counted].sum()), rel=1e-4
    )


def test_a_batch_in_which_nothing_is_labelled_counts_nothing_and_has_a_gradient() -> None:
    for semantic, classes in ((False, 1), (True, 3)):
        logits, target, _ = clips(classes)
        target[:] = UNLABELLED
        logits.requires_grad_()
        found = task(semantic).loss(logits, encoded(), batch(target))
        found.total.backward()
        assert (float(found.total.detach()), found.count) == (0.0, 0)
        assert logits.grad is not None
        assert not logits.grad.any()
        assert task(semantic).score(task(semantic).tally(logits.detach(), batch(target))).value == 0.0


def test_the_score_is_the_mean_over_frames_that_exist_and_are_labelled() -> None:
    logits, target, valid = clips(1)
    target[1, 0] = 1
    ours = task()
    scores = ours.score(ours.tally(logits, batch(target, valid)))
    kept = valid.clone()
    kept[0, 1] = False
    ious = mask_ious(logits[:, :, 0][kept].sigmoid(), target[kept])
    assert scores.value == pytest.approx(ious.mean())
    sounding = np.array([bool(mask.any()) for mask in target[kept]])
    assert scores.details["miou_sounding"] == pytest.approx(ious[sounding].mean())
    assert (scores.details["frames"], scores.details["sounding_frames"]) == (9, 8)
    assert scores.details["videos"] == 4


@pytest.mark.parametrize("semantic", [False, True])
def test_scores_do_not_depend_on_batches_or_their_order(semantic: bool) -> None:
    logits, target, valid = clips(3 if semantic else 1, clips=4)
    ours = task(semantic)
    whole = ours.score(ours.tally(logits, batch(target, valid)))
    single = [ours.tally(logits[k : k + 1], batch(target[k : k + 1], valid[k : k + 1])) for k in (2, 0, 3, 1)]
    apart = ours.score(single[0] + single[1] + (single[2] + single[3]))
    assert apart.value == pytest.approx(whole.value)
    assert apart.details == pytest.approx(whole.details) if not semantic else apart.details["frames"] == 9
    changed = logits.clone()
    changed[~valid] = 100.0
    changed[0, 1] = -100.0
    again = ours.score(ours.tally(changed, batch(target, valid)))
    assert again.value == whole.value


def test_semantic_scores_name_every_class() -> None:
    ours = task(semantic=True)
    target = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    target[:, :, :16] = 2
    logits = F.one_hot(target.long(), 3).permute(0, 1, 4, 2, 3).float()
    logits[:, 2] = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    scores = ours.score(ours.tally(logits, batch(target)))
    rows = {row["label"]: row for row in scores.details["per_class"]}
    assert list(rows) == ["silent", "dog", "horn"] == list(ours.class_names)
    # Two frames are right; in the third all is called silent, half of it rightly.
    assert rows["silent"]["iou"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert rows["horn"]["iou"] == pytest.approx(2 / 3)
    assert rows["dog"]["iou"] is None
    assert [rows[name]["frames"] for name in rows] == [3, 0, 3]
    assert scores.value == pytest.approx((2.5 / 3 + 2 / 3) / 3)
    assert scores.details["miou_present"] == pytest.approx((2.5 / 3 + 2 / 3) / 2)


def test_foreground_are_the_segments_with_a_sounding_pixel_of_whole_clips() -> None:
    target = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
    target[:, 0, 0, 0] = 1
    target[:, 1] = UNLABELLED
    target[:, 2, 3, 3] = 2
    valid = torch.tensor([[True, True, True], [True, True, False]])
    whole = batch(target, valid)
    assert task().foreground(whole).tolist() == [True, False, True, True, False, False]
    deaf = replace(whole, has_audio=torch.tensor([True, False]))
    assert task().foreground(deaf).tolist() == [True, False, True, False, False, False]


def test_floors_answer_without_looking() -> None:
    target = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    target[:2, :8] = 1
    target[0, 8:16] = 1
    target[2, 20:] = UNLABELLED
    scored = batch(target[None])
    ours = task()
    rules = ours.blind_answers([Truth(target)])
    assert list(rules) == ["all silent", "mean mask"]
    silent = ours.score(ours.tally(rules["all silent"](scored), scored))
    # Two frames that sound score nothing, the third is rightly empty.
    assert silent.value == pytest.approx(1 / 3)
    mean = rules["mean mask"](scored)
    assert mean.shape == (1, 3, 1, SIZE, SIZE)
    likely = mean[0, 0, 0].sigmoid()
    torch.testing.assert_close(likely[:8], torch.full((8, SIZE), 2 / 3))
    torch.testing.assert_close(likely[8:16], torch.full((8, SIZE), 1 / 3))
    assert (likely[16:] < 1e-5).all()

    ours = task(semantic=True)
    target[:2, :8] = 2
    rules = ours.blind_answers([Truth(target), Truth(torch.full_like(target, UNLABELLED))])
    scored = batch(target[None])
    assert (rules["all silent"](scored).argmax(2) == 0).all()
    answer = rules["mean mask"](scored).argmax(2)
    assert answer.shape == (1, 3, SIZE, SIZE)
    assert (answer[:, :, :8] == 2).all()
    assert (answer[:, :, 16:] == 0).all()


def record(folder: Path, picture: Image.Image, events: tuple[Event, ...] = (), **how: object) -> Record:
    files = []
    for second in range(3):
        files.append(folder / f"{second}.png")
        picture.save(files[-1])
    masks = MaskFiles(tuple(files), **how)  # type: ignore[arg-type]
    return Record("clip", FrameFolder(folder / "frames", folder / "sound.wav"), events, masks=masks)


def test_binary_truth_of_coloured_masks_is_whatever_sounds(tmp_path: Path) -> None:
    picture = Image.new("RGB", (SIZE, SIZE), voc_palette(3)[2])
    picture.paste((9, 9, 9), (0, 0, SIZE, 4))
    target = task().target(record(tmp_path, picture, classes=voc_palette(3)))
    assert (target[:, :4] == UNLABELLED).all()
    assert (target[:, 4:] == 1).all()
    assert (task(semantic=True).target(record(tmp_path, picture, classes=voc_palette(3)))[:, 4:] == 2).all()


def test_masks_without_colours_take_the_class_of_their_seconds_only_event(tmp_path: Path) -> None:
    picture = Image.new("L", (SIZE, SIZE))
    picture.paste(255, (0, 0, SIZE, 8))
    events = (Event("horn", 0, 1), Event("horn", 1, 2), Event("dog", 1.5, 2))
    target = task(semantic=True).target(record(tmp_path, picture, events))
    assert (target[:, 8:] == 0).all()
    assert [int(mask[:8].unique()) for mask in target] == [2, UNLABELLED, UNLABELLED]
    later = replace(record(tmp_path, picture, events), start=2.0)
    assert (task(semantic=True).target(later)[1:] == UNLABELLED).all()


def test_mirrored_frames_have_mirrored_masks() -> None:
    target = torch.zeros(8, 2, SIZE, SIZE, dtype=torch.uint8)
    target[..., 0] = 1
    clips = batch(target)
    clips.frames[..., 0] = 255
    changed = augment(clips, RunConfig(train=TrainConfig(flip=0.5, crop_segments=1)), task(), epoch=0)
    assert changed.target is not None
    assert changed.target.shape == (8, 1, SIZE, SIZE)
    left = changed.frames[:, 0, 0, 0, 0] == 255
    assert 0 < int(left.sum()) < 8
    for k in range(8):
        column = 0 if left[k] else -1
        assert (changed.target[k, ..., column] == 1).all()
        assert int(changed.target[k].sum()) == SIZE


def window(start: float, valid: int, **parts: np.ndarray) -> Window:
    return Window(start, np.arange(3) < valid, ("a note",), parts)


def test_overlapping_windows_average_probabilities() -> None:
    first = np.full((3, 2, 2), 0.2, np.float32)
    second = np.full((3, 2, 2), 0.9, np.float32)
    found = task().predict(
        Path("a.mp4"), [window(0, 3, probabilities=first), window(2, 2, probabilities=second)]
    )
    assert isinstance(found, MaskPrediction)
    np.testing.assert_allclose(found.probabilities[:, 0, 0], [0.2, 0.2, 0.55, 0.9])
    assert found.shares.tolist() == [0, 0, 1, 1]
    assert found.times.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert found.notes == ("a note",)
    assert found.class_shares(3) == []


def test_overlapping_windows_give_each_pixel_the_surer_class() -> None:
    ours = task(semantic=True)
    logits = torch.zeros(1, 3, 3, 2, 2)
    logits[:, :, 1, 0] = 1.0
    logits[:, :, 2, 1] = 3.0
    seen = batch(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    one = {name: values[0].numpy() for name, values in ours.parts(logits, encoded(), seen).items()}
    two = {name: values[0].numpy() for name, values in ours.parts(logits.flip(3), encoded(), seen).items()}
    found = ours.predict(Path("a.mp4"), [window(0, 3, **one), window(2, 3, **two)])
    assert found.classes is not None
    assert found.classes[:, :, 0].tolist() == [[1, 2], [1, 2], [2, 2], [2, 1], [2, 1]]
    assert found.probabilities.max() == pytest.approx(float(torch.tensor([0.0, 0, 3]).softmax(0)[2]))
    assert found.class_shares(0) == [("dog", 0.5), ("horn", 0.5)]
    assert found.class_shares(2) == [("horn", 1.0)]


@pytest.mark.parametrize(
    ("input", "options", "labels", "problem"),
    [
        (InputConfig(segment_seconds=0.5), {}, LABELS, "set input.segment_seconds to 1"),
        (InputConfig(video=VideoInput(placement="spread")), {}, LABELS, "input.video.placement to grid"),
        (InputConfig(), {"semantic": True}, (), "0 classes cannot be told apart"),
        (InputConfig(), {"siez": 32}, LABELS, "segmentation has no option 'siez'; did you mean 'size'"),
        (InputConfig(), {"size": "large"}, LABELS, "option 'size' cannot be 'large'"),
    ],
)
def test_what_does_not_fit_is_one_line(
    input: InputConfig, options: dict[str, object], labels: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(AvtuneError, match=problem) as caught:
        create_task(labels, input, HeadConfig(task="segmentation", options=options))
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(
        AvtuneError, match="unknown preset of segmentation 'semantics'; did you mean 'semantic'"
    ):
        create_task(LABELS, InputConfig(), HeadConfig(task="segmentation", preset="semantics"))
