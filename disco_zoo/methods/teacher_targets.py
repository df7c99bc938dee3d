"""Targets that several methods make of the frozen teacher's embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.console import say_once
from disco_zoo.core.schema import section_of
from disco_zoo.errors import BadRecipe
from disco_zoo.methods.base import Batch
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import FeatureQueue, MomentumContrast, RunningCenter
from disco_zoo.modules.similarity import at_least_float32

QueueInit = Literal["random", "teacher", "teacher_if_any"]


def require_width(teacher: Teacher, embed_dim: int) -> Teacher:
    """A teacher whose embeddings can be compared number by number with the student's of width `embed_dim`.

    Raises:
        BadRecipe: they are of another width.
    """
    if teacher.embed_dim != embed_dim:
        raise BadRecipe(
            f"student.embed_dim {embed_dim} must be the width of the teacher's embeddings, {teacher.embed_dim}. "
            f"Type: --set student.embed_dim={teacher.embed_dim}"
        )
    return teacher


def official_weight_faults(
    values: Mapping[str, Any], reduction: str, what_it_does: str, weight: float, also: Sequence[float] = ()
) -> list[str]:
    """The official preset's reduction, at a weight that a recipe chose for another one: see `Method.faults`.

    Args:
        weight: the official one.
        also: others that mean the same under both reductions.
    """
    method = section_of(values, "method")
    found = method.get("distill_weight", weight)
    if values.get("preset") != "official" or method.get("distill_reduction") != reduction:
        return []
    if found in (weight, *also):
        return []
    return [
        f"method.distill_weight: the official preset {what_it_does} at a weight of {weight:g}, not {found}. "
        f"Type: --set method.distill_weight={weight:g}, or to keep the weight --set method.distill_reduction=mean"
    ]


def require_two_images(num_images: int) -> None:
    """Refuse a batch in which no image can be compared with another.

    Raises:
        BadRecipe: fewer than two.
    """
    if num_images < 2:
        raise BadRecipe(
            "this method relates the images of a batch and needs two of them. Type: --set optim.batch_size=2"
        )


def teacher_rows(
    teacher: Teacher, batch: Batch, numbers: Sequence[int], centre: RunningCenter | None = None
) -> list[Tensor]:
    """Un-normalised targets (b, D) of each of the views `numbers`, at least float32; a forward a view if not cached.

    Args:
        centre: moved by all views, then subtracted from each; for teachers without an SSL head.
    """
    rows = [at_least_float32(batch.teacher_embeddings(teacher, [number])) for number in numbers]
    if centre is None:
        return rows
    centre.update(torch.cat(rows))
    return [centre(row) for row in rows]


def unit_teacher_rows(
    teacher: Teacher, batch: Batch, numbers: Sequence[int], centre: RunningCenter | None = None
) -> list[Tensor]:
    """As `teacher_rows`, L2-normalised."""
    return [F.normalize(rows, dim=1) for rows in teacher_rows(teacher, batch, numbers, centre)]


def joint_teacher_rows(
    teacher: Teacher, batch: Batch, numbers: Sequence[int], centre: RunningCenter | None, size: int | None
) -> Tensor:
    """As `teacher_rows`, of all views in one tensor (n·b, D) from one forward.

    Args:
        size: side in pixels at which the teacher sees the views; None for its own.
    """
    rows = at_least_float32(batch.teacher_embeddings(teacher, numbers, size))
    if centre is None:
        return rows
    centre.update(rows)
    return centre(rows)


def contrast_beside(
    teacher: Teacher, student: Encoder, embed_dim: int, queue_init: QueueInit, **options: Any
) -> MomentumContrast:
    """Momentum contrast of a student that also learns from a teacher of its embeddings' width.

    Args:
        options: of `MomentumContrast`.
    """
    require_width(teacher, embed_dim)
    contrast = MomentumContrast(student, embed_dim, **options)
    start_queue(contrast.queue, teacher, queue_init)
    return contrast


def start_queue(queue: FeatureQueue, teacher: Teacher, start: QueueInit) -> None:
    """Leave a queue's random rows, or put the queue of the teacher's file in their place, as DisCo's code does (Q3).

    Args:
        start: "teacher" needs one in the file; "teacher_if_any" takes what is there, as the official code does: SwAV's
            files have none.

    Raises:
        BadRecipe: the file has none or one of another shape, or it was dropped when the teacher was installed.
    """
    if start == "random":
        return
    loaded = teacher.loaded
    if loaded.queue is None and loaded.queue_lost:
        raise BadRecipe(
            f"method.queue_init: a former version installed {teacher.title} without its file's queue. "
            f"Type: {loaded.queue_lost}, or --set method.queue_init=random"
        )
    if loaded.queue is None and start == "teacher_if_any":
        say_once(f"{teacher.title} has no queue in its file: the first negatives are random, as in the authors' code")
        return
    if loaded.queue is None or loaded.queue.shape != queue.rows.shape:
        has = "no queue" if loaded.queue is None else f"a queue of {tuple(loaded.queue.shape)}"
        raise BadRecipe(
            f"method.queue_init: {start} needs a queue of {tuple(queue.rows.shape)} in the teacher's file, which has "
            f"{has}. Type: --set method.queue_init=random"
        )
    queue.rows.copy_(loaded.queue)
    queue.position.fill_(loaded.queue_position)
