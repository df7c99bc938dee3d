"""Where a run computes: Accelerate's object, and what the processes of a run may print and hear."""

from __future__ import annotations

import signal
from typing import Any

from disco_zoo.errors import require
from disco_zoo.progress import console
from disco_zoo.recipe import Recipe


def make_accelerator(recipe: Recipe, device: str) -> Any:
    """Accelerate's object for device, precision, accumulation and processes."""
    accelerate = require("accelerate", "train")
    precision = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[recipe.optim.precision]
    # Accelerate keeps one precision a process; a baseline and its student may differ.
    accelerate.state.AcceleratorState._reset_state()
    accelerator = accelerate.Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=recipe.optim.accumulation_steps,
        cpu=device == "cpu",
    )
    console.quiet = not accelerator.is_main_process
    return accelerator


def leave_interrupts_to_parent(_: int) -> None:
    """Ctrl-C reaches the loader's workers, too: they must live until the main process has finished its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
