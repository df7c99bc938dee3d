"""Where a row's weights are, as text for `list` and `show`."""

from __future__ import annotations

from collections.abc import Collection

from disco_zoo.errors import UnknownName
from disco_zoo.zoo.catalog import Catalog, Checkpoint, Teacher
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
