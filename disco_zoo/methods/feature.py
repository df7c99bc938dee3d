"""Feature regression from a foundation model: standardised teacher features, an MLP adapter, a cosine loss.

For teachers like DINOv2, DINOv3 and SigLIP, which come as timm models with pooled features and no SSL head. Ours, of
common parts: targets standardised dimension by dimension (PHI-S, arXiv:2410.01680, studies this and its kin), and an
adapter that is thrown away after training.
"""

from __future__ import annotations

import itertools
from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor, nn

from disco_zoo.core.schema import EmaMomentum
from disco_zoo.methods.base import Batch, Method
from disco_zoo.methods.teacher_targets import teacher_rows
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.similarity import row_cosine_loss
from disco_zoo.modules.standardize import RunningStandardizer


def mlp(in_features: int, hidden_features: int, out_features: int, layers: int) -> nn.Sequential:
    """Linear layers with GELU between them; `layers` of them, 1 for a single Linear."""
    widths = [in_features, *[hidden_features] * (layers - 1), out_features]
    parts: list[nn.Module] = []
    for width, following in itertools.pairwise(widths):
        parts += [nn.Linear(width, following), nn.GELU()]
    return nn.Sequential(*parts[:-1])


class FeatureDistillation(Method):
    """L = 1 − cos(adapter(s_i), (t_i − μ) / σ), a mean over rows; one view, no queue, no twin.

    s is what the student's head puts out, before L2 normalisation; with `student.head: none` the adapter sits on the
    backbone's features, which is the usual choice (and needs `student.embed_dim` at the backbone's width). Teachers
    with an SSL head: `teacher.features: backbone`.

    Args:
        adapter_layers: linear layers of the adapter.
        adapter_hidden_dim: width between them; None for the teacher's.
        standardise_momentum: of the running mean μ and deviation σ of the teacher's dimensions, per step.
    """

    num_views: ClassVar[int] = 1
    needs_teacher: ClassVar[bool] = True

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        embed_dim: int,
        num_images: int = 0,
        *,
        adapter_layers: PositiveInt = 2,
        adapter_hidden_dim: PositiveInt | None = None,
        standardise_momentum: EmaMomentum = 0.99,
    ) -> None:
        super().__init__(student, teacher, embed_dim, num_images)
        width = self.require_teacher().embed_dim
        self.adapter = mlp(embed_dim, adapter_hidden_dim or width, width, adapter_layers)
        self.standardise = RunningStandardizer(width, standardise_momentum)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        targets = teacher_rows(self.require_teacher(), batch, (0,))[0]
        self.standardise.update(targets)
        outputs = self.adapter(self.student.head(self.student.features(batch.views[0])))
        return {"loss": row_cosine_loss(outputs, self.standardise(targets))}

    def compared(self, embeddings: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.adapter(embeddings), self.standardise(targets)
