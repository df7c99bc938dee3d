"""MoCo-v2 and DisCo written a second time, from sections 1.1, 2.1 and 2.2 of the spec alone, sample by sample.

Nothing of the package runs here but the layers of the tiny networks. The key encoder is updated where MoCo does
it: after the query's forward, before the key's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from tiny import MEAN, STD
from torch import Tensor, nn

LR, SGD_MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 0.01
EMA, TEMPERATURE, QUEUE_SIZE = 0.6, 0.2, 10  # a low m, so that one update too early or too late shows


@dataclass
class Reference:
    """The result of a reference run.

    Attributes:
        losses, contrasts, distills: of each step; `distills` without its weight.
    """

    query: nn.ModuleList
    key: nn.ModuleList
    queue: Tensor
    losses: list[float] = field(default_factory=list)
    contrasts: list[float] = field(default_factory=list)
    distills: list[float] = field(default_factory=list)


def embed(backbone: nn.Module, head: nn.Module, view: Tensor, mean=MEAN, std=STD) -> Tensor:
    pixels = view.float() / 255
    channels = [(pixels[:, c] - mean[c]) / std[c] for c in range(3)]
    rows = head(backbone(torch.stack(channels, dim=1)))
    return torch.stack([row / row.pow(2).sum().sqrt() for row in rows])


def info_nce(queries: Tensor, keys: Tensor, queue: list[Tensor]) -> Tensor:
    losses = []
    for query, key in zip(queries, keys, strict=True):
        scores = torch.stack([query @ row for row in (key, *queue)]) / TEMPERATURE
        losses.append(torch.logsumexp(scores, dim=0) - scores[0])
    return sum(losses) / len(losses)


def squared_distances(targets: Tensor, students: Tensor) -> Tensor:
    """Σ over the batch, as in the official code."""
    return sum(((t - s) ** 2).sum() for t, s in zip(targets, students, strict=True))


def reference_loop(
    student: nn.Module,
    queue: Tensor,
    batches: list[list[Tensor]],
    *,
    teacher: nn.Module | None = None,
    sum_weight: float = 0.0,
    key_follows: str = "before_key",
) -> Reference:
    """Train a copy of `student` (with `backbone` and `head`).

    Args:
        queue: (K, D) before the first step.
        sum_weight: factor of the *summed* squared distances over the two views.
        key_follows: "before_key" is MoCo; "never" is a wrong method, to see that the comparison can fail.
    """
    query = nn.ModuleList([copy.deepcopy(student.backbone), copy.deepcopy(student.head)]).train()
    key = copy.deepcopy(query)
    rows, pointer = list(queue.clone()), 0
    found = Reference(query, key, queue)
    velocities = [torch.zeros_like(parameter) for parameter in query.parameters()]
    for first, second in batches:
        queries = embed(*query, first)
        with torch.no_grad():
            if key_follows == "before_key":
                for slow, fast in zip(key.parameters(), query.parameters(), strict=True):
                    slow.copy_(EMA * slow + (1 - EMA) * fast)
            keys = embed(*key, second)
        contrast = info_nce(queries, keys, [row.detach() for row in rows])
        distill = torch.zeros(())
        if teacher is not None:
            with torch.no_grad():
                targets = [embed(teacher.backbone, teacher.head, v, teacher.mean, teacher.std) for v in (first, second)]
            distill = squared_distances(targets[0], queries) + squared_distances(targets[1], embed(*query, second))
        loss = contrast + sum_weight * distill
        for record, value in ((found.losses, loss), (found.contrasts, contrast), (found.distills, distill)):
            record.append(value.item())
        sgd_step(query, loss, velocities)
        for row in keys:
            rows[pointer] = row
            pointer = (pointer + 1) % len(rows)
    found.queue = torch.stack(rows)
    return found


def sgd_step(query: nn.Module, loss: Tensor, velocities: list[Tensor]) -> None:
    parameters = list(query.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient, velocity in zip(parameters, gradients, velocities, strict=True):
            velocity.mul_(SGD_MOMENTUM).add_(gradient + WEIGHT_DECAY * parameter)
            parameter.sub_(LR * velocity)
