"""From a checkpoint file to the tensors of a timm network, strictly checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor

import disco_zoo.networks.variants as disco_networks
from disco_zoo.core.checkpoint import stated_network
from disco_zoo.core.files import sha256_of
from disco_zoo.errors import BadCheckpoint, WrongNetwork
from disco_zoo.weights.convert.key_maps import Naming, listed, naming_of
from disco_zoo.weights.convert.layouts import Contents, only_tensors, sort_out
from disco_zoo.weights.convert.networks import feature_dim, head_module, head_widths, recognize_network
from disco_zoo.weights.convert.reading import WEIGHTS, read_container, read_run_facts, shown

# Values are kept as they are; float64 would have to be rounded, and no network here computes with integers.
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Converted:
    """A file's content as tensors of a timm network.

    Attributes:
        file: the file's name, without its folder.
        layout: "disco", "moco", "seed", "ssl_small", "bingo", "compress", "swav", "simclr_seed", "simclr", "run",
            "plain", "dino" or "moco_v3".
        network: the timm name of the network, one of ours where timm has none.
        backbone: exactly the tensors of the headless network, under timm's names and in the file's precision.
        head: the self-supervised head in its own names, e.g. "0.weight", for `head_module`; empty if there is none.
        queue: rows (K, D), embeddings of the encoder's own moving average; None where the file has none.
        queue_position: of the row that is replaced next.
        dropped: one line for each group of tensors left out, e.g. "module.encoder_k. (122 tensors)".
        sha256: of the file.
    """

    file: str
    layout: str
    network: str
    backbone: dict[str, Tensor]
    head: dict[str, Tensor]
    queue: Tensor | None
    dropped: tuple[str, ...]
    sha256: str
    queue_position: int = 0


def read_checkpoint(path: Path, network: str | None = None) -> Converted:
    """Read a checkpoint of any layout of spec 6, or a run folder of ours.

    Args:
        path: of the file or folder.
        network: the timm name of the network that the weights are meant for; None accepts any that is recognised.

    Raises:
        WrongNetwork: the tensors are of another network, or not exactly those of one.
        BadCheckpoint: unreadable, hostile, damaged, in no known layout, or (without `network`) of names that several
            networks take and compute differently.
    """
    if os.path.isdir(path):  # unlike Path's, False for a path that cannot be
        return _read_run(path, network)
    contents = sort_out(read_container(path), shown(path.name))
    stated = stated_network(path)
    if stated is not None and network not in (None, stated):
        raise WrongNetwork(f"{shown(path.name)} holds weights of {shown(stated)}, not of {network}")
    return _converted(path, contents, network or stated)


def _read_run(folder: Path, network: str | None) -> Converted:
    facts = read_run_facts(folder)
    recorded, weights = str(facts["architecture"]), folder / WEIGHTS
    if not timm.is_model(recorded):
        raise BadCheckpoint(f"{shown(str(folder))} is of the network {shown(recorded)}, which timm does not have")
    if network not in (None, recorded):
        raise WrongNetwork(f"{shown(str(folder))} holds weights of {recorded}, not of {network}")
    origin = shown(str(weights))
    tensors = only_tensors(read_container(weights), origin)
    disco_networks.check_backbone(recorded, _shapes(tensors), origin)
    return Converted(WEIGHTS, "run", recorded, _complete(recorded, tensors, origin), {}, None, (), facts["sha256"])


def _converted(path: Path, contents: Contents, wanted: str | None) -> Converted:
    origin, layout = shown(path.name), contents.layout
    naming = naming_of(contents.encoder)
    if naming is None:
        raise BadCheckpoint(f"{origin}: no network of the zoo has {listed(contents.encoder) or 'no tensors'}")
    on_top = [key for key in contents.encoder if key.startswith((*naming.heads, *naming.classifiers))]
    backbone = naming.to_timm({k: v for k, v in contents.encoder.items() if k not in set(on_top)}, origin)
    network = recognize_network(naming, layout.name, backbone, wanted, origin)
    head, left_out = _head(contents, naming, on_top, origin)
    _check_head(head, network, feature_dim(backbone), origin)
    if contents.queue is not None:
        _check_values({"queue": contents.queue}, origin)
    return Converted(
        path.name,
        layout.name,
        network,
        _complete(network, backbone, origin),
        head,
        None if contents.queue is None else contents.queue.contiguous(),
        contents.dropped + left_out,
        sha256_of(path),
        contents.queue_position,
    )


def _head(
    contents: Contents, naming: Naming, on_top: Sequence[str], origin: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The self-supervised head among what lies on top of the backbone, and what else lay there."""
    parts = {part: [key for key in on_top if key.startswith(part)] for part in (*naming.heads, *naming.classifiers)}
    parts = {part: keys for part, keys in parts.items() if keys}
    chosen = None
    if contents.layout.has_head and contents.layout.head is None:
        heads = [part for part in naming.heads if part in parts]
        # "projection_head" says what it is, even where the network kept its unused classifier (DisCo's SwAV students).
        chosen = "projection_head." if "projection_head." in heads else next(iter(heads), None)
        if len(heads) > 1 and chosen != "projection_head.":
            raise BadCheckpoint(f"{origin} has more than one head: {', '.join(heads)}")
    head = {key.removeprefix(chosen): contents.encoder[key] for key in parts[chosen]} if chosen else contents.head
    left_out = (f"{contents.layout.take}{part} ({len(parts[part])} tensors)" for part in parts if part != chosen)
    return head, tuple(left_out)


def _check_head(head: Mapping[str, Tensor], network: str, width: int, origin: str) -> None:
    if not head:
        return
    _check_values(head, origin)
    try:
        head_module(head)
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{origin}: {error}") from error
    taken, _ = head_widths(head)
    if taken != width:
        raise BadCheckpoint(f"{origin}: its head takes {taken} features, {network} has {width}")


def _complete(network: str, tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """All tensors of the network in its own order; old files lack BatchNorm's step counters, which are zero then."""
    _check_values(tensors, origin)
    absent = torch.zeros((), dtype=torch.int64)
    return {
        key: (tensors[key] if key in tensors else absent.clone()).contiguous()
        for key in disco_networks.backbone_shapes(network)
    }


def _check_values(tensors: Mapping[str, Tensor], origin: str) -> None:
    odd, not_finite = [], []
    for key, value in tensors.items():
        integer = key.rpartition(".")[2] == _COUNTER
        # A tensor larger than its storage repeats values, without end if the file says so.
        plain = value.layout is torch.strided and value.device.type == "cpu" and _is_backed(value)
        if not plain or (value.dtype is not torch.int64 if integer else value.dtype not in _FLOATS):
            odd.append(f"{key} ({value.dtype if plain else 'not a plain array'})".replace("torch.", ""))
        elif not bool(torch.isfinite(value).all()):
            not_finite.append(key)
    if odd:
        raise BadCheckpoint(f"{origin} has tensors of a type that no network here has: {listed(odd)}")
    if not_finite:
        raise BadCheckpoint(f"{origin} holds NaN or infinite values in {listed(not_finite)}. Download it again")


def _is_backed(value: Tensor) -> bool:
    return value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in tensors.items()}
