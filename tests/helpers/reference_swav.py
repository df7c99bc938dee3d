"""SwAV and DisCo on SwAV written a second time, from 2.9 and 2.10 of the spec alone, and the engine's order."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from plain_sinkhorn import plain_sinkhorn
from reference_loop import LR, SGD_MOMENTUM, WEIGHT_DECAY
from tiny import MEAN, STD, optim_section
from torch import Tensor, nn

from disco_zoo.methods import Method
from disco_zoo.methods.base import Batch, SmallViews
from disco_zoo.training.optim import build_optimizer

SMALL = SmallViews(count=2, student_size=8, teacher_size=8)
# A step is an epoch here. A queue of 9 is 8 at a batch of 4, opens at epoch 1, is full after 2, is used from epoch 3.
SWAV_OPTIONS = {
    "temperature": 0.2,
    "num_prototypes": 7,
    "epsilon": 0.1,
    "queue_size": 9,
    "queue_start_epoch": 1,
    "freeze_prototypes_steps": 2,
}


def multi_crop_batches(num_steps: int, num_small: int = 2, batch: int = 4) -> list[list[Tensor]]:
    """Two views of 16 pixels and `num_small` of 8, uint8, for each step."""
    generator = torch.Generator().manual_seed(3)
    sizes = [16, 16, *[8] * num_small]
    return [
        [torch.randint(0, 256, (batch, 3, s, s), generator=generator, dtype=torch.uint8) for s in sizes]
        for _ in range(num_steps)
    ]


def train_epochs(method: Method, batches: list[list[Tensor]], first_epoch: int = 0) -> list[dict[str, float]]:
    """The engine's order of things, with an epoch of one step."""
    optimizer = build_optimizer(
        method.parameters(), optim_section(momentum=SGD_MOMENTUM, weight_decay=WEIGHT_DECAY), LR
    )
    records = []
    for epoch, views in enumerate(batches, start=first_epoch):
        method.start_epoch(epoch)
        losses = method.train()(Batch(views, torch.arange(len(views[0]))))
        losses["loss"].backward()
        method.before_step()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()
        records.append({name: value.item() for name, value in losses.items()})
    return records


@dataclass
class Swav:
    """The result of a reference run; `queues` are lists of rows, newest first."""

    query: nn.ModuleList
    prototypes: Tensor
    losses: list[float] = field(default_factory=list)
    used_queue: list[bool] = field(default_factory=list)
    queues: list[list[Tensor]] = field(default_factory=lambda: [[], []])


def reference_swav(
    student: nn.Module,
    prototypes: Tensor,
    batches: list[list[Tensor]],
    *,
    teacher: nn.Module | None = None,
    official: bool = False,
    frozen_steps: int = 2,
) -> Swav:
    """Train copies of `student` and of the prototypes (P, D) with SWAV_OPTIONS."""
    query = nn.ModuleList([copy.deepcopy(student.backbone), copy.deepcopy(student.head)]).train()
    found = Swav(query, prototypes.detach().clone())
    trained = [*query.parameters(), found.prototypes]
    velocities = [torch.zeros_like(parameter) for parameter in trained]
    for step, views in enumerate(batches):
        found.prototypes = found.prototypes / found.prototypes.pow(2).sum(dim=1, keepdim=True).sqrt()
        found.prototypes.requires_grad_()
        rows = embed_all(query, views)
        loss = swav_loss(found, rows, with_queue=step >= 1)
        if teacher is not None:
            loss = loss + distillation(teacher, views, rows, official=official)
        found.losses.append(loss.item())
        gradients = torch.autograd.grad(loss, [*query.parameters(), found.prototypes])
        trained = [*query.parameters(), found.prototypes]
        with torch.no_grad():
            for number, (parameter, gradient) in enumerate(zip(trained, gradients, strict=True)):
                if parameter is found.prototypes and step < frozen_steps:
                    continue
                velocities[number] = SGD_MOMENTUM * velocities[number] + gradient + WEIGHT_DECAY * parameter
                parameter.sub_(LR * velocities[number])
        found.prototypes = found.prototypes.detach()
    return found


def embed_all(query: nn.ModuleList, views: list[Tensor]) -> list[Tensor]:
    """The backbone's BatchNorm sees the two big views as one batch, and so the small ones; the head's sees all."""
    backbone, head = query
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    features = [backbone((torch.cat(group) / 255 - mean) / std) for group in (views[:2], views[2:]) if group]
    rows = head(torch.cat(features))
    return list((rows / rows.norm(dim=1, keepdim=True)).split(len(views[0])))


def swav_loss(found: Swav, rows: list[Tensor], *, with_queue: bool) -> Tensor:
    capacity, total = 8, torch.zeros(())
    for crop in (0, 1):
        candidates = rows[crop].detach()
        full = with_queue and len(found.queues[crop]) == capacity
        if full:
            candidates = torch.cat([torch.stack(found.queues[crop]), candidates])
        found.used_queue.append(full)
        if with_queue:
            found.queues[crop] = [*rows[crop].detach(), *found.queues[crop]][:capacity]
        scores = (candidates @ found.prototypes.detach().T).double()
        targets = torch.tensor(plain_sinkhorn(scores, 0.1, 3), dtype=torch.float64)[-4:]
        for view, other in enumerate(rows):
            if view == crop:
                continue
            logits = other @ found.prototypes.T / 0.2
            log_softmax = logits - torch.logsumexp(logits, dim=1, keepdim=True)
            total = total - (targets.to(log_softmax.dtype) * log_softmax).sum() / 4 / (len(rows) - 1) / 2
    return total


def distillation(teacher: nn.Module, views: list[Tensor], rows: list[Tensor], *, official: bool) -> Tensor:
    """Fixed: the mean over rows of ‖t − s‖². Official: ½ the mean over all numbers, with the teacher as it is."""
    with torch.no_grad():
        pixels = [(v.float() / 255 - 0.3) / 0.4 for v in views]  # tiny_teacher's mean and std
        targets = [teacher.head(teacher.backbone(view)) for view in pixels]
    if official:
        return torch.cat([(t - s).pow(2) for t, s in zip(targets, rows, strict=True)]).mean() / 2
    units = [t / t.norm(dim=1, keepdim=True) for t in targets]
    return torch.cat([(t - s).pow(2).sum(dim=1) for t, s in zip(units, rows, strict=True)]).mean()
