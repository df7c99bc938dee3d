"""The most memory that this process has held."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

MIB = 2**20


def peak_memory_mib(device: torch.device | str = "cpu") -> float | None:
    """Peak in MiB: of tensors on a CUDA device, else of this process's resident memory; None where nobody counts it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux a child starts with its parent's peak.
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) / 1024 if "VmHWM" in fields else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024
