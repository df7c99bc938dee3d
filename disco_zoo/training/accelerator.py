"""Where a run computes: Accelerate's object, and what the processes of a run may print and hear."""

from __future__ import annotations

import os
import warnings
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.console import console
from disco_zoo.errors import BadRecipe, require

ACCUMULATION_VARIABLE = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"


def make_accelerator(recipe: Recipe, device: str) -> Any:
    """Accelerate's object for device, precision, accumulation and processes.

    The recipe decides all of them: what a launcher's environment says of accumulation is passed over, and said.

    Raises:
        BadRecipe: fp16 on a CPU, where accelerate would silently compute in float32.
    """
    accelerate = require("accelerate", "train")
    if recipe.optim.precision == "fp16" and device == "cpu":
        raise BadRecipe("optim.precision: fp16 needs a GPU. Type: --set optim.precision=fp32, or =bf16")
    precision = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[recipe.optim.precision]
    steps = recipe.optim.accumulation_steps
    # Accelerate keeps one precision a process; a baseline and its student may differ.
    accelerate.state.AcceleratorState._reset_state()
    accelerator = accelerate.Accelerator(
        mixed_precision=precision,
        gradient_accumulation_plugin=accelerate.utils.GradientAccumulationPlugin(num_steps=steps),
        cpu=device == "cpu",
    )
    # Of weights of 1 x 1 convolutions, whose strides can be written in two ways; users can do nothing about it.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    console.quiet = not accelerator.is_main_process
    passed_over = os.environ.get(ACCUMULATION_VARIABLE, str(steps))
    if passed_over != str(steps):
        console.print(
            f"{ACCUMULATION_VARIABLE}={passed_over} is passed over: the recipe accumulates over {steps}. "
            f"To follow it: --set optim.accumulation_steps={passed_over}",
            soft_wrap=True,
        )
    return accelerator


def broadcast_batch_norm_alone(method: nn.Module) -> None:
    """Tell DDP which buffers to leave alone: all but BatchNorm's; call it before DDP wraps the method.

    DDP copies the first process's buffers to the others at each forward. Queues and memories, which are up to
    gigabytes, need none of that: they start from the recipe's seed and take in rows that were gathered from all
    processes, so they are equal already, and so are the counters and running means beside them. BatchNorm's
    statistics are not: each process's are of its own share. The first one's are exported and saved, hence also what
    a resumed run gives to all, and to stay equal to it a run that was not interrupted has to do the same.
    """
    shared = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in method.named_modules()
        if isinstance(module, _BatchNorm)
        for name, _ in module.named_buffers(recurse=False)
    }
    left_alone = [name for name, _ in method.named_buffers() if name not in shared]
    # Private by its name, but what torch's documentation tells users to call.
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(method, left_alone)
