"""What the engine knows of a method, and nothing else."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from disco_zoo.encoder import Encoder
from disco_zoo.teachers import Teacher


class Method(nn.Module):
    """A training objective around a student.

    The constructor's positional arguments come from the engine; its keyword-only arguments *are* the schema
    of a recipe's `method:` section. State that must survive a resume lives in parameters and buffers.

    Attributes:
        num_views: views drawn of each image.
        needs_teacher: whether a recipe must name one.
        OFFICIAL: what `preset: official` sets, as recipe paths, to repeat the authors' code with its quirks.
    """

    num_views: ClassVar[int] = 2
    needs_teacher: ClassVar[bool] = False
    OFFICIAL: ClassVar[dict[str, Any]] = {}

    def __init__(self, student: Encoder, teacher: Teacher | None, embed_dim: int) -> None:
        super().__init__()
        self.student, self.teacher, self.embed_dim = student, teacher, embed_dim

    def forward(self, views: list[Tensor], index: Tensor) -> dict[str, Tensor]:
        """Map uint8 views [(b, 3, S, S), ...] and indices (b,) to {"loss": scalar, other scalars to log}."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called once after each step of the optimiser: the place for EMA updates."""
