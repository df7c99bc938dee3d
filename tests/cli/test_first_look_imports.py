"""Refusals come before torch, timm and torchvision are imported: modules are counted, times depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "timm", "torchvision", "sklearn", "matplotlib", "pyarrow")
SCRIPT = f"""
import json, sys
from disco_zoo.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, [name for name in {HEAVY!r} if name in sys.modules]]))
"""


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder with a run, a result and a recipe's name nowhere."""
    for name in (
        "run/recipe.yaml",
        "run/checkpoint.pt",
        "run/run.json",
        "there.json",
        "there.npy",
        "free.npy",
        "photos/a.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("embed nowhere --model disco_effb0 --out e.npy", "there is no data at nowhere"),
        ("embed photos --model disco_effb0 --out free.npy", "free.npy is there already"),
        ("embed photos --model disco_effb0 --out there.npy", "there.json is there and is no embedding's"),
        ("evaluate knn disco_effb0 --data nowhere", "there is no data at nowhere"),
        ("evaluate linear disco_effb0 --data sample --eval-data nowhere", "there is no data at nowhere"),
        ("evaluate knn disco_effb0 --data sample --out there.json", "there.json is there already"),
        ("finetune disco_effb0 --data nowhere", "there is no data at nowhere"),
        ("finetune disco_effb0 --data photos --out run", "run already holds a run. Add --resume"),
        ("train disco_effb0.disco_lite0_cifar10 --data nowhere", "there is no data at nowhere"),
        ("train disco_effb0.disco_lite0_cifar10 --data photos --out run", "run already holds a run. Add --resume"),
    ],
)
def test_a_refusal_imports_nothing_heavy(there: Path, command: str, words: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command.split()], cwd=there, capture_output=True, text=True, check=True
    )
    code, imported = json.loads(ended.stdout)
    assert (code, imported) == (2, [])
    assert ended.stderr.count("\n") == 1
    assert words in ended.stderr
