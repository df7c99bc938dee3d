"""The folder of a run: who may write into it, and the facts that make its figures checkable."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

from disco_zoo.claimed_folder import ClaimedFolder
from disco_zoo.errors import BadRunFolder
from disco_zoo.launch import usable_cores
from disco_zoo.recipe import Recipe, load_recipe

VERSIONS_OF = ("disco-zoo", "torch", "torchvision", "timm", "accelerate", "safetensors", "pillow", "numpy", "pyarrow")


class RunFolder(ClaimedFolder):
    """A claimed run folder.

    Args:
        path: created when absent.
        recipe: written as the full resolved `recipe.yaml`.
        resume: go on with what the folder holds. Without it the folder must hold no run.
        writes: False in all processes of a run but one: they neither claim nor write.

    Raises:
        BadRunFolder: in use by another process, holding another recipe's run, or not writable.
    """

    def __init__(self, path: Path, recipe: Recipe, *, resume: bool, writes: bool = True) -> None:
        super().__init__(path)
        if not writes:
            return
        self._acquire()
        try:
            self._claim(recipe, resume)
        except BaseException:
            self.close()
            raise

    @property
    def student(self) -> Path:
        return self.path / "student.safetensors"

    def _claim(self, recipe: Recipe, resume: bool) -> None:
        stored = self.path / "recipe.yaml"
        if not stored.is_file():
            if resume:
                raise BadRunFolder(f"{self.path} holds no run to resume. Repeat the command without --resume")
            self.write_text(stored.name, recipe.as_yaml())
            return
        if not resume and self.checkpoint.is_file():
            raise BadRunFolder(f"{self.path} already holds a run. Add --resume to go on, or choose another --out")
        if resume:
            former = load_recipe(str(stored))
            if former.digest() != recipe.digest():
                raise BadRunFolder(
                    f"{self.path} holds a run of another recipe ({_first_difference(former, recipe)}). "
                    "Choose another --out, or repeat the command that started it"
                )
        self.write_text(stored.name, recipe.as_yaml())


def require_begun(*folders: Path) -> None:
    """Refuse to resume where nothing has begun, so that a misspelt folder does not start a new run.

    Raises:
        BadRunFolder: none of the folders holds a recipe.
    """
    if not any((folder / "recipe.yaml").is_file() for folder in folders):
        raise BadRunFolder(f"{folders[0]} holds no run to resume. Repeat the command without --resume")


def _first_difference(former: Recipe, recipe: Recipe) -> str:
    old, new = former.decisive(), recipe.decisive()
    for section, value in new.items():
        if isinstance(value, dict) and isinstance(old[section], dict):
            for key in {**old[section], **value}:
                if old[section].get(key) != value.get(key):
                    return f"{section}.{key}: {old[section].get(key)} there, {value.get(key)} here"
        elif old[section] != value:
            return f"{section}: {old[section]} there, {value} here"
    return "same keys"


def hardware() -> dict[str, Any]:
    """What the run ran on, without naming the machine."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_model(),
        "cpu_cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "accelerators": devices,
        "system": f"{platform.system()} {platform.machine()}",
    }


def hardware_line() -> str:
    """For example "2 CPU cores (AMD EPYC 7R13)" or "1 × NVIDIA H100"."""
    facts = hardware()
    if facts["accelerators"]:
        return f"{len(facts['accelerators'])} × {facts['accelerators'][0]}"
    return f"{facts['cpu_cores']} CPU cores ({facts['cpu']})"


def benchmark_line(threads: int) -> str:
    """What figures of a benchmark were taken on: "2 CPU cores (AMD EPYC 7R13), 1 thread, torch 2.14.1"."""
    return f"{hardware_line()}, {threads} thread{'s' * (threads != 1)}, torch {versions()['torch']}"


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
