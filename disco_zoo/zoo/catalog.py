"""The zoo as data: `catalog.yaml`, checked strictly, as immutable objects.

Reads no weights and imports no torch, so that the command line can answer at once. Accuracies are percent
(0..100).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from disco_zoo.core.files import user_path
from disco_zoo.errors import BadCatalog, UnknownName, counted, did_you_mean
from disco_zoo.zoo import validation
from disco_zoo.zoo.licences import spdx_of
from disco_zoo.zoo.schema import METHODS, Architecture, Checkpoint, Dataset, StrictRow, Teacher
from disco_zoo.zoo.search import WEIGHTS_STATES, matching_rows

CATALOG_PATH = Path(__file__).with_name("catalog.yaml")
# Names a catalog of the user's own, in place of the packaged one: a lab publishes its zoo with this same code.
CATALOG_VARIABLE = "DISCO_ZOO_CATALOG"


class Catalog(StrictRow):
    """The whole zoo; checkpoints are keyed by `architecture.tag`."""

    datasets: dict[str, Dataset]
    teachers: dict[str, Teacher]
    architectures: dict[str, Architecture]
    checkpoints: dict[str, Checkpoint]

    def resolve(self, name: str) -> Checkpoint:
        """Find a checkpoint: `effb0` or `disco_effb0` for the default, or `effb0.TAG`, or the full name.

        Raises:
            UnknownName: There is no such checkpoint.
        """
        if (found := self._checkpoint(name)) is not None:
            return found
        raise _no_model(name, self._model_names())

    def entry(self, name: str) -> Checkpoint | Teacher:
        """Find a teacher by its own name, or a checkpoint as `resolve` does.

        Raises:
            UnknownName: There is neither.
        """
        found = self.teachers.get(name) or self._checkpoint(name)
        if found is None:
            of_network = [teacher.name for teacher in self.teachers.values() if teacher.network == name]
            if of_network:
                raise UnknownName(
                    f"{name} is a network of timm. The catalog knows its weights as {', '.join(of_network)}. "
                    f"Type: disco-zoo show {of_network[0]}"
                )
            raise _no_model(name, [*self._model_names(), *self.teachers])
        return found

    @property
    def entries(self) -> list[Checkpoint | Teacher]:
        """Everything that can have weights."""
        return [*self.checkpoints.values(), *self.teachers.values()]

    def network_of(self, row: Checkpoint | Teacher) -> str:
        """The timm name of the network that the weights of `row` fit: its variant, or the architecture's own.

        Raises:
            UnknownName: timm has no such network, or nobody published which it is.
        """
        network = row.network if isinstance(row, Teacher) else self._network(row)
        if network is None:
            raise UnknownName(
                f"{row.name} has no network in timm, so no weights of it can be loaded. Type: disco-zoo show {row.name}"
            )
        return network

    def of_architecture(self, architecture: str) -> list[Checkpoint]:
        """The checkpoints of one architecture, in the catalog's order."""
        return [row for row in self.checkpoints.values() if row.architecture == architecture]

    def matching(
        self,
        pattern: str | None = None,
        *,
        architecture: str | None = None,
        method: str | None = None,
        teacher: str | None = None,
        data: str | None = None,
        weights: str | None = None,
        licence: str | None = None,
        commercial: bool = False,
        installed: Collection[str] = (),
    ) -> list[Checkpoint]:
        """The checkpoints that pass every filter given; all without any.

        Args:
            pattern: A part of the name, or the whole of it with wildcards.
            architecture: Its name or short name.
            weights: The source in the catalog (bundled, hub, official, none), or "installed" for those in `installed`.
            licence: SPDX identifier of the weights' licence, in any case.
            commercial: Only those that `is_commercial` holds for.
            installed: Names of what the user has installed.

        Raises:
            UnknownName: A filter's value does not exist, or nothing matches.
        """
        wanted = {"architecture": self._shorts().get(architecture or "", architecture), "method": method}
        wanted |= {"teacher": teacher, "data": data, "weights": weights}
        wanted |= _licence_wanted(licence, commercial)
        known: dict[str, Collection[str]] = {
            "architecture": [*self.architectures, *self._shorts()],
            "method": METHODS,
            "teacher": self.teachers,
            "data": self.datasets,
            "weights": WEIGHTS_STATES,
        }
        rows = [*self.checkpoints.values()]
        known |= _licences_known(rows)
        return matching_rows(rows, pattern, wanted, known, installed=installed, names=self._model_names())

    def measured_on(self, row: Checkpoint) -> Dataset:
        """The data set whose test images a checkpoint's measured figures are of."""
        return self.datasets[self.datasets[row.data].measured_on or row.data]

    def matching_teachers(
        self,
        pattern: str | None = None,
        *,
        data: str | None = None,
        weights: str | None = None,
        licence: str | None = None,
        commercial: bool = False,
        installed: Collection[str] = (),
    ) -> list[Teacher]:
        """The teachers that pass every filter given, as `matching` does for checkpoints.

        Raises:
            UnknownName: A filter's value does not exist, or nothing matches.
        """
        rows = [*self.teachers.values()]
        wanted = {"data": data, "weights": weights} | _licence_wanted(licence, commercial)
        known = {"data": self.datasets, "weights": WEIGHTS_STATES} | _licences_known(rows)
        return matching_rows(rows, pattern, wanted, known, installed=installed, names=self.teachers)

    def _checkpoint(self, name: str) -> Checkpoint | None:
        architecture, dot, tag = name.partition(".")
        architecture = self._shorts().get(architecture, architecture)
        if architecture not in self.architectures:
            return None
        return self.checkpoints.get(f"{architecture}.{tag if dot else self.architectures[architecture].default}")

    def _network(self, row: Checkpoint) -> str | None:
        return row.variant or self.architectures[row.architecture].native

    def _shorts(self) -> dict[str, str]:
        return {architecture.short: architecture.name for architecture in self.architectures.values()}

    def _model_names(self) -> list[str]:
        return [*self.checkpoints, *self.architectures, *self._shorts()]


def load_catalog(source: Path | str | None = None) -> Catalog:
    """Read the catalog: the one in use (cached), a file (Path), or YAML text (str).

    The one in use is the file that $DISCO_ZOO_CATALOG names, else the packaged one.

    Raises:
        BadCatalog: It is not there, or does not follow the schema; the message lists every fault.
    """
    if source is None:
        return _catalog_in_use()
    if isinstance(source, Path):
        return _parse(source.read_text(encoding="utf-8-sig"), str(source))
    return _parse(source, "catalog text")


def list_models(pattern: str | None = None) -> list[str]:
    """Names of the zoo's checkpoints; `pattern` is a part of the name or has wildcards."""
    return [row.name for row in load_catalog().matching(pattern)]


def _catalog_in_use() -> Catalog:
    own = os.environ.get(CATALOG_VARIABLE)
    path = user_path(own) if own else CATALOG_PATH
    try:
        return _read_once(path, path.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError) as error:
        if not own:
            raise
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise BadCatalog(
            f"{CATALOG_VARIABLE} names {path}, which cannot be read: {reason}. "
            f"Correct it, or for the packaged zoo type: unset {CATALOG_VARIABLE}"
        ) from error


@functools.lru_cache(maxsize=4)
def _read_once(path: Path, modified_ns: int) -> Catalog:
    """Read again only when the file is another one, or was written since."""
    return load_catalog(path)


def _parse(text: str, where: str) -> Catalog:
    raw, faults = validation.read_yaml(text)
    catalog = None
    try:
        catalog = Catalog.model_validate(raw)
    except ValidationError as error:
        known_keys = [key for model in StrictRow.__subclasses__() for key in model.model_fields]
        faults += validation.schema_faults(error, known_keys)
    faults += validation.cross_faults(raw)
    if catalog is None or faults:
        lines = "\n  ".join(faults)
        raise BadCatalog(f"{where} has {counted(len(faults), 'fault')}; correct them and try again:\n  {lines}")
    return catalog


def _licence_wanted(licence: str | None, commercial: bool) -> dict[str, str | None]:
    return {"licence": licence and licence.lower(), "commercial": "yes" if commercial else None}


def _licences_known(rows: Collection[Checkpoint | Teacher]) -> dict[str, Collection[str]]:
    return {"licence": sorted({spdx_of(row)["weights"].lower() for row in rows}), "commercial": ("yes",)}


def _no_model(name: str, known: list[str]) -> UnknownName:
    return UnknownName(f"There is no model {name!r} in the zoo.{did_you_mean(name, known)} Type: disco-zoo list")
