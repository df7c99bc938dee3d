"""How far a training is."""

from __future__ import annotations

from dataclasses import dataclass, field

from disco_zoo.config.recipe import Recipe


@dataclass
class Position:
    """How far a training is; all of it goes into the checkpoint.

    Attributes:
        step: optimizer steps taken.
        seconds: of training, without evaluation, over all resumes.
        data_wait_seconds: of these, spent waiting for a batch.
        unreadable: index -> what was wrong, of the images that could not be read.
    """

    step: int = 0
    seconds: float = 0.0
    data_wait_seconds: float = 0.0
    unreadable: dict[int, str] = field(default_factory=dict)

    @property
    def data_wait_share(self) -> float:
        return self.data_wait_seconds / max(self.seconds, 1e-9)

    def images_per_s(self, images_per_step: float) -> float:
        return self.step * images_per_step / max(self.seconds, 1e-9)


def total_steps(recipe: Recipe, num_images: int) -> int:
    return recipe.optim.epochs * recipe.optim.steps_per_epoch(num_images)
