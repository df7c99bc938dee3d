"""Which weights are published: the installed or bundled ones, a file, a run's student, or a published folder's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from disco_zoo.core.claimed_dir import FACTS
from disco_zoo.core.files import sha256_of
from disco_zoo.errors import PublishError
from disco_zoo.weights.publish.folder import CONFIG, GOLDEN, MODEL, PROVENANCE, WeightsFile
from disco_zoo.weights.resolve import local_weights
from disco_zoo.weights.run_fit import run_fault
from disco_zoo.zoo.catalog import Catalog, Checkpoint

RESULTS = "results.json"  # of `reproduce`


def local_file(row: Checkpoint, catalog: Catalog, folder: Path) -> WeightsFile:
    """The installed or bundled weights; for published ones the folder that was built for it."""
    found = local_weights(row.name, catalog=catalog)
    if found is not None and found.source != "hub":
        return WeightsFile(found.path, found.sha256, found.source, found.facts, found.golden)
    if row.weights.source != "hub":
        raise PublishError(
            f"The weights of {row.name} are not on this machine. Add --weights FILE or RUN_FOLDER, or type: "
            f"disco-zoo download {row.name}"
        )
    if (folder / CONFIG).is_file() and (known := _published(folder, row)).sha256 == row.weights.sha256:
        return known
    # The cache holds the bytes alone: published from there, they would lose their provenance.
    raise PublishError(
        f"{row.name} is published already, as {row.weights.repo}. To publish it again, have the whole repository: "
        f"hf download {row.weights.repo} --local-dir FOLDER, then add --weights FOLDER"
    )


def given_file(path: Path, row: Checkpoint, catalog: Catalog) -> WeightsFile:
    """A safetensors file, the student of a run folder, or the weights of a published one."""
    if not path.exists():
        raise PublishError(f"There is no {path}. Name a safetensors file, a run folder or a published one: --weights")
    if not path.is_dir():
        return WeightsFile(path, sha256_of(path), "file")
    return _published(path, row) if (path / CONFIG).is_file() else _student(path, row, catalog)


def _published(folder: Path, row: Checkpoint) -> WeightsFile:
    """The weights of a folder that `build_folder` made, with their provenance."""
    stated = _stated(folder / CONFIG, PROVENANCE, "name", "weights")
    facts = stated.get("source") or {}
    known = _checked(folder, MODEL, stated["weights"].get("sha256"), stated["name"], row, "published", facts)
    return replace(known, golden=folder / GOLDEN)


def _student(folder: Path, row: Checkpoint, catalog: Catalog) -> WeightsFile:
    """The student of a finished run of this checkpoint."""
    stated = _stated(folder / FACTS, None, "name", "student")
    if fault := run_fault(stated, row, catalog):
        raise PublishError(f"{folder} {fault}")
    name, sha256 = Path(str(stated["student"].get("file"))).name, stated["student"].get("sha256")
    facts = {"layout": "run", "source_file": name, "source_sha256": sha256, "date": str(stated.get("ended", ""))[:10]}
    known = _checked(folder, name, sha256, stated["name"], row, "run", {k: v for k, v in facts.items() if v})
    return replace(known, figures=_figures(folder, stated))


def _figures(folder: Path, stated: dict[str, Any]) -> dict[str, float]:
    """The student's figures as `train` or `reproduce` measured them; none where there were no labels."""
    if isinstance(figures := stated.get("figures"), dict):
        return figures
    if not (folder / RESULTS).is_file():
        return {}
    return dict(_stated(folder / RESULTS, None, "figures")["figures"].get("student") or {})


def _stated(path: Path, key: str | None, *needed: str) -> dict[str, Any]:
    """What a JSON file of ours says, with the keys `needed`, the last of which is a mapping."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values = values[key] if key else values
        if isinstance(values, dict) and all(values[key] for key in needed) and isinstance(values[needed[-1]], dict):
            return values
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PublishError(f"{path} does not describe weights. Name a finished run or a published folder") from error
    raise PublishError(f"{path} does not describe weights. Name a finished run or a published folder")


def _checked(
    folder: Path, file: str, sha256: str, name: str, row: Checkpoint, source: str, facts: dict[str, Any]
) -> WeightsFile:
    if name != row.name:
        raise PublishError(f"{folder} is of {name}, not of {row.name}. Type: disco-zoo publish {name}")
    path = folder / file
    if not path.is_file() or sha256_of(path) != sha256:
        raise PublishError(f"{path} is not the file that {folder} describes. Train, convert or download it again")
    return WeightsFile(path, sha256, source, facts)
