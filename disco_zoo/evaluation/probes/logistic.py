"""Multinomial logistic regression on cached features: full batch, the optimum of a convex loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.process import one_thread
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.errors import BadData

# From strong to weak: each fit starts from the last one, and the strong ones converge in a few iterations.
L2_GRID = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
MAX_ITERATIONS = 100
# Enough to rank penalties, given the warm starts.
CHOICE_ITERATIONS = 30
VALIDATION_SHARE = 0.2


def standardization(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of the rows of (N, D); 1 where a feature is constant."""
    std, mean = torch.std_mean(features, dim=0, correction=0)
    return mean, torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.ones_like(std))


def logits(features: Tensor, classifier: Tensor) -> Tensor:
    """Class scores (N, K) of features (N, D) under a classifier (K, D + 1), whose last column is the bias."""
    return F.linear(features, classifier[:, :-1], classifier[:, -1])


def fit_logistic_regression(
    features: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    l2: float,
    max_iterations: int = MAX_ITERATIONS,
    gradient_tolerance: float = 1e-5,
    start: Tensor | None = None,
) -> Tensor:
    """Minimise mean cross-entropy + l2/2 · |W|² with L-BFGS; the bias is not penalised.

    scikit-learn's `LogisticRegression(C=1 / (l2 * N))` minimises the same function.

    Args:
        features: (N, D), standardised; its dtype is the one computed in.
        labels: int64 (N,) in 0..num_classes-1.
        l2: strength of the penalty, more than 0.
        max_iterations: L-BFGS steps at most.
        gradient_tolerance: it stops earlier where no entry of the gradient is larger.
        start: classifier to start from; zeros by default.

    Returns:
        The classifier (num_classes, D + 1), bias last.
    """
    if start is None:
        start = features.new_zeros(num_classes, features.shape[1] + 1)
    classifier = start.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [classifier],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        tolerance_grad=gradient_tolerance,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss_and_gradient() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(logits(features, classifier), labels)
        loss = loss + 0.5 * l2 * classifier[:, :-1].square().sum()
        loss.backward()
        return loss

    with one_thread(), torch.enable_grad():
        solver.step(loss_and_gradient)
    return classifier.detach()


def choose_l2(
    features: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    seed: int,
) -> tuple[float, Tensor, dict[float, float]]:
    """Pick the penalty that is best on a held-out fifth of each class.

    Goes from strong to weak and stops after two values in a row that are worse than the best.

    Returns:
        The chosen l2, its classifier (fitted on the other four fifths), and the held-out top-1 in percent
        of each l2 that was tried.

    Raises:
        BadData: a class has a single image, so that none can be held out.
    """
    fitted, held_out = _stratified_split(labels, seed)
    train, train_labels = features[fitted], labels[fitted]
    validation, validation_labels = features[held_out], labels[held_out]
    classifier: Tensor | None = None
    best: tuple[float, float, Tensor] | None = None
    tried: dict[float, float] = {}
    worse_in_a_row = 0
    for l2 in L2_GRID:
        classifier = fit_logistic_regression(
            train,
            train_labels,
            num_classes=num_classes,
            l2=l2,
            max_iterations=CHOICE_ITERATIONS,
            start=classifier,
        )
        correct = logits(validation, classifier).argmax(dim=1) == validation_labels
        tried[l2] = 100.0 * correct.sum().item() / len(correct)
        if best is None or tried[l2] > best[0]:
            best, worse_in_a_row = (tried[l2], l2, classifier), 0
        else:
            worse_in_a_row += tried[l2] < best[0]
        if worse_in_a_row == 2:
            break
    assert best is not None
    return best[1], best[2], tried


def check_can_hold_out(labels: Sequence[int], class_names: Sequence[str] | None = None) -> None:
    """Refuse labels of which no fifth can be held out to choose the penalty.

    Raises:
        BadData: a class has a single image.
    """
    for label, count in sorted(Counter(labels).items()):
        if count < 2:
            name = class_names[label] if class_names else label
            raise BadData(
                f"Class {name} has one training image; the fast probe needs two of each class. "
                "Give more (of few labels, a larger --fraction), or choose a --protocol that takes steps, e.g. disco"
            )


def _stratified_split(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (fitted, held out): the held-out part is a fifth of each class, at least one image."""
    check_can_hold_out(labels.tolist())
    fitted, held_out = [], []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        generator = stream_generator("linear_validation", seed, label)
        members = members[torch.randperm(len(members), generator=generator)]
        count = max(1, round(VALIDATION_SHARE * len(members)))
        held_out.append(members[:count])
        fitted.append(members[count:])
    return torch.cat(fitted).sort().values, torch.cat(held_out).sort().values
