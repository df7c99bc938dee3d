"""Which checkpoint, and so which recipe, the name in a command means, and where its weights are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from disco_zoo.errors import UnknownName
from disco_zoo.zoo.catalog import Catalog, Checkpoint, Teacher, load_catalog
from disco_zoo.zoo.lite_wheels import LITES

# In full, and for a narrow terminal.
_TEXTS = {
    "installed": ("installed", "installed"),
    "bundled": ("bundled", "bundled"),
    "hub": ("Hub", "Hub"),
    "official": ("official (download converts it)", "official"),
    "broken": ("official (link broken)", "link broken"),
    "no_link": ("official (link unknown)", "link unknown"),
    "no_network": ("official (no network in timm)", "not in timm"),
    "recipe": ("recipe only", "recipe only"),
    "wheel": ("pip package, not installed", "pip package"),
    "none": ("none here", "none"),
}
STATES_LEGEND = (
    "Weights: installed by you, bundled in the package, on the Hub, official (the authors' file: `disco-zoo "
    "download NAME` fetches, converts and installs it), or recipe only. * in another network than the "
    "architecture's own: `disco-zoo show NAME` says which and why."
)


def weights_state(row: Checkpoint | Teacher, catalog: Catalog, installed: Collection[str] = ()) -> str:
    """A key of `_TEXTS`.

    Args:
        installed: Names of what the user has installed; none for what is generated into files.
    """
    if row.name in installed:
        return "installed"
    if row.name in LITES:
        return "wheel"
    weights = row.weights
    if weights.source == "none":
        return "recipe" if isinstance(row, Checkpoint) and row.recipe else "none"
    if weights.source != "official":
        return weights.source
    if not has_network(row, catalog):
        return "no_network"
    if weights.broken:
        return "broken"
    return "official" if weights.url else "no_link"


def weights_text(
    row: Checkpoint | Teacher, catalog: Catalog, installed: Collection[str] = (), *, short: bool = False
) -> str:
    """The state in words, in full or for a narrow terminal."""
    return _TEXTS[weights_state(row, catalog, installed)][short]


def has_network(row: Checkpoint | Teacher, catalog: Catalog) -> bool:
    """Whether timm, or this package in timm's registry, has the network of `row`."""
    try:
        catalog.network_of(row)
    except UnknownName:
        return False
    return True


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


def choose_checkpoint(name: str, data: str | None) -> Choice:
    """Find the checkpoint to reproduce.

    A full name means itself. A short name (`effb0`, `disco_effb0`) means the first distilled checkpoint of that
    architecture on the data given, recognised by its name; without data it means the pocket recipe on the embedded
    sample.

    Raises:
        UnknownName: no such name, or no recipe of that architecture for this data.
    """
    catalog = load_catalog()
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
