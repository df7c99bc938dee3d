"""SimCLR (Chen, Kornblith, Norouzi, Hinton 2020, arXiv:2002.05709): contrast within the joint batch; no teacher.

spec 2.11.
"""

from __future__ import annotations

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.distributed import gather_rows_with_grad, num_processes, rank
from disco_zoo.methods.base import Batch, Method
from disco_zoo.methods.teacher_targets import require_two_images
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.multi_crop import embed_views
from disco_zoo.modules.similarity import at_least_float32


def nt_xent_loss(rows: Tensor, candidates: Tensor, own: Tensor, twins: Tensor, temperature: float) -> Tensor:
    """NT-Xent (SimCLR, equation 1), a mean over rows:

    ℓ_i = −log( exp(z_i·c_twin(i) / T) / Σ_{j ≠ own(i)} exp(z_i·c_j / T) )

    Args:
        rows: z (n, D), L2-normalised, with gradient.
        candidates: c (N, D), L2-normalised, with gradient; the rows are among them.
        own: int64 (n,), where among the candidates each row itself is.
        twins: int64 (n,), where the other view of its image is.
        temperature: T.
    """
    with torch.autocast(rows.device.type, enabled=False):
        logits = at_least_float32(rows) @ at_least_float32(candidates).T / temperature
        itself = own[:, None] == torch.arange(len(candidates), device=own.device)
        return F.cross_entropy(logits.masked_fill(itself, -torch.inf), twins)


class SimCLR(Method):
    """Find the other view of each image among all views of the joint batch.

    Over G processes each takes the mean over its own 2b rows against all 2B, and the gather's backward adds what all
    processes' losses say about a row. DDP divides the sum of gradients by G, the joint loss is 1/G of the sum of the
    processes' losses: the two agree, and no further factor is needed.

    Args:
        temperature: T of NT-Xent.
    """

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        embed_dim: int,
        num_images: int = 0,
        *,
        temperature: PositiveFloat = 0.1,
    ) -> None:
        super().__init__(student, None, embed_dim, num_images)
        self.temperature = temperature

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        require_two_images(len(batch.views[0]) * num_processes())  # alone, a twin is the only candidate
        rows = torch.cat(embed_views(self.student, batch.views, self.num_views))
        position = torch.arange(len(rows), device=rows.device)
        first = rank() * len(rows)
        twins = first + position.roll(len(rows) // 2)
        loss = nt_xent_loss(rows, gather_rows_with_grad(rows), first + position, twins, self.temperature)
        return {"loss": loss, "contrast": loss.detach()}
