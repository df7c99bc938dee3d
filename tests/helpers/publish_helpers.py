"""What the tests of publishing share: a catalog of their own, weights of any row, and Python without disco_zoo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

import disco_zoo.networks.variants  # noqa: F401  registers the networks of ours
from disco_zoo.core.files import sha256_of
from disco_zoo.weights.publish.folder import WeightsFile
from disco_zoo.zoo.catalog import CATALOG_PATH, Catalog, Checkpoint, load_catalog

NAME = "disco_effb0.disco_lite0_cifar10"  # bundled
# In front of a script: as on a machine where disco_zoo was never installed.
WITHOUT_DISCO_ZOO = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "disco_zoo":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def own_catalog(folder: Path, name: str = NAME, **changes: Any) -> Path:
    """A copy of the catalog in which the row `name` has other values at its top level, as text."""
    text = CATALOG_PATH.read_text(encoding="utf-8")
    for key, value in changes.items():
        start = text.index(f"  {name}:\n")
        line = text.index(f"    {key}:", start)
        text = text[:line] + f"    {key}: {value}\n" + text[text.index("\n", line) + 1 :]
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def random_weights(path: Path, network: str, seed: int = 0) -> WeightsFile:
    """Safetensors of a headless network with random tensors, BatchNorm's statistics included."""
    torch.manual_seed(seed)
    tensors = timm.create_model(network, num_classes=0).state_dict()
    for key, value in tensors.items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    save_file(tensors, path)
    return WeightsFile(path, sha256_of(path), "file", {})


def run_facts(name: str, **student: Any) -> dict[str, Any]:
    """What `run.json` says of a finished run of the row `name`; `student` adds to it or falsifies it."""
    catalog, row = zoo_row(name)
    size, mean, std = row.input.size, row.input.mean, row.input.std
    return {
        "name": name,
        "steps": 600,
        "total_steps": 600,
        "data": {"images": catalog.datasets[row.data].num_train},
        "student": {
            "model": row.architecture,
            "architecture": catalog.network_of(row),
            "mean": mean,
            "std": std,
            "image_size": size,
            "resize_size": int(size / row.input.crop_pct),
            **student,
        },
    }


def zoo_row(name: str) -> tuple[Catalog, Checkpoint]:
    catalog = load_catalog()
    return catalog, catalog.checkpoints[name]


def run_python(script: str, folder: Path, environment: Mapping[str, str] | None = None, *arguments: str) -> Any:
    """Run a script in another process, far from this repository, and return the JSON it prints last."""
    process = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])
