"""The fast linear probe: logistic regression on cached features, to its optimum."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from disco_zoo.errors import BadData
from disco_zoo.evaluation.features import Features
from disco_zoo.evaluation.metrics import top1_top5
from disco_zoo.evaluation.probes.linear import linear_probe_on_features
from disco_zoo.evaluation.probes.logistic import choose_l2, fit_logistic_regression, standardization


def blobs(num: int, *, spread: float, seed: int, classes: int = 7, width: int = 12) -> Features:
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % classes
    return Features(centres[labels] * 3 + spread * torch.randn(num, width, generator=generator), labels)


def test_separable_features_give_100():
    result = linear_probe_on_features(blobs(140, spread=0.1, seed=0), blobs(70, spread=0.1, seed=1))
    assert (result.top1, result.last_top1, result.top5) == (100.0, 100.0, 100.0)
    assert (result.protocol, result.best_epoch) == ("fast", None)


def test_features_that_say_nothing_give_chance():
    train, test = blobs(700, spread=0.1, seed=0), blobs(700, spread=0.1, seed=1)
    shuffled = train.labels[torch.randperm(700, generator=torch.Generator().manual_seed(0))]
    result = linear_probe_on_features(Features(train.features, shuffled), test)
    assert result.top1 < 45


@pytest.mark.parametrize("l2", [0.3, 0.01])
@pytest.mark.parametrize(
    ("dtype", "gradient_tolerance", "tolerance"), [(torch.float64, 1e-9, 1e-6), (torch.float32, 1e-6, 5e-4)]
)
def test_fit_equals_scikit_learn(l2, dtype, gradient_tolerance, tolerance):
    train = blobs(210, spread=4.0, seed=0)
    mean, std = standardization(train.features)
    features = ((train.features - mean) / std).to(dtype)
    classifier = fit_logistic_regression(
        features,
        train.labels,
        num_classes=7,
        l2=l2,
        max_iterations=500,
        gradient_tolerance=gradient_tolerance,
    )
    # mean CE + l2/2 |W|^2 is sum CE + |W|^2 / (2 C) divided by N, for C = 1 / (l2 N).
    reference = LogisticRegression(C=1 / (l2 * len(train)), tol=1e-10, max_iter=10_000)
    reference.fit(features.double().numpy(), train.labels.numpy())
    np.testing.assert_allclose(classifier[:, :-1].numpy(), reference.coef_, atol=tolerance)
    # Softmax is blind to a constant added to all biases.
    np.testing.assert_allclose(
        (classifier[:, -1] - classifier[:, -1].mean()).numpy(),
        reference.intercept_ - reference.intercept_.mean(),
        atol=tolerance,
    )


def test_top1_equals_scikit_learn_at_the_same_penalty():
    train, test = blobs(350, spread=5.0, seed=0), blobs(350, spread=5.0, seed=1)
    result = linear_probe_on_features(train, test, l2=0.02)
    mean, std = train.features.mean(0), train.features.std(0, correction=0)
    reference = LogisticRegression(C=1 / (0.02 * 350), tol=1e-8, max_iter=10_000)
    reference.fit(((train.features - mean) / std).numpy(), train.labels.numpy())
    expected = 100 * reference.score(((test.features - mean) / std).numpy(), test.labels.numpy())
    assert 40 < expected < 95
    assert result.top1 == pytest.approx(expected, abs=100 / 350)


def test_the_gradient_at_the_solution_is_zero():
    train = blobs(210, spread=3.0, seed=0)
    features = train.features.double()
    classifier = fit_logistic_regression(features, train.labels, num_classes=7, l2=0.1, max_iterations=500)
    residual = (features @ classifier[:, :-1].T + classifier[:, -1]).softmax(1) - F.one_hot(train.labels, 7)
    gradient = residual.T @ features / len(train) + 0.1 * classifier[:, :-1]
    assert gradient.abs().max() < 2e-5
    assert residual.mean(0).abs().max() < 2e-5


def test_the_penalty_is_chosen_on_held_out_images():
    train = blobs(420, spread=6.0, seed=0, width=60)
    mean, std = standardization(train.features)
    l2, classifier, tried = choose_l2((train.features - mean) / std, train.labels, num_classes=7, seed=0)
    assert tried[l2] == max(tried.values())
    assert classifier.shape == (7, 61)
    assert len(tried) >= 3
    ladder = list(tried.values())
    assert ladder[-1] < max(ladder)  # it stopped because weaker penalties became worse


def test_fast_is_deterministic_and_leaves_random_state_and_threads():
    train, test = blobs(210, spread=5.0, seed=0), blobs(210, spread=5.0, seed=1)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = linear_probe_on_features(train, test)
    torch.rand(3)
    second = linear_probe_on_features(train, test)
    assert first == second
    torch.set_rng_state(state)
    linear_probe_on_features(train, test)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    json.dumps(dataclasses.asdict(first))


def test_test_features_are_standardised_by_training_statistics():
    train, test = blobs(140, spread=0.1, seed=0), blobs(70, spread=0.1, seed=1)
    scale, shift = torch.linspace(0.01, 100, 12), torch.linspace(-50, 50, 12)
    moved = [Features(f.features * scale + shift, f.labels) for f in (train, test)]
    assert linear_probe_on_features(*moved).top1 == 100.0
    one = Features(test.features[:7] * scale + shift, test.labels[:7])  # its own statistics would be far off
    assert linear_probe_on_features(moved[0], one).top1 == 100.0


def test_a_constant_feature_stays_finite():
    train, test = blobs(140, spread=0.1, seed=0), blobs(70, spread=0.1, seed=1)
    padded = [Features(F.pad(f.features, (0, 1), value=3.0), f.labels) for f in (train, test)]
    assert linear_probe_on_features(*padded).top1 == 100.0


def test_top1_and_top5_closed_form():
    scores = torch.tensor([[6, 5, 4, 3, 2, 1.0]] * 3)
    top1, top5 = top1_top5(scores, torch.tensor([0, 4, 5]))
    assert top1 == pytest.approx(100 / 3)
    assert top5 == pytest.approx(200 / 3)
    assert top1_top5(scores[:, :5], torch.tensor([0, 4, 1]))[1] is None


def test_unlabelled_features_and_single_images_are_refused():
    train, test = blobs(14, spread=1, seed=0), blobs(7, spread=1, seed=1)
    with pytest.raises(BadData, match="needs labels"):
        linear_probe_on_features(dataclasses.replace(train, labels=None), test)
    with pytest.raises(BadData, match="has one training image"):
        linear_probe_on_features(Features(train.features[:13], train.labels[:13]), test)
