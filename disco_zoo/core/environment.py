"""The environment of a run: processor, versions, time; never the name of the machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from disco_zoo.core.launcher import usable_cores

if TYPE_CHECKING:
    import torch

VERSIONS_OF = ("disco-zoo", "torch", "torchvision", "timm", "accelerate", "safetensors", "pillow", "numpy", "pyarrow")


def hardware(device: torch.device | str | None = None) -> dict[str, Any]:
    """Processor and accelerators, without the machine's name.

    Args:
        device: of this process; the others of its run are taken to have one of the same kind. None for all there are.
    """
    import torch

    from disco_zoo.core.distributed import num_processes

    if device is None:
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    else:
        devices = _accelerator(torch.device(device)) * num_processes()
    return {
        "cpu": _cpu_model(),
        "cpu_cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "accelerators": devices,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _accelerator(device: torch.device) -> list[str]:
    """One process's; none on a CPU."""
    import torch

    if device.type == "cpu":
        return []
    return [torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()]


def hardware_line(device: torch.device | str | None = None) -> str:
    """For example "2 CPU cores (AMD EPYC 7R13)" or "1 × NVIDIA H100"; see `hardware`."""
    return hardware_text(hardware(device))


def hardware_text(facts: Mapping[str, Any]) -> str:
    """What `hardware` found, as `hardware_line` says it."""
    if facts["accelerators"]:
        return f"{len(facts['accelerators'])} × {facts['accelerators'][0]}"
    return f"{facts['cpu_cores']} CPU cores ({facts['cpu']})"


def benchmark_line(threads: int) -> str:
    """One line about the hardware of a benchmark: "2 CPU cores (AMD EPYC 7R13), 1 thread, torch 2.14.1"."""
    return f"{hardware_line()}, {threads} thread{'s' * (threads != 1)}, torch {versions()['torch']}"


def package_version() -> str:
    """Of disco-zoo."""
    try:
        return importlib.metadata.version("disco-zoo")
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path, not installed
        return "0+unknown"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def now() -> str:
    """UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
