"""Nearest-neighbour classification of frozen features (`methods.md` 4.2).

Every test image lets its k most similar training images vote, each with weight exp(cos / T). Similarities are
computed chunk by chunk, so memory grows with the chunk and never with N × N.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from disco_zoo.errors import BadData

# Similarities are compared in steps of 2**-24 and ties go to the lower index. Both fit one float64, exactly:
# key = round(cos * 2**24) * 2**27 - index. Keys are unique, so the result does not depend on the chunks.
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
    chunk_size: int = 1024,
) -> dict[int, float]:
    """Top-1 of the weighted kNN classifier, in percent, for each k.

    Args:
        train: features of the bank (N, D); rows are L2-normalised here.
        train_labels: int64 (N,), not negative.
        test: features of the queries (M, D).
        test_labels: int64 (M,).
        ks: numbers of neighbours; all come from one search with the largest.
        temperature: T of the weight exp(cos / T); small means that the nearest decides.
        chunk_size: queries a step; the result does not depend on it.

    Raises:
        BadData: a k larger than the bank, or features and labels that do not fit each other.
    """
    _check_labels("training", train, train_labels)
    _check_labels("test", test, test_labels)
    similarities, indices = neighbours(train, test, k=max(ks), chunk_size=chunk_size)
    num_classes = int(train_labels.max()) + 1
    voters = train_labels.cpu()[indices]
    # Relative to the nearest: the same vote, and no overflow at a small temperature.
    weights = torch.exp((similarities - similarities[:, :1]) / temperature)
    result: dict[int, float] = {}
    for k in ks:
        votes = torch.zeros(len(test), num_classes, dtype=torch.float64)
        votes.scatter_add_(1, voters[:, :k], weights[:, :k])
        correct = votes.argmax(dim=1) == test_labels.cpu()
        result[k] = 100.0 * correct.sum().item() / len(correct)
    return result


def neighbours(
    bank: Tensor, queries: Tensor, *, k: int, chunk_size: int = 1024, bank_chunk_size: int = _BANK_CHUNK
) -> tuple[Tensor, Tensor]:
    """Find the k rows of the bank with the largest cosine to each query, nearest first, ties by lower index.

    Args:
        bank: (N, D).
        queries: (M, D), on the same device.
        k: number of neighbours, at most N.
        chunk_size: queries a step.
        bank_chunk_size: rows of the bank a step.

    Returns:
        Cosines float64 (M, k) and indices int64 (M, k) on the CPU.

    Raises:
        BadData: k is not in 1..N, the widths differ, or a feature is not finite.
    """
    _check_features(bank, queries, k)
    bank_scale = _STEPS / _row_norms(bank)
    query_norms = _row_norms(queries)
    similarities, indices = [], []
    for start in range(0, len(queries), chunk_size):
        rows = slice(start, start + chunk_size)
        directions = queries[rows].double() / query_norms[rows, None]
        keys = _largest_keys(directions, bank, bank_scale, k, bank_chunk_size).cpu()
        steps = torch.ceil(keys / _INDICES)
        similarities.append(steps / _STEPS)
        indices.append((steps * _INDICES - keys).long())
    return torch.cat(similarities), torch.cat(indices)


def _largest_keys(directions: Tensor, bank: Tensor, bank_scale: Tensor, k: int, bank_chunk_size: int) -> Tensor:
    """The k largest keys (m, k) of each query, in falling order."""
    best = torch.empty(len(directions), 0, dtype=torch.float64, device=directions.device)
    for start in range(0, len(bank), bank_chunk_size):
        chunk = bank[start : start + bank_chunk_size].double()
        keys = directions @ chunk.T
        keys.mul_(bank_scale[start : start + len(chunk)]).round_().mul_(_INDICES)
        keys.sub_(torch.arange(start, start + len(chunk), dtype=torch.float64, device=keys.device))
        candidates = torch.cat([best, keys.topk(min(k, len(chunk)), dim=1).values], dim=1)
        best = candidates.topk(min(k, candidates.shape[1]), dim=1).values
    return best


def _row_norms(rows: Tensor) -> Tensor:
    """L2 norms float64 (N,); a zero row gets a tiny one, so that its cosine to everything is 0."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).clamp_min(1e-30)


def _check_features(bank: Tensor, queries: Tensor, k: int) -> None:
    if not 1 <= k <= len(bank):
        raise BadData(f"kNN with k={k} needs at least {k} training images, there are {len(bank)}. Use a smaller k.")
    if len(queries) == 0:
        raise BadData("kNN needs at least one test image, there is none.")
    if bank.shape[1] != queries.shape[1]:
        raise BadData(f"Training features have width {bank.shape[1]}, test features {queries.shape[1]}.")
    if not (torch.isfinite(bank).all() and torch.isfinite(queries).all()):
        raise BadData("kNN needs finite features; the backbone is damaged or has diverged.")


def _check_labels(split: str, features: Tensor, labels: Tensor) -> None:
    if len(features) != len(labels):
        raise BadData(f"There are {len(features)} {split} features but {len(labels)} labels.")
    if len(labels) and int(labels.min()) < 0:
        raise BadData(f"The {split} labels hold {int(labels.min())}; classes are numbered from 0.")
