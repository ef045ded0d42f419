"""Numbers of weights as the papers publish them, on the meta device."""

from __future__ import annotations

import pytest

from avtune.pretrain import AvsiamClassifier, CavMaeClassifier, create_pretraining
from avtune.pretrain.counts import classifier_count, siamese_counts, with_all_norms

CLASSES = 527


@pytest.mark.parametrize(
    ("backbone", "shared", "whole"),
    [
        ("vit_base_patch16_224.augreg_in21k", 99.97, 100.65),
        ("vit_large_patch16_224.augreg_in21k", 328.49, 329.50),
        ("vit_huge_patch14_224.orig_in21k", 670.12, 671.56),
    ],
)
def test_avsiam(backbone: str, shared: float, whole: float) -> None:
    model = create_pretraining("avsiam", backbone, "contrastive", device="meta")
    counts = siamese_counts(model.encoder)
    assert round(counts.shared / 1e6, 2) == shared
    assert round(counts.whole / 1e6, 2) == whole
    if "large" in backbone:
        # Table 1's 332 M: four heads over 527 classes.
        assert round(classifier_count(AvsiamClassifier(model.encoder, CLASSES)) / 1e6, 2) == 332.21


def test_separate_encoders_hold_a_second_transformer() -> None:
    """About the 640 M of Table 5, whose exact composition is not published."""
    model = create_pretraining(
        "avsiam", "vit_large_patch16_224.augreg_in21k", "avsep", {"reconstruction": "none"}, device="meta"
    )
    assert siamese_counts(model.encoder).whole / 1e6 == pytest.approx(640, rel=0.02)


def test_cav_mae() -> None:
    model = create_pretraining("cav_mae", device="meta")
    assert round(with_all_norms(model) / 1e6, 3) == 191.036
    assert round(with_all_norms(CavMaeClassifier(model.encoder, CLASSES)) / 1e6, 3) == 164.907
