"""Nearest-neighbour classification of frozen features (spec 4.2).

The k nearest training images of every test image vote. Similarities are computed block by block, so memory grows
with the block and never with N × N: beside the features, less than 1 GB for 1.28 M × 50 k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from disco_zoo.errors import BadData
from disco_zoo.protocols.knn import KnnProtocol

Metric = Literal["cosine", "euclidean"]

# Similarities are compared in steps of 2**-24 and ties go to the lower index. Both fit one float64, exactly:
# key = round(similarity * 2**24) * 2**27 - index. Keys are unique, so the result does not depend on the blocks.
_STEPS = 2.0**24
_INDICES = 2.0**27
_BANK_CHUNK = 4096


def knn_top1(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    ks: Sequence[int] = (1, 20, 200),
    temperature: float = 0.07,
) -> dict[int, float]:
    """Top-1 of the weighted kNN classifier by cosine, in percent, for each k; see `knn_accuracies`."""
    protocol = KnnProtocol("weighted", "", tuple(ks), temperature=temperature)
    found = knn_accuracies(train, train_labels, test, test_labels, protocol=protocol)
    return {k: top1 for k, (top1, _) in found.items()}


def knn_accuracies(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    protocol: KnnProtocol,
    chunk_size: int = 1024,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, tuple[float, float | None]]:
    """Top-1 and top-5 of a kNN classifier, in percent, for each k of the protocol in one search.

    An image counts for top-5 where its class is among the five with most votes, and has any. There is no top-5
    with k < 5 or five classes or fewer.

    Args:
        train: features of the bank (N, D), as the backbone gives them, of any float type.
        train_labels: int64 (N,), not negative.
        test: features of the queries (M, D).
        test_labels: int64 (M,).
        chunk_size: queries a step; the result does not depend on it.
        progress: called with (queries done, queries in total).

    Raises:
        BadData: a k larger than the bank, or features and labels that do not fit each other.
    """
    _check_labels("training", train, train_labels)
    _check_labels("test", test, test_labels)
    ks = sorted(protocol.ks)
    check_neighbors(ks, len(train))
    num_classes = int(train_labels.max()) + 1 if len(train_labels) else 0
    right = {k: [0, 0] for k in ks}
    search = _Search(train, test, ks[-1], protocol.metric)
    for start in range(0, len(test), chunk_size):
        rows = slice(start, start + chunk_size)
        similarities, indices = search.nearest(rows, _BANK_CHUNK)
        voters, labels = train_labels.cpu()[indices], test_labels.cpu()[rows]
        weights = torch.ones_like(similarities)
        if protocol.temperature is not None:
            # Relative to the nearest: the same vote, and no overflow at a small temperature.
            weights = torch.exp((similarities - similarities[:, :1]) / protocol.temperature)
        _count(right, voters, weights, labels, num_classes)
        if progress is not None:
            progress(min(start + chunk_size, len(test)), len(test))
    share = 100.0 / len(test)
    has_top5 = num_classes > 5
    return {k: (share * top1, share * top5 if has_top5 and k >= 5 else None) for k, (top1, top5) in right.items()}


def neighbors(
    bank: Tensor,
    queries: Tensor,
    *,
    k: int,
    metric: Metric = "cosine",
    chunk_size: int = 1024,
    bank_chunk_size: int = _BANK_CHUNK,
) -> tuple[Tensor, Tensor]:
    """Find the k rows of the bank that are most similar to each query, nearest first, ties by lower index.

    Args:
        bank: (N, D).
        queries: (M, D), on the same device.
        k: number of neighbours, at most N.
        metric: "cosine"; or "euclidean", whose similarity is 1 - 2 d² / (|q| + max |row|)², from -1 to 1, with
            lengths taken from the bank's mean.
        chunk_size: queries a step.
        bank_chunk_size: rows of the bank a step.

    Returns:
        Similarities float64 (M, k), rounded to 2**-24, and indices int64 (M, k), on the CPU.

    Raises:
        BadData: k is not in 1..N, the widths differ, or a feature is not finite.
    """
    search = _Search(bank, queries, k, metric)
    blocks = [
        search.nearest(slice(start, start + chunk_size), bank_chunk_size)
        for start in range(0, len(queries), chunk_size)
    ]
    similarities, indices = zip(*blocks, strict=True)
    return torch.cat(similarities), torch.cat(indices)


def check_neighbors(ks: Sequence[int], num_train: int) -> None:
    """Refuse numbers of neighbours that there are not.

    Raises:
        BadData: a k is not in 1..num_train.
    """
    for k in sorted(ks, reverse=True):
        if k < 1:
            raise BadData(f"kNN takes one neighbour and more, not k={k}. Type: --k 1")
        if k > num_train:
            raise BadData(
                f"kNN with k={k} needs at least {k} training images, there are {num_train}. Use a smaller k: --k 1"
            )


class _Search:
    """A bank and queries whose norms are known."""

    def __init__(self, bank: Tensor, queries: Tensor, k: int, metric: Metric) -> None:
        _check_features(bank, queries, k)
        self.bank, self.queries, self.k, self.metric = bank, queries, k, metric
        # Distances do not change when all points move, and around the middle the least of them cancels.
        self.middle = _mean(bank) if metric == "euclidean" else torch.zeros_like(bank[0], dtype=torch.float64)
        self.bank_norms, self.query_norms = (_row_norms(rows, self.middle) for rows in (bank, queries))

    def nearest(self, rows: slice, bank_chunk_size: int) -> tuple[Tensor, Tensor]:
        """Similarities and indices (m, k) of some queries."""
        queries, norms = self.queries[rows].double() - self.middle, self.query_norms[rows, None]
        reach = norms + self.bank_norms.max()
        best = queries.new_empty(len(queries), 0)
        for start in range(0, len(self.bank), bank_chunk_size):
            block = slice(start, start + bank_chunk_size)
            keys = self._similarities(queries, norms, reach, block).mul_(_STEPS).round_().mul_(_INDICES)
            keys.sub_(torch.arange(start, start + keys.shape[1], dtype=torch.float64, device=keys.device))
            candidates = torch.cat([best, keys.topk(min(self.k, keys.shape[1]), dim=1).values], dim=1)
            best = candidates.topk(min(self.k, candidates.shape[1]), dim=1).values
        keys = best.cpu()
        steps = torch.ceil(keys / _INDICES)
        return steps / _STEPS, (steps * _INDICES - keys).long()

    def _similarities(self, queries: Tensor, norms: Tensor, reach: Tensor, block: slice) -> Tensor:
        """float64 (m, n) from -1 to 1."""
        bank, bank_norms = self.bank[block].double() - self.middle, self.bank_norms[block]
        if self.metric == "cosine":
            return (queries / norms @ bank.T).div_(bank_norms)
        squared = (queries @ bank.T).mul_(-2).add_(norms.square()).add_(bank_norms.square())
        return squared.clamp_min_(0).div_(-0.5 * reach.square()).add_(1)


def _count(right: dict[int, list[int]], voters: Tensor, weights: Tensor, labels: Tensor, num_classes: int) -> None:
    """Add to each k's numbers of right answers (top-1, top-5); the votes of a smaller k are part of a larger one's."""
    votes = weights.new_zeros(len(voters), num_classes)
    known = labels < num_classes  # a class without training images is never right
    own = labels.clamp(max=num_classes - 1)[:, None]
    counted = 0
    for k in sorted(right):
        votes.scatter_add_(1, voters[:, counted:k], weights[:, counted:k])
        counted = k
        right[k][0] += int(((votes.argmax(dim=1) == own[:, 0]) & known).sum())
        if num_classes > 5:
            top = votes.topk(5, dim=1)
            right[k][1] += int((((top.indices == own) & (top.values > 0)).any(dim=1) & known).sum())


def _mean(rows: Tensor) -> Tensor:
    """float64 (D,), by blocks."""
    total = rows.new_zeros(rows.shape[1], dtype=torch.float64)
    for block in rows.split(_BANK_CHUNK):
        total += block.sum(dim=0, dtype=torch.float64)
    return total / len(rows)


def _row_norms(rows: Tensor, middle: Tensor) -> Tensor:
    """L2 norms float64 (N,) from `middle`; a zero row gets a tiny one, so that its cosine to everything is 0."""
    norms = [torch.linalg.vector_norm(block.double() - middle, dim=1) for block in rows.split(_BANK_CHUNK)]
    return torch.cat(norms).clamp_min_(1e-30)


def _check_features(bank: Tensor, queries: Tensor, k: int) -> None:
    check_neighbors([k], len(bank))
    if len(queries) == 0:
        raise BadData("kNN needs at least one test image, there is none.")
    if bank.shape[1] != queries.shape[1]:
        raise BadData(f"Training features have width {bank.shape[1]}, test features {queries.shape[1]}.")
    # By blocks: one call would make several temporary copies of the whole bank.
    if not all(bool(torch.isfinite(block).all()) for rows in (bank, queries) for block in rows.split(_BANK_CHUNK)):
        raise BadData("kNN needs finite features; the backbone is damaged or has diverged.")


def _check_labels(split: str, features: Tensor, labels: Tensor) -> None:
    if len(features) != len(labels):
        raise BadData(f"There are {len(features)} {split} features but {len(labels)} labels.")
    if len(labels) and int(labels.min()) < 0:
        raise BadData(f"The {split} labels hold {int(labels.min())}; classes are numbered from 0.")
