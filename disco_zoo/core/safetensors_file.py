"""Safetensors that say which network their tensors are for, and of which equal tensors give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

NETWORK = "network"
_LENGTH_BYTES = 8


def save_tensors(tensors: Mapping[str, Tensor], path: Path, network: str) -> None:
    """Write tensors with the timm name of their network in the header.

    Names and shapes alone do not tell look-alike networks apart (spec 7): whoever converts or publishes the
    file again learns it from here.
    """
    # Views of one storage (a queue, a fused matrix) are refused by safetensors.
    plain = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    save_file(plain, path, metadata={"format": "pt", NETWORK: network})
    _sort_metadata(path)


def stated_network(path: Path) -> str | None:
    """The network that a safetensors file states; None for other files, and for those that state none."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(NETWORK)
    except (OSError, SafetensorError):
        return None


def _sort_metadata(path: Path) -> None:
    """The library writes metadata in a random order; in one order, equal content is equal bytes."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps({"__metadata__": header.pop("__metadata__"), **header}, separators=(",", ":")).encode()
        assert len(text) <= length, "the same content, written as compactly"
        file.seek(_LENGTH_BYTES)
        file.write(text.ljust(length))
