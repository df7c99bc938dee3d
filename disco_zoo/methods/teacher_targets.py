"""What the frozen teacher says of the views, as methods of several kinds need it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from disco_zoo.core.precision import at_least_float32
from disco_zoo.errors import BadRecipe
from disco_zoo.methods.batch import Batch
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import FeatureQueue, RunningCenter


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
    rows = [at_least_float32(batch.seen_by(teacher, [number])) for number in numbers]
    if centre is None:
        return rows
    centre.update(torch.cat(rows))
    return [centre(row) for row in rows]


def joint_teacher_rows(
    teacher: Teacher, batch: Batch, numbers: Sequence[int], centre: RunningCenter | None, size: int | None
) -> Tensor:
    """As `teacher_rows`, of all views in one tensor (n·b, D) from one forward.

    Args:
        size: side in pixels at which the teacher sees the views; None for its own.
    """
    rows = at_least_float32(batch.seen_by(teacher, numbers, size))
    if centre is None:
        return rows
    centre.update(rows)
    return centre(rows)


def start_with_teachers_queue(queue: FeatureQueue, teacher: Teacher) -> None:
    """Fill a queue with the one in the teacher's file, as DisCo's code does by accident (spec Q3).

    Raises:
        BadRecipe: the file has none, or one of another shape.
    """
    found = teacher.loaded.queue
    if found is None or found.shape != queue.rows.shape:
        has = "no queue" if found is None else f"a queue of {tuple(found.shape)}"
        raise BadRecipe(
            f"method.queue_init: teacher needs a queue of {tuple(queue.rows.shape)} in the teacher's file, which has "
            f"{has}. Type: --set method.queue_init=random"
        )
    queue.rows.copy_(found)
