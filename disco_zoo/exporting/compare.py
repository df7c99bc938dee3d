"""Compares an exported file's outputs with PyTorch's, in batches of several sizes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from disco_zoo.errors import CannotExport, first_line
from disco_zoo.exporting.subject import Subject

Runner = Callable[[Tensor], Tensor]
BATCH_SIZES = (1, 2, 5)
# Largest difference, in shares of the largest number. The zoo's students differ by less than 2e-6 in ONNX Runtime.
TOLERANCE = 1e-4


def largest_difference(subject: Subject, run: Runner) -> float:
    """The largest |theirs - ours| over `BATCH_SIZES`, as a share of the largest |ours|.

    Raises:
        CannotExport: shapes differ, something is not finite, or the other cannot run such a batch.
    """
    worst = 0.0
    for batch in BATCH_SIZES:
        images = subject.example(batch, seed=1)
        with torch.no_grad():
            ours = _called(subject, subject.network, images, "PyTorch")
        theirs = _called(subject, run, images, "the file")
        if theirs.shape != ours.shape:
            raise CannotExport(f"the file gives {tuple(theirs.shape)} where PyTorch gives {tuple(ours.shape)}")
        if not torch.isfinite(ours).all():
            raise CannotExport(f"{subject.named.name} gives values that are not finite: its weights are damaged")
        difference = (theirs.float() - ours).abs().max() / ours.abs().max().clamp_min(1e-12)
        worst = max(worst, difference.item() if torch.isfinite(difference) else float("inf"))
    return worst


def _called(subject: Subject, run: Runner, images: Tensor, who: str) -> Tensor:
    try:
        return run(images)
    except Exception as error:  # each runtime has its own
        raise CannotExport(
            f"{subject.named.name}: {who} cannot run a batch of {len(images)}: {first_line(error)}"
        ) from error


def require_same(subject: Subject, run: Runner, tolerance: float, kind: str) -> float:
    """The largest difference, refused above `tolerance`.

    Raises:
        CannotExport: the file computes something else.
    """
    found = largest_difference(subject, run)
    if not found <= tolerance:
        raise CannotExport(
            f"the {kind} file of {subject.named.name} differs from PyTorch by {found:.1e} of the largest number, "
            f"more than {tolerance:.0e}: nothing was written. Try another --format, or allow it with --tolerance"
        )
    return found
