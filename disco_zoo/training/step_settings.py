"""Settings that change what a step costs and not what it computes: gradient checkpointing and `torch.compile`."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from disco_zoo.config.recipe import Recipe
from disco_zoo.errors import BadRecipe
from disco_zoo.training.build import Parts


def apply_step_settings(recipe: Recipe, parts: Parts) -> None:
    """Set up the networks of a run, once they are complete and on their device; tensors' names stay.

    Raises:
        BadRecipe: the architecture cannot checkpoint, or nothing can be compiled here.
    """
    backbone = parts.student.backbone
    if recipe.student.gradient_checkpointing:
        checkpoint_gradients(backbone, recipe.student.model)
    if recipe.optim.compile:
        _require_compiler(next(backbone.parameters()).device)
        backbone.compile()
        if parts.teacher is not None:
            parts.teacher.folded.backbone.compile()


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
