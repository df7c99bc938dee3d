"""Going on with a run: what is asked of its checkpoint before any work, and what its processes then draw from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from disco_zoo.core.checkpoint import load_checkpoint, restore_random_state
from disco_zoo.core.console import console
from disco_zoo.core.distributed import num_processes, rank
from disco_zoo.core.random_streams import stream_seed
from disco_zoo.data.dataset import ImageSource
from disco_zoo.errors import BadRunFolder


def read_checkpoint(path: Path, source: ImageSource) -> dict[str, Any]:
    """The state of a run on these images.

    Raises:
        BadRunFolder: missing, damaged, or of a run on other images.
    """
    state = load_checkpoint(path)
    if state.get("data") != source.fingerprint():
        raise BadRunFolder(
            f"{path.parent} holds a run on other images than {source.name}. "
            "Repeat the command with the --data that started it, or choose another --out"
        )
    return state


def restore_draws(states: list[dict[str, Any]], seed: int, step: int) -> None:
    """Let this process draw on from the state that it had; where it is new, from a stream of its own.

    Args:
        states: of the processes that the run had, in rank order.
        seed: of the run.
        step: from which it goes on.
    """
    if len(states) != num_processes():
        console.print(
            f"This run had {len(states)} process{'es' * (len(states) > 1)}, now it has {num_processes()}. "
            "Nothing is lost; sums are of other parts, so from here on the bits differ",
            soft_wrap=True,
        )
    if rank() < len(states):
        restore_random_state(states[rank()])
    else:
        torch.manual_seed(stream_seed("training", seed, rank(), step))
