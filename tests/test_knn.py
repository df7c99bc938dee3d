"""kNN against closed forms, a naive NumPy version and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from disco_zoo.errors import BadData
from disco_zoo.evaluate.knn import knn_top1, neighbours


def directions(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


@pytest.fixture
def clusters():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(7, 16, generator=generator)
    labels = torch.randint(0, 7, (700,), generator=generator)
    features = centres[labels] + 1.5 * torch.randn(700, 16, generator=generator)
    return features[:500], labels[:500], features[500:], labels[500:]


def naive_top1(train, train_labels, test, test_labels, k, temperature):
    """Independent reference: the whole similarity matrix, float64, plain loops."""
    train, test = train.double().numpy(), test.double().numpy()
    train = train / np.linalg.norm(train, axis=1, keepdims=True)
    test = test / np.linalg.norm(test, axis=1, keepdims=True)
    correct = 0
    for row, label in zip(test, test_labels.tolist(), strict=True):
        cosine = train @ row
        votes: dict[int, float] = {}
        for index in np.argsort(-cosine, kind="stable")[:k]:
            voter = int(train_labels[index])
            votes[voter] = votes.get(voter, 0.0) + math.exp(cosine[index] / temperature)
        correct += max(sorted(votes), key=lambda c: votes[c]) == label
    return 100 * correct / len(test)


def test_neighbours_closed_form_with_lower_index_first_on_ties():
    bank = directions(90, 0, 60, -60, 180)
    similarities, indices = neighbours(bank, directions(0), k=5)
    assert indices.tolist() == [[1, 2, 3, 0, 4]]
    expected = torch.tensor([[1, 0.5, 0.5, 0, -1]], dtype=torch.float64)
    torch.testing.assert_close(similarities, expected, atol=2**-24, rtol=0)


def test_many_against_one_near_depends_on_the_temperature():
    # The nearest (10 degrees) is of class 0, two at 40 degrees of class 1.
    # Class 1 wins where 2 exp(cos 40 / T) > exp(cos 10 / T): T > (cos 10 - cos 40) / ln 2 = 0.3156.
    threshold = (math.cos(math.radians(10)) - math.cos(math.radians(40))) / math.log(2)
    case = {"train": directions(10, 40, -40), "train_labels": torch.tensor([0, 1, 1]), "test": directions(0)}
    for temperature, winner in ((0.99 * threshold, 0), (1.01 * threshold, 1), (0.001, 0)):
        result = knn_top1(**case, test_labels=torch.tensor([winner]), ks=(3,), temperature=temperature)
        assert result == {3: 100.0}


def test_percent_of_the_right_ones_for_every_k():
    train, labels = directions(0, 5, 90, 95, 100), torch.tensor([0, 1, 1, 1, 1])
    test, test_labels = directions(0, 94, 3), torch.tensor([0, 1, 1])
    # k=1: nearest are 0, 3 (95 degrees), 1 (5 degrees): all right. k=2: query 0 weighs 1 against
    # exp((cos 5 - 1) / T), still class 0. k=5 at a high temperature: class 1 by number.
    assert knn_top1(train, labels, test, test_labels, ks=(1, 2)) == {1: 100.0, 2: 100.0}
    assert knn_top1(train, labels, test, test_labels, ks=(5,), temperature=100.0) == {5: pytest.approx(200 / 3)}


@pytest.mark.parametrize("k", [1, 20, 200])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_equals_the_naive_version(clusters, k, temperature):
    result = knn_top1(*clusters, ks=(k,), temperature=temperature)
    assert result[k] == pytest.approx(naive_top1(*clusters, k, temperature))
    assert 30 < result[k] < 95


def test_equals_scikit_learn(clusters):
    train, train_labels, test, test_labels = clusters
    result = knn_top1(*clusters, ks=(1, 20))
    nearest = KNeighborsClassifier(1, metric="cosine").fit(train.numpy(), train_labels.numpy())
    assert result[1] == pytest.approx(100 * nearest.score(test.numpy(), test_labels.numpy()))
    weighted = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    weighted.fit(train.numpy(), train_labels.numpy())
    assert result[20] == pytest.approx(100 * weighted.score(test.numpy(), test_labels.numpy()))


def test_all_k_come_out_as_one_by_one(clusters):
    together = knn_top1(*clusters, ks=(200, 1, 20))
    assert together == {k: knn_top1(*clusters, ks=(k,))[k] for k in (200, 1, 20)}


def test_chunks_do_not_matter_even_with_many_ties(clusters):
    train, _, test, _ = clusters
    bank = torch.cat([train, train, train[:100]])
    reference = neighbours(bank, test, k=50, chunk_size=10**6, bank_chunk_size=10**6)
    # Copies of a row tie exactly, and the lower index comes first.
    assert (reference[1][:, 0] < 500).all()
    assert (reference[1][:, 1] >= 500).all()
    for chunk_size, bank_chunk_size in ((1, 1000), (7, 33), (200, 1), (64, 999)):
        similarities, indices = neighbours(bank, test, k=50, chunk_size=chunk_size, bank_chunk_size=bank_chunk_size)
        assert torch.equal(indices, reference[1])
        assert torch.equal(similarities, reference[0])


def test_length_of_the_features_does_not_matter(clusters):
    train, train_labels, test, test_labels = clusters
    generator = torch.Generator().manual_seed(1)
    scaled = train * 10 ** (6 * torch.rand(len(train), 1, generator=generator) - 3)
    assert knn_top1(*clusters) == knn_top1(scaled, train_labels, 37.0 * test, test_labels)


def test_a_zero_feature_is_similar_to_nothing():
    similarities, _ = neighbours(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), directions(0), k=2)
    assert similarities.tolist() == [[1.0, 0.0]]


def test_a_small_temperature_does_not_overflow(clusters):
    result = knn_top1(*clusters, ks=(1, 20), temperature=1e-4)
    assert result[20] == pytest.approx(result[1], abs=1.0)


def test_misfits_are_refused(clusters):
    train, train_labels, test, test_labels = clusters
    with pytest.raises(BadData, match="k=501 needs at least 501 training images, there are 500"):
        knn_top1(*clusters, ks=(1, 501))
    with pytest.raises(BadData, match="k=0"):
        knn_top1(*clusters, ks=(0,))
    with pytest.raises(BadData, match="500 training features but 499 labels"):
        knn_top1(train, train_labels[1:], test, test_labels)
    with pytest.raises(BadData, match="width 16, test features 8"):
        knn_top1(train, train_labels, test[:, :8], test_labels)
    with pytest.raises(BadData, match="numbered from 0"):
        knn_top1(train, train_labels - 1, test, test_labels)
    with pytest.raises(BadData, match="there is none"):
        knn_top1(train, train_labels, test[:0], test_labels[:0])
    with pytest.raises(BadData, match="finite"):
        knn_top1(train, train_labels, test * float("nan"), test_labels)
