"""Weights brought to this machine: the authors' files downloaded, converted and installed; ours fetched.

A conversion ends in safetensors of a headless timm network (a teacher's with its self-supervised head), checked
strictly; nothing of the original's pickle remains.
"""

from __future__ import annotations

import datetime
import hashlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file
from torch import Tensor, nn

import disco_zoo.disco_students  # noqa: F401  registers the networks
from disco_zoo import store
from disco_zoo.atomic import write_whole
from disco_zoo.catalog import Catalog, Checkpoint, Teacher, load_catalog
from disco_zoo.checksum import sha256_of
from disco_zoo.convert import Converted, read_checkpoint
from disco_zoo.errors import BadCheckpoint, Damaged, NotPublished, WeightsError, WrongNetwork
from disco_zoo.golden import write_golden
from disco_zoo.official_download import download_official
from disco_zoo.weights import HEAD_PREFIX, HUB_GOLDEN, local_weights, not_published


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
        file: in any layout of `methods.md` 6; recognised by keys and shapes.
        name: a checkpoint or teacher of the catalog; the tensors must fit its network exactly.
        install: put it into the store, where `timm.create_model(name, pretrained=True)` finds it.
        out: where to write it when it is not installed; None for `NAME.safetensors` here.
        overwrite: replace `out`.

    Raises:
        BadCheckpoint: the file is unreadable, hostile, of no known layout, or of another network.
        CacheNotWritable: the store cannot be written.
    """
    catalog = load_catalog()
    entry = catalog.entry(name)
    network = catalog.network_of(entry)
    target = Path(out) if out else Path(f"{entry.name}.safetensors")
    if not install:
        _require_free(target, overwrite)
    converted = read_checkpoint(Path(file).expanduser(), network)
    tensors = tensors_of(converted, with_head=isinstance(entry, Teacher))

    def write(path: Path) -> None:
        # Nothing but the tensors and timm's own remark: the same conversion gives the same bytes.
        save_file(tensors, path, metadata={"format": "pt"})

    if install:
        facts = _facts(converted, url=None)
        golden = _golden_writer(network, converted.backbone, entry.input.size)
        found = store.install(entry.name, network, write, facts, golden)
        return Conversion(entry.name, found.path, found.sha256, converted)
    write_whole(target, write)
    return Conversion(entry.name, target, sha256_of(target), converted)


def download_weights(name: str, *, folder: Path | str | None = None, force: bool = False) -> Path:
    """Have the weights of `name` on this machine, verified, and return their path.

    Weights of the Hub go to its cache. An authors' file is downloaded, converted and installed in one go.

    Args:
        name: a checkpoint or teacher of the catalog.
        folder: copy the safetensors there, too, as `NAME.safetensors`.
        force: fetch and convert an authors' file again although it is installed.

    Raises:
        NotPublished: there is nothing to download.
        WeightsError: the download failed, or what is here is damaged.
        BadCheckpoint: the authors' file is not what the catalog says.
    """
    catalog = load_catalog()
    entry = catalog.entry(name)
    target = Path(folder) / f"{entry.name}.safetensors" if folder else None
    official = entry.weights.source == "official"
    found = None if official and force else local_weights(entry.name, catalog=catalog, download=True)
    if found is not None:
        path = found.path
        if found.source == "hub":
            _fetch_golden(entry)
    elif entry.weights.downloadable:
        path = _install_official(catalog, entry)
    else:
        raise NotPublished(not_published(catalog, entry))
    if target is None:
        return path
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, lambda partial: shutil.copyfile(path, partial))
    return target


def tensors_of(converted: Converted, *, with_head: bool) -> dict[str, Tensor]:
    """What the safetensors file holds: the backbone, for a teacher also its head under `HEAD_PREFIX`."""
    tensors = dict(converted.backbone)
    if with_head:
        tensors |= {f"{HEAD_PREFIX}{key}": tensor for key, tensor in converted.head.items()}
    # Views of one storage (a queue, a fused matrix) are refused by safetensors.
    return {key: tensor.detach().clone().contiguous() for key, tensor in sorted(tensors.items())}


def load_network(network: str, backbone: dict[str, Tensor]) -> nn.Module:
    """A headless network with these tensors, strictly."""
    model = timm.create_model(network, num_classes=0)
    model.load_state_dict(backbone, strict=True)
    return model


def _fetch_golden(entry: Checkpoint | Teacher) -> None:
    """So that `verify` can recompute the features; loading does not need them."""
    from disco_zoo.hub import fetch_from_hub

    weights = entry.weights
    if weights.golden_sha256:
        fetch_from_hub(
            entry.name, repo=weights.repo or "", revision=weights.revision or "", file=HUB_GOLDEN,
            sha256=weights.golden_sha256,
        )  # fmt: skip


def _install_official(catalog: Catalog, entry: Checkpoint | Teacher) -> Path:
    network = catalog.network_of(entry)
    original = store.home() / "downloads" / entry.name / "original"
    if not original.is_file():
        _download_first(entry, original)
    try:
        _check_published_hash(entry, original)
        converted = read_checkpoint(original, network)
    except WrongNetwork:
        raise  # the file is whole: what the link leads to is of use to somebody
    except (BadCheckpoint, Damaged):
        original.unlink()
        raise
    tensors = tensors_of(converted, with_head=isinstance(entry, Teacher))
    found = store.install(
        entry.name,
        network,
        lambda path: save_file(tensors, path, metadata={"format": "pt"}),
        _facts(converted, entry.weights.url) | {"source_file": entry.weights.file},
        _golden_writer(network, converted.backbone, entry.input.size),
    )
    original.unlink()  # its sha256 is recorded; the optimiser's state and the teacher's copy are not worth keeping
    return found.path


def _download_first(entry: Checkpoint | Teacher, original: Path) -> None:
    """Download from the first of the authors' links that answers with a file."""
    links = [entry.weights.url or "", *entry.weights.other_urls]
    for link in links[:-1]:
        try:
            download_official(link, original, title=entry.name)
            return
        except (WeightsError, BadCheckpoint) as error:
            print(f"disco-zoo: {error}\ndisco-zoo: trying another link of the authors", file=sys.stderr)
    download_official(links[-1], original, title=entry.name)


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


def _facts(converted: Converted, url: str | None) -> dict[str, Any]:
    return {
        "layout": converted.layout,
        "source_file": converted.file,
        "source_sha256": converted.sha256,
        "source_url": url,
        "date": datetime.date.today().isoformat(),
    }


def _golden_writer(network: str, backbone: dict[str, Tensor], size: int) -> Callable[[Path], None]:
    return lambda path: write_golden(path, load_network(network, backbone), size)


def _require_free(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise BadCheckpoint(f"{target} is there already. Choose another --out, or say --yes to replace it")
    if not target.parent.is_dir():
        raise BadCheckpoint(f"The folder {target.parent} does not exist. Create it, or choose another --out")
