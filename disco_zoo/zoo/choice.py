"""Which checkpoint, and so which recipe, the name in a command means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from disco_zoo.errors import UnknownName
from disco_zoo.zoo.catalog import Catalog, Checkpoint, load_catalog

POCKET_DATA = "fmnist_sample"
# How data sets of the catalog are called in paths and Hub names, letters and digits only.
_ALIASES = {
    "cifar10": "cifar10",
    "fashionmnist": POCKET_DATA,
    "imagenet": "in1k",
    "in1k": "in1k",
    "ilsvrc": "in1k",
    "imagenette": "imagenette",
    "tinyimagenet": "tiny_imagenet",
}
# Parts whose names hold that of the whole.
_PART_OF = {"imagenette": "in1k", "tiny_imagenet": "in1k"}


@dataclass(frozen=True)
class Choice:
    """The checkpoint that a command refers to, and the reason as a line ("" for a full name)."""

    checkpoint: Checkpoint
    why: str


def choose_checkpoint(name: str, data: str | None, catalog: Catalog | None = None) -> Choice:
    """Find the checkpoint to reproduce.

    A full name means itself. A short name (`effb0`, `disco_effb0`) means the first distilled checkpoint of that
    architecture on the data given, recognised by its name; without data it means the pocket recipe on the embedded
    sample.

    Raises:
        UnknownName: no such name, or no recipe of that architecture for this data.
    """
    catalog = catalog or load_catalog()
    checkpoint = catalog.resolve(name)
    if "." in name:
        if checkpoint.recipe is None:
            raise UnknownName(f"{checkpoint.name} has no recipe to reproduce it with. Type: disco-zoo list")
        return Choice(checkpoint, "")
    rows = [row for row in catalog.of_architecture(checkpoint.architecture) if row.recipe and row.teacher]
    wanted = POCKET_DATA if data in (None, "sample") else dataset_in(str(data))
    found = next((row for row in rows if row.data == wanted), None)
    if found is None:
        there = ", ".join(row.name for row in rows) or "none for this architecture"
        where = data or "the embedded sample"
        raise UnknownName(f"no recipe of {name} is known to fit {where}. Give a full name; there are: {there}")
    if data is not None:
        return Choice(found, f"{name} on {catalog.datasets[found.data].title} means {found.name}.")
    real = next((row for row in rows if row.data != POCKET_DATA), None)
    hint = f" The real one: disco-zoo reproduce {real.name} --data DATA" if real else ""
    return Choice(found, f"No --data: this is the pocket scale on an embedded sample, a first contact.{hint}")


def dataset_in(data: str) -> str | None:
    """Recognise a data set in a path, e.g. cifar10 in `photos/CIFAR-10/train`; None if in doubt."""
    plain = "".join(c for c in data.lower() if c.isalnum())
    found = {dataset for alias, dataset in _ALIASES.items() if alias in plain}
    if "cifar100" in plain:
        found.discard("cifar10")
    found -= {_PART_OF[dataset] for dataset in found & _PART_OF.keys()}
    return found.pop() if len(found) == 1 else None


def default_out(name: str, steps: int | None) -> Path:
    """Where a run goes without `--out`; a look gets a folder of its own."""
    return Path("runs") / (name if steps is None else f"{name}-{steps}-steps")
