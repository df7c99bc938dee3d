"""What changes the cost of a step: progressive resizing, gradient checkpointing, `torch.compile`, precision.

By progressive resizing the student looks at small images first and ends at the size it is shipped for. Views are drawn
at one size throughout, the largest that student or teacher looks at, so that the views of an image, and with them a
teacher cache, do not depend on the schedule. The student reduces them to the size of the epoch.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from bisect import bisect_right
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from disco_zoo.config.recipe import Recipe
from disco_zoo.errors import BadRecipe
from disco_zoo.methods.base import Method
from disco_zoo.models.encoder import Encoder
from disco_zoo.networks.cpu_convolutions import use_cpu_convolutions
from disco_zoo.training.build import Parts

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(recipe: Recipe, device: torch.device | str) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision for steps outside of a run, where the recipe asks for it."""
    dtype = PRECISIONS[recipe.optim.precision]
    return contextlib.nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype=dtype)


def apply_step_settings(recipe: Recipe, parts: Parts) -> None:
    """Set up the networks of a run, once they are complete and on their device; tensors' names stay.

    Raises:
        BadRecipe: the architecture cannot checkpoint, or nothing can be compiled here.
    """
    backbone = parts.student.backbone
    if recipe.student.gradient_checkpointing:
        checkpoint_gradients(backbone, recipe.student.model)
    device = next(backbone.parameters()).device
    if recipe.optim.compile:
        _require_compiler(device)
        backbone.compile()
        if parts.teacher is not None:
            parts.teacher.folded.backbone.compile()
    elif device.type == "cpu":
        use_cpu_convolutions(parts.method)


def checkpoint_gradients(backbone: Any, title: str) -> None:
    """Keep the inputs of blocks alone, and compute the rest again in the backward pass: less memory, more time.

    BatchNorm's statistics move once a step, as without.

    Raises:
        BadRecipe: timm cannot do this for the architecture.
    """
    try:
        backbone.set_grad_checkpointing(True)
    except (AttributeError, AssertionError, NotImplementedError) as error:  # how timm's networks say no
        raise BadRecipe(
            f"{title} cannot checkpoint gradients. Type: --set student.gradient_checkpointing=false"
        ) from error
    for module in backbone.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.register_forward_pre_hook(functools.partial(_keep_statistics_in_backward, module.momentum))


def _keep_statistics_in_backward(momentum: float | None, norm: Any, inputs: Any) -> None:
    """Give BatchNorm its momentum in a forward pass, and none where that is repeated inside a backward pass."""
    # Private by its name; torch's own checkpointing asks it, too.
    repeated = torch._C._current_graph_task_id() != -1
    norm.momentum = 0.0 if repeated else momentum
    if repeated and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.sub_(1)  # the forward adds one


def _require_compiler(device: torch.device) -> None:
    """Compile one addition, so that a missing compiler is found before the run begins."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:  # each backend misses its tools in its own way
        reason = " ".join(str(error).split())[:200]
        raise BadRecipe(
            f"optim.compile: nothing can be compiled here ({reason}). Type: --set optim.compile=false"
        ) from error


class ImageSizes:
    """The student's image size at each step of a run.

    Args:
        recipe: its `student.image_sizes` maps epochs, also fractions of them, to pixels, or to several sizes that steps
            take in turn; empty for one size throughout.
        steps_per_epoch: a phase begins at this multiple of its epoch, rounded to the nearest step.

    Raises:
        BadRecipe: there are too few steps for one of the sizes.
    """

    def __init__(self, recipe: Recipe, steps_per_epoch: int) -> None:
        schedule = sorted((recipe.student.image_sizes or {0.0: [recipe.student.image_size]}).items())
        self.first_steps = [round(epoch * steps_per_epoch) for epoch, _ in schedule]
        self.sizes = [sizes for _, sizes in schedule]
        self.total_steps = recipe.optim.epochs * steps_per_epoch
        for sizes, steps in zip(self.sizes, self._lengths(), strict=True):
            if steps < len(sizes):
                raise BadRecipe(
                    f"student.image_sizes: {steps} steps are left for {', '.join(map(str, sizes))} px in "
                    f"{recipe.optim.epochs} epochs of {steps_per_epoch}. Give them a longer part, or more images"
                )

    def at(self, step: int) -> int:
        """Side in pixels at which `step` (from 0) trains."""
        sizes = self.sizes[bisect_right(self.first_steps, step) - 1]
        return sizes[step % len(sizes)]

    def apply(self, method: Method, step: int) -> None:
        """Set the input size of student and EMA copy to that of `step`."""
        for module in method.modules():
            if isinstance(module, Encoder):
                module.image_size = self.at(step)

    def shares(self) -> dict[int, float]:
        """The share of all steps that each size gets, up to the rounding of turns."""
        shares: dict[int, float] = {}
        for sizes, steps in zip(self.sizes, self._lengths(), strict=True):
            for size in sizes:
                shares[size] = shares.get(size, 0.0) + steps / len(sizes) / self.total_steps
        return shares

    def _lengths(self) -> list[int]:
        return [end - first for first, end in itertools.pairwise([*self.first_steps, self.total_steps])]


def recipes_by_size(recipe: Recipe, num_images: int) -> list[tuple[Recipe, float]]:
    """The recipe once for each size that its student looks at, with the share of all steps; for what a step costs.

    Each draws its views at the recipe's own `view_size`.
    """
    if not recipe.student.image_sizes:
        return [(recipe, 1.0)]
    sizes = ImageSizes(recipe, recipe.optim.steps_per_epoch(num_images))
    return [(_at_size(recipe, size, sizes), share) for size, share in sizes.shares().items()]


def _at_size(recipe: Recipe, size: int, sizes: ImageSizes) -> Recipe:
    """The recipe with a student that looks at `size` from the first step on; the views stay as large as they are."""
    schedule = {0.0: [size, *itertools.chain(*sizes.sizes)]}
    student = recipe.student.model_copy(update={"image_size": size, "image_sizes": schedule})
    return recipe.model_copy(update={"student": student})
