"""A converged linear probe."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


def fit(
    features: Tensor, labels: Tensor, classes: int, strength: float, iterations: int = 300
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression by LBFGS in float64; returns weight (classes, d) and bias (classes,)."""
    features = features.double()
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias],
        max_iter=iterations,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(features @ weight.T + bias, labels) + strength * weight.square().sum() / 2
        loss.backward()
        return loss

    optimiser.step(closure)
    return weight.detach(), bias.detach()


def accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], inner: Tensor, classes: int) -> float:
    """Test accuracy of a probe whose strength was chosen on the rows of `train` where `inner` is False.

    Args:
        train: Features (n, d) and labels (n,).
        test: Likewise.
        inner: Which rows of `train` fit the candidates (n,), bool; the others choose between them.
        classes: Number of classes.
    """
    features, labels = train
    mean, std = features.mean(0), features.std(0).clamp(min=1e-6)

    def scored(fitted: tuple[Tensor, Tensor], rows: Tensor, wanted: Tensor) -> float:
        weight, bias = fitted
        answers = (((rows - mean) / std).double() @ weight.T + bias).argmax(1)
        return float((answers == wanted).double().mean())

    standard = (features - mean) / std
    choice = max(
        STRENGTHS,
        key=lambda s: scored(
            fit(standard[inner], labels[inner], classes, s), features[~inner], labels[~inner]
        ),
    )
    return scored(fit(standard, labels, classes, choice), *test)
