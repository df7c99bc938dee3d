"""Similarities of rows, computed in float32 also under mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_HALF = (torch.float16, torch.bfloat16)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are.

    Half precision resolves a cosine near 1 to 5e-4 (fp16) or 4e-3 (bf16), which a temperature of 1e-4 turns into 5
    and 40 units of a logit. The operations that follow must run with autocast off, or they go back to half.
    """
    return values.float() if values.dtype in _HALF else values


def row_cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − cos(s_i, t_i), a mean over rows; it does not depend on the rows' lengths.

    Args:
        student: (b, D), with gradient.
        teacher: (b, D); no gradient flows into it.
    """
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
        return 1.0 - F.cosine_similarity(student, teacher, dim=1).mean()
