"""Accelerate's object for a recipe, and console output and DDP settings of its processes."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.console import console
from disco_zoo.errors import BadRecipe, require

ACCUMULATION_VARIABLE = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
# What `accelerate launch` can ask for by its own file of settings, and no recipe knows: another kind of training.
OTHER_KINDS = (
    "ACCELERATE_USE_FSDP",
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_USE_MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG",
)

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")  # of x86 processors


def make_accelerator(recipe: Recipe, device: str) -> Any:
    """Accelerate's object for device, precision, accumulation and processes.

    The recipe and --device decide all of them: what a launcher's environment says of accumulation, precision and
    compiling is passed over, and said.

    Raises:
        BadRecipe: fp16 on a CPU, where accelerate would silently compute in float32; or an environment that asks for
            another kind of training, or another device.
    """
    _refuse_other_kinds(device)
    accelerate = require("accelerate", "train")
    require_precision(recipe, device)
    precision = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[recipe.optim.precision]
    steps = recipe.optim.accumulation_steps
    # Accelerate keeps one precision a process; a baseline and its student may differ.
    accelerate.state.AcceleratorState._reset_state()
    accelerator = accelerate.Accelerator(
        mixed_precision=precision,
        gradient_accumulation_plugin=accelerate.utils.GradientAccumulationPlugin(num_steps=steps),
        dynamo_backend="no",
        cpu=device == "cpu",
    )
    # Of weights of 1 x 1 convolutions, whose strides can be written in two ways; users can do nothing about it.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    console.quiet = not accelerator.is_main_process
    for line in [*_passed_over(recipe), *_slow_precision(recipe, device)]:
        console.print(line, soft_wrap=True)
    return accelerator


def require_precision(recipe: Recipe, device: str) -> None:
    """Demand a GPU for fp16.

    Raises:
        BadRecipe: there is none.
    """
    if recipe.optim.precision == "fp16" and device == "cpu":
        raise BadRecipe("optim.precision: fp16 needs a GPU. Type: --set optim.precision=fp32, or =bf16")


def _refuse_other_kinds(device: str) -> None:
    for variable in OTHER_KINDS:
        if os.environ.get(variable, "").lower() in ("1", "true", "yes"):
            raise BadRecipe(
                f"{variable}={os.environ[variable]}: trainings here are data-parallel alone (DDP). "
                f"Type: unset {variable}, or launch with another accelerate config"
            )
    asked = "cpu" if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes") else ""
    asked = os.environ.get("ACCELERATE_TORCH_DEVICE", asked).partition(":")[0]
    if asked and asked != device.partition(":")[0]:
        raise BadRecipe(
            f"the launcher's environment asks for {asked}, the command for {device}. Type: --device {asked}"
        )


def _passed_over(recipe: Recipe) -> list[str]:
    """A line for each variable of a launcher that says something else than the recipe, which is followed."""
    optim = recipe.optim
    wanted = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}
    lines = []
    accumulated = os.environ.get(ACCUMULATION_VARIABLE, str(optim.accumulation_steps))
    if accumulated != str(optim.accumulation_steps):
        lines.append(
            f"{ACCUMULATION_VARIABLE}={accumulated} is passed over: the recipe accumulates over "
            f"{optim.accumulation_steps}. To follow it: --set optim.accumulation_steps={accumulated}"
        )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    # "no" is what accelerate's launcher says where nobody chose.
    if precision != "no" and wanted.get(precision) != optim.precision:
        follow = f". To follow it: --set optim.precision={precision}" if precision in wanted else ""
        lines.append(
            f"ACCELERATE_MIXED_PRECISION={precision} is passed over: the recipe computes in {optim.precision}{follow}"
        )
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend != "no" and not optim.compile:
        lines.append(
            f"ACCELERATE_DYNAMO_BACKEND={backend} is passed over: the recipe does not compile. "
            "To compile: --set optim.compile=true"
        )
    return lines


def _slow_precision(recipe: Recipe, device: str) -> list[str]:
    """A line where bf16 is computed without instructions for it, which takes many times as long as fp32."""
    if recipe.optim.precision != "bf16" or device != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return []
    found = torch.cpu.get_capabilities()
    if found.get("architecture") != "x86_64" or any(map(found.get, BF16_INSTRUCTIONS)):
        return []
    return [
        "optim.precision: bf16: this processor has no instructions for it, and steps may take many times as long. "
        "Type: --set optim.precision=fp32"
    ]


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
