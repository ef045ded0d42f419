"""Numbers of weights as the papers count them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from avtune.pretrain.blocks import ModalityNorms
from avtune.pretrain.classifiers import AvsiamClassifier
from avtune.pretrain.siamese import SiameseEncoder

KINDS = 3
"""Norms that the authors' blocks hold at each place: plain, sound, frames; avtune has those that are used."""


@dataclass(frozen=True)
class PublishedCounts:
    """A model's weights under the conventions of AVSiam's Tables 1 and 5.

    Attributes:
        shared: One transformer and its multimodal layers as if they saw frames only: without the sound's stem and
            with one norm at each place. The paper's 100 M.
        whole: Everything the authors' class holds of them: three norms at each place of a block. The paper's 672 M,
            and with its heads 332 M.
    """

    shared: int
    whole: int


def with_all_norms(module: nn.Module) -> int:
    """Weights of a model whose every block holds three norms at each place, as the authors' do."""
    return _total(module) + sum((KINDS - len(norms.of)) * _one(norms) for norms in _block_norms(module))


def siamese_counts(encoder: SiameseEncoder) -> PublishedCounts:
    """Count an encoder; the meta device will do.

    Args:
        encoder: With the transformer shared or not; the class token and its position, which avtune leaves away,
            count too.
    """
    class_token = 2 * encoder.prefix * encoder.dim
    norms = [module for module in encoder.modules() if isinstance(module, ModalityNorms)]
    surplus = sum((len(one.of) - 1) * _one(one) for one in norms)
    shared = _total(encoder) - surplus - _total(encoder.audio)
    return PublishedCounts(shared + class_token, with_all_norms(encoder) + class_token)


def classifier_count(classifier: AvsiamClassifier) -> int:
    """``PublishedCounts.whole`` with the heads, of which the authors have a fourth that is never called."""
    heads = _total(classifier.head) + _total(classifier.head["audio"])
    return siamese_counts(classifier.encoder).whole + heads


def _block_norms(module: nn.Module) -> list[ModalityNorms]:
    return [
        norms
        for name, norms in module.named_modules()
        if isinstance(norms, ModalityNorms) and name.endswith(("attention_norm", "mlp_norm"))
    ]


def _one(norms: ModalityNorms) -> int:
    return _total(next(iter(norms.of.values())))


def _total(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
