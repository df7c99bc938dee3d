"""kNN against closed forms, a naive NumPy version and scikit-learn."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from disco_zoo.errors import BadData, DiscoZooError, UnknownName
from disco_zoo.evaluation.knn import knn_accuracies, knn_top1, neighbors
from disco_zoo.protocols.knn import KNN_PROTOCOLS, knn_protocol


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
    similarities, indices = neighbors(bank, directions(0), k=5)
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
    reference = neighbors(bank, test, k=50, chunk_size=10**6, bank_chunk_size=10**6)
    # Copies of a row tie exactly, and the lower index comes first.
    assert (reference[1][:, 0] < 500).all()
    assert (reference[1][:, 1] >= 500).all()
    for chunk_size, bank_chunk_size in ((1, 1000), (7, 33), (200, 1), (64, 999)):
        similarities, indices = neighbors(bank, test, k=50, chunk_size=chunk_size, bank_chunk_size=bank_chunk_size)
        assert torch.equal(indices, reference[1])
        assert torch.equal(similarities, reference[0])


def test_length_of_the_features_does_not_matter(clusters):
    train, train_labels, test, test_labels = clusters
    generator = torch.Generator().manual_seed(1)
    scaled = train * 10 ** (6 * torch.rand(len(train), 1, generator=generator) - 3)
    assert knn_top1(*clusters) == knn_top1(scaled, train_labels, 37.0 * test, test_labels)


def test_a_zero_feature_is_similar_to_nothing():
    similarities, _ = neighbors(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), directions(0), k=2)
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


# --- the protocols of the papers ---


def naive_majority(train, train_labels, test, test_labels, k):
    """Euclidean majority vote, float64, plain loops; equal votes go to the lower class."""
    train, test = train.double().numpy(), test.double().numpy()
    correct = 0
    for row, label in zip(test, test_labels.tolist(), strict=True):
        nearest = np.argsort(((train - row) ** 2).sum(axis=1), kind="stable")[:k]
        counts = np.bincount(train_labels.numpy()[nearest], minlength=7)
        correct += int(counts.argmax()) == label
    return 100 * correct / len(test)


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_euclidean_neighbours_are_those_of_numpy_whatever_the_blocks(clusters, shift):
    train, _, test, _ = clusters
    train, test = train.double() + shift, test.double() + shift  # far from the origin most of each distance cancels
    distances = np.linalg.norm(test.numpy()[:, None] - train.numpy()[None], axis=2)
    expected = np.argsort(distances, axis=1)[:, :20]
    similarities, indices = neighbors(train, test, k=20, metric="euclidean")
    assert (indices.numpy() == expected).all()
    middle = train.mean(dim=0)
    reach = ((test - middle).norm(dim=1) + (train - middle).norm(dim=1).max())[:, None]
    recovered = (reach.square() * (1 - similarities) / 2).sqrt()
    torch.testing.assert_close(
        recovered, torch.tensor(np.take_along_axis(distances, expected, 1)), atol=1e-5, rtol=1e-6
    )
    for chunk_size, bank_chunk_size in ((1, 1000), (7, 33), (200, 1)):
        again = neighbors(train, test, k=20, metric="euclidean", chunk_size=chunk_size, bank_chunk_size=bank_chunk_size)
        assert torch.equal(again[1], indices)


def test_a_search_leaves_its_features_alone():
    bank, query = torch.randn(20, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    before = bank.clone(), query.clone()
    for metric in ("cosine", "euclidean"):
        neighbors(bank, query, k=3, metric=metric)
    assert torch.equal(bank, before[0])
    assert torch.equal(query, before[1])


def test_length_decides_between_euclidean_and_cosine():
    bank = torch.tensor([[10.0, 0.0], [1.0, 0.6]])
    query = torch.tensor([[1.0, 0.0]])
    assert neighbors(bank, query, k=1)[1].item() == 0
    assert neighbors(bank, query, k=1, metric="euclidean")[1].item() == 1


def test_ssl_small_equals_the_naive_version_for_every_odd_k(clusters):
    protocol = knn_protocol("ssl_small")
    found = knn_accuracies(*clusters, protocol=protocol)
    assert sorted(found) == list(range(1, 102, 2))
    for k in (1, 3, 9, 51, 101):
        assert found[k][0] == pytest.approx(naive_majority(*clusters, k)), k


def test_majority_equals_scikit_learn(clusters):
    train, train_labels, test, test_labels = clusters
    found = knn_accuracies(*clusters, protocol=replace(knn_protocol("ssl_small"), ks=(4, 10)))
    for k in (4, 10):  # even: votes are equal now and then
        nearest = KNeighborsClassifier(k).fit(train.numpy(), train_labels.numpy())
        assert found[k][0] == pytest.approx(100 * nearest.score(test.numpy(), test_labels.numpy())), k


def test_compress_is_the_nearest_by_cosine(clusters):
    assert knn_accuracies(*clusters, protocol=knn_protocol("compress"))[1] == (knn_top1(*clusters, ks=(1,))[1], None)


def test_top5_closed_form():
    # One query at 0 degrees; the bank falls off from class 0 to class 6, so its top five are 0 to 4.
    bank, labels = directions(*range(0, 70, 10)), torch.arange(7)
    query = directions(0).expand(3, 2)
    found = knn_accuracies(bank, labels, query, torch.tensor([0, 4, 5]), protocol=knn_protocol("default", ks=(4, 5, 7)))
    assert found[5] == found[7] == (pytest.approx(100 / 3), pytest.approx(200 / 3))
    assert found[4] == (pytest.approx(100 / 3), None)
    few = knn_accuracies(
        bank, labels.clamp(max=4), query, torch.tensor([0, 1, 2]), protocol=knn_protocol("dino", ks=(7,))
    )
    assert few[7][1] is None


def test_a_class_without_votes_is_not_among_the_five():
    bank, labels = directions(*range(10)), torch.tensor([0] * 9 + [6])
    found = knn_accuracies(bank, labels, directions(0), torch.tensor([3]), protocol=knn_protocol("default", ks=(9,)))
    assert found[9] == (0.0, 0.0)


def test_half_precision_features_and_progress(clusters):
    train, train_labels, test, test_labels = clusters
    seen = []
    halves = (train.half(), train_labels, test.half(), test_labels)
    rounded = (train.half().float(), train_labels, test.half().float(), test_labels)
    protocol = knn_protocol("default")
    found = knn_accuracies(*halves, protocol=protocol, chunk_size=90, progress=lambda *state: seen.append(state))
    assert found == knn_accuracies(*rounded, protocol=protocol)
    assert seen == [(90, 200), (180, 200), (200, 200)]


def test_presets_of_the_papers():
    table = {name: (p.metric, p.vote, p.temperature, p.best_of_ks) for name, p in KNN_PROTOCOLS.items()}
    assert table == {
        "default": ("cosine", "weighted", 0.07, False),
        "dino": ("cosine", "weighted", 0.07, False),
        "compress": ("cosine", "majority", None, False),
        "ssl_small": ("euclidean", "majority", None, True),
    }
    assert KNN_PROTOCOLS["dino"].ks == (10, 20, 100, 200)
    assert "optimistic" in KNN_PROTOCOLS["ssl_small"].label()
    assert knn_protocol("dino", temperature=0.07).name == "dino"
    assert knn_protocol("dino", temperature=0.5).name == "dino@T0.5"
    chosen = knn_protocol("ssl_small", ks=(5, 3, 5))
    assert (chosen.ks, chosen.best_of_ks) == ((3, 5), False)
    assert "optimistic" not in chosen.label()


def test_options_that_a_preset_lacks():
    with pytest.raises(UnknownName, match="Did you mean 'compress'"):
        knn_protocol("compres")
    with pytest.raises(DiscoZooError, match="Leave out --temperature"):
        knn_protocol("compress", temperature=0.1)
    with pytest.raises(DiscoZooError, match="temperature of 0"):
        knn_protocol("default", temperature=0.0)


@pytest.mark.slow
def test_memory_grows_with_the_block_and_not_with_the_product():
    """40,000 x 5,000: all similarities would take 1.6 GB; the search adds less than 0.5 GB to its features."""
    script = (
        "import resource, torch\n"
        "from disco_zoo.evaluation.knn import neighbors\n"
        "torch.set_num_threads(1)\n"
        "bank, queries = torch.randn(40_000, 32), torch.randn(5_000, 32)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = peak(); neighbors(bank, queries, k=20); print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 500
