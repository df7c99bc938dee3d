"""Checkpoints of a run: one file, written atomically, loaded without executing code from it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from disco_zoo.core.console import console
from disco_zoo.core.distributed import num_processes, rank
from disco_zoo.core.files import write_atomically
from disco_zoo.core.random_streams import stream_seed
from disco_zoo.errors import BadRunFolder


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save tensors, numbers and strings atomically."""
    write_atomically(path, lambda partial: torch.save(state, partial))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load what `save_checkpoint` wrote.

    Raises:
        BadRunFolder: missing, damaged, or holding more than plain values.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except FileNotFoundError as error:
        raise BadRunFolder(f"nothing to resume: {path} does not exist. Repeat the command without --resume") from error
    # What the bytes of a damaged file happen to mean decides which of these the unpickler raises.
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        raise BadRunFolder(f"{path} is damaged. Delete the folder or choose another --out") from error


def random_state() -> dict[str, Any]:
    """State of the generators that dropout and shuffles draw from: the CPU's and this process's accelerator's."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["accelerator"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and "accelerator" in state:
        torch.cuda.set_rng_state(state["accelerator"])


def restore_random_states(states: list[dict[str, Any]], seed: int, step: int) -> None:
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


def export_backbone(backbone: nn.Module, path: Path, *, half: bool, metadata: dict[str, str]) -> None:
    """Write a backbone as safetensors; `half` stores floating tensors as fp16, which timm loads into fp32."""
    tensors = {}
    for key, tensor in backbone.state_dict().items():
        value = tensor.detach().cpu().contiguous()
        if half and value.is_floating_point() and value.abs().max() <= torch.finfo(torch.float16).max:
            value = value.half()
        tensors[key] = value

    def write(partial: Path) -> None:
        save_file(tensors, partial, metadata=metadata)
        partial.chmod(0o644)  # safetensors writes for the owner alone; a published file is for everyone

    write_atomically(path, write)
