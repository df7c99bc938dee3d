"""The folder that is published: what timm, the Hub and a sceptic need, and nothing that can run.

    README.md            the model card
    config.json          read by timm; our provenance stands under a root key that timm ignores
    golden.safetensors   one input and its features, to recompute
    model.safetensors    the verified bytes, as they are on this machine

Repeatable: the same weights and catalog give the same files, hence no dates of publication in them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn

from disco_zoo.core.checkpoint import stated_network
from disco_zoo.core.environment import package_version
from disco_zoo.core.files import scratch_folder, sha256_of
from disco_zoo.errors import BadCheckpoint, Damaged, PublishError, WrongNetwork
from disco_zoo.networks.variants import check_backbone
from disco_zoo.weights.golden import compare_with_golden, write_golden
from disco_zoo.zoo.catalog import Catalog
from disco_zoo.zoo.model_card import render_card
from disco_zoo.zoo.schema import Checkpoint, Weights

CARD, CONFIG, GOLDEN, MODEL = "README.md", "config.json", "golden.safetensors", "model.safetensors"
FILES = (CARD, CONFIG, GOLDEN, MODEL)
PROVENANCE = "disco_zoo"  # root key of config.json; unknown keys are allowed there, not in pretrained_cfg


@dataclass(frozen=True)
class WeightsFile:
    """A safetensors file to publish.

    `facts` say where it came from; `golden` is its stored input and features; `figures` are what a run measured of its
    student, in percent.
    """

    path: Path
    sha256: str
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    golden: Path | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedFile:
    """One file of the folder."""

    name: str
    size_bytes: int
    sha256: str


def build_folder(
    target: Path, row: Checkpoint, catalog: Catalog, weights: WeightsFile, repo: str
) -> tuple[PublishedFile, ...]:
    """Write the folder, complete or not at all.

    Args:
        target: replaced if it holds such a folder already.
        row: the checkpoint.
        catalog: for the titles of what the row names.
        weights: the file; its bytes are published unchanged.
        repo: `organisation/name`, for the card.

    Returns:
        The files, by name.

    Raises:
        PublishError: `target` holds other things, or cannot be written.
        BadCheckpoint: the file is no safetensors file, holds other than numbers, or fits another network.
        Damaged: the file's sha256 is not the one given.
    """
    network = catalog.network_of(row)
    model = load_model(network, weights.path)
    _require_free(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target.parent, target.name) as scratch:
            folder = scratch / target.name
            folder.mkdir()
            _fill(folder, row, catalog, weights, repo, model)
            if target.exists():
                shutil.rmtree(target)
            folder.rename(target)
    except OSError as error:
        raise PublishError(f"Cannot write {target}: {error.strerror or error}. Choose another folder: --out") from error
    return files_of(target)


def load_model(network: str, path: Path) -> nn.Module:
    """The headless network with the file's tensors, strictly.

    Raises:
        BadCheckpoint: no safetensors file, wrong names, shapes or types, NaN or infinity.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadCheckpoint(
            f"{path} is no safetensors file, and nothing else is published. Type: disco-zoo convert {path} --as NAME"
        ) from error
    if (stated := stated_network(path)) not in (None, network):
        raise WrongNetwork(f"{path} holds weights of {stated}, not of {network}, which would compute something else")
    check_backbone(network, {key: tuple(value.shape) for key, value in tensors.items()}, str(path))
    model = timm.create_model(network, num_classes=0)
    _check_values(tensors, model.state_dict(), path)
    model.load_state_dict(tensors, strict=True)
    return model.eval()


def files_of(folder: Path) -> tuple[PublishedFile, ...]:
    """Name, size and sha256 of each file to publish; other files in the folder are not looked at."""
    paths = [folder / name for name in FILES]
    return tuple(PublishedFile(path.name, path.stat().st_size, sha256_of(path)) for path in paths)


def config(row: Checkpoint, catalog: Catalog, weights: WeightsFile, model: nn.Module) -> dict[str, Any]:
    """What `config.json` says: timm's part, and ours under `PROVENANCE`."""
    network = catalog.network_of(row)
    values: dict[str, Any] = {
        "architecture": network,
        "num_classes": 0,
        "num_features": model.num_features,
    }
    pool = getattr(model, "global_pool", None)
    if isinstance(pool := getattr(pool, "pool_type", pool), str):  # for people; timm does not read it
        values["global_pool"] = pool
    values["pretrained_cfg"] = _pretrained_cfg(row, network)
    values[PROVENANCE] = _provenance(row, catalog, weights)
    return values


def _fill(folder: Path, row: Checkpoint, catalog: Catalog, weights: WeightsFile, repo: str, model: nn.Module) -> None:
    shutil.copyfile(weights.path, folder / MODEL)
    if sha256_of(folder / MODEL) != weights.sha256:
        raise Damaged(f"{weights.path} is damaged, or was changed meanwhile: its sha256 is not {weights.sha256}")
    _fill_golden(folder / GOLDEN, weights, model, row.input.size)
    text = json.dumps(config(row, catalog, weights, model), indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    # The commit is not known before the upload, and a card that named it would need a second one.
    published = Weights(
        source="hub", repo=repo, file=MODEL, sha256=weights.sha256, size_bytes=(folder / MODEL).stat().st_size
    )
    card = render_card(row.model_copy(update={"weights": published}), catalog)
    (folder / CARD).write_text(card, encoding="utf-8")
    for name in FILES:
        (folder / name).chmod(0o644)  # safetensors writes for the owner alone


def _fill_golden(target: Path, weights: WeightsFile, model: nn.Module, input_size: int) -> None:
    """Keep the features of the first day: computed anew they would differ in the last bits on another machine."""
    if weights.golden is None or not weights.golden.is_file():
        write_golden(target, model, input_size)
        return
    difference = compare_with_golden(weights.golden, model)
    if not difference.ok:
        raise Damaged(
            f"{weights.path} no longer gives the features of {weights.golden}: they differ by {difference.largest:.1e} "
            f"of {difference.scale:.2f}. Find out why before you publish; type: disco-zoo verify --all"
        )
    shutil.copyfile(weights.golden, target)


def _check_values(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Counters are integers, all else finite floating-point numbers; loading would convert in silence."""
    for key, value in tensors.items():
        if value.is_floating_point() != wanted[key].is_floating_point():
            raise BadCheckpoint(f"{path}: {key} is {value.dtype}, the network's is {wanted[key].dtype}")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise BadCheckpoint(f"{path}: {key} holds NaN or infinity; such weights are not published")


def _pretrained_cfg(row: Checkpoint, network: str) -> dict[str, Any]:
    """Only fields that timm's PretrainedCfg has: any other makes loading fail."""
    native = get_pretrained_cfg(network, allow_unregistered=False)
    cfg = PretrainedCfg(
        tag=row.tag,
        num_classes=0,
        input_size=(3, row.input.size, row.input.size),
        fixed_input_size=native.fixed_input_size,
        interpolation=row.input.interpolation,
        crop_pct=row.input.crop_pct,
        mean=tuple(row.input.mean),
        std=tuple(row.input.std),
        pool_size=_pool_size(native, row.input.size),
        first_conv=native.first_conv,
        classifier=native.classifier,
        license=row.licence.weights,
        description=row.summary,
        origin_url=row.origin if row.origin.startswith("https:") else None,
    )
    fields: dict[str, Any] = cfg.to_dict(remove_source=True)
    return fields


def _pool_size(native: PretrainedCfg, size: int) -> tuple[int, ...] | None:
    """The last feature map's size in pixels, for an input of `size` pixels."""
    if native.pool_size is None:
        return None
    return tuple(-(-pool * size // native.input_size[-1]) for pool in native.pool_size)


def _provenance(row: Checkpoint, catalog: Catalog, weights: WeightsFile) -> dict[str, Any]:
    teacher = catalog.teachers[row.teacher] if row.teacher else None
    dataset = catalog.datasets[row.data]
    values: dict[str, Any] = {
        "name": row.name,
        "summary": row.summary,
        "method": row.method,
        "teacher": teacher and {"name": teacher.name, "title": teacher.title, "supervision": teacher.supervision},
        "data": {"name": dataset.name, "title": dataset.title},
        "recipe": row.recipe,
        "origin": row.origin,
        "feature_dim": catalog.architectures[row.architecture].feature_dim,
        "licence": row.licence.model_dump(),
        "weights": {"file": MODEL, "sha256": weights.sha256, "size_bytes": weights.path.stat().st_size},
        "disco_zoo_version": package_version(),
    }
    if weights.facts:
        values["source"] = {key: value for key, value in weights.facts.items() if value is not None}
    return values


def _require_free(target: Path) -> None:
    if not target.exists() and not target.is_symlink():
        return
    others = sorted(path.name for path in target.iterdir() if path.name not in FILES) if target.is_dir() else [""]
    if others or target.is_symlink():
        what = f"holds {others[0]}" if others and others[0] else "is no plain folder"
        raise PublishError(f"{target} {what}, which is not ours to replace. Choose another folder: --out")
