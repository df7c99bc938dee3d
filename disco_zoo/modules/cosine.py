"""Cosine losses between a student's and a teacher's rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.precision import at_least_float32


def row_cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − cos(s_i, t_i), a mean over rows; it does not depend on the rows' lengths.

    Args:
        student: (b, D), with gradient.
        teacher: (b, D); no gradient flows into it.
    """
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
        return 1.0 - F.cosine_similarity(student, teacher, dim=1).mean()
