"""Files of tensors: checkpoints, loaded without executing code from them, and reproducible safetensors."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from disco_zoo.core.console import console
from disco_zoo.core.distributed import num_processes, rank
from disco_zoo.core.files import why_not_read, write_atomically
from disco_zoo.core.random_streams import stream_seed
from disco_zoo.errors import BadRunFolder

NETWORK = "network"
_LENGTH_BYTES = 8


def save_tensors(tensors: Mapping[str, Tensor], path: Path, network: str) -> None:
    """Write tensors with the timm name of their network in the header.

    Names and shapes alone do not tell look-alike networks apart (spec 7): whoever converts or publishes the
    file again learns it from here.
    """
    # Views of one storage (a queue, a fused matrix) are refused by safetensors.
    plain = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    _save_file(plain, path, {"format": "pt", NETWORK: network})


def stated_network(path: Path) -> str | None:
    """The network that a safetensors file states; None for other files, and for those that state none."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(NETWORK)
    except (OSError, SafetensorError):
        return None


def _save_file(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """The library writes metadata in a random order; in one order, equal content is equal bytes."""
    save_file(tensors, path, metadata=metadata)
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps({"__metadata__": header.pop("__metadata__"), **header}, separators=(",", ":")).encode()
        assert len(text) <= length, "the same content, written as compactly"
        file.seek(_LENGTH_BYTES)
        file.write(text.ljust(length))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save tensors, numbers and strings atomically."""
    write_atomically(path, lambda partial: torch.save(state, partial))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load what `save_checkpoint` wrote.

    Raises:
        BadRunFolder: missing, damaged, holding more than plain values, or not to be read for disk or memory.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except FileNotFoundError as error:
        raise BadRunFolder(f"nothing to resume: {path} does not exist. Repeat the command without --resume") from error
    # What the bytes of a damaged file happen to mean decides which of these the unpickler raises.
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, MemoryError) as error:
        if reason := why_not_read(error):
            raise BadRunFolder(
                f"{path} cannot be read: {reason}. Fix it, then repeat the command, or choose another --out"
            ) from error
        raise BadRunFolder(f"{path} is damaged. Choose another --out") from error


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
        _save_file(tensors, partial, metadata)
        partial.chmod(0o644)  # safetensors writes for the owner alone; a published file is for everyone

    write_atomically(path, write)
