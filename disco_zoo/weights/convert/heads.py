"""The self-supervised heads found in checkpoints, as modules (spec 1.3 and 6)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from disco_zoo.errors import BadCheckpoint
from disco_zoo.modules.momentum_contrast import projection_head

_NORM = ("weight", "bias", "running_mean", "running_var")


def head_module(head: Mapping[str, Tensor]) -> nn.Module:
    """Build the head whose tensors these are; it maps features (B, C) to un-normalised embeddings (B, D), in fp32.

    | tensors | head |
    |---|---|
    | `weight, bias` | one Linear (MoCo-v1, CompRess 1q) |
    | `0, 2` | Linear, ReLU, Linear (MoCo-v2, DisCo, SEED, BINGO, ssl-small) |
    | `0, 1, 3` | Linear, BatchNorm, ReLU, Linear (SwAV, SimCLR of SEED's list) |
    | `fc1, bn1, fc2, bn2` | Linear, BatchNorm, ReLU, Linear, BatchNorm, no Linear with bias (SimCLR) |

    Raises:
        BadCheckpoint: another set of tensors, or shapes that do not fit each other; the message lists them.
    """
    build = _BUILDERS.get(_signature(head))
    if build is None:
        raise BadCheckpoint(f"the head is none that is known (it has {', '.join(sorted(head)) or 'no tensors'})")
    try:
        with torch.device("meta"):  # the tensors come from the file: nothing to initialise
            module = build(head)
        # Old files have no step counters, and SimCLR's last BatchNorm may come without its bias of zeros.
        absent = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in module.state_dict().items()}
        own = {key: value.float() if value.is_floating_point() else value for key, value in head.items()}
        module.load_state_dict({**absent, **own}, strict=True, assign=True)
    except (RuntimeError, ValueError) as error:
        shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in head.items())
        raise BadCheckpoint(f"the tensors of the head do not fit each other ({shapes})") from error
    return module


def head_widths(head: Mapping[str, Tensor]) -> tuple[int, int]:
    """Features taken and embedding width D given by a head that `head_module` builds."""
    weights = [value for value in head.values() if value.dim() == 2]
    return weights[0].shape[1], weights[-1].shape[0]


def _signature(head: Mapping[str, Tensor]) -> frozenset[str]:
    optional = ("num_batches_tracked", "bn2.bias")
    return frozenset(key for key in head if not key.endswith(optional))


def _linear(head: Mapping[str, Tensor]) -> nn.Module:
    out_features, in_features = head["weight"].shape
    return nn.Linear(in_features, out_features)


def _mlp(head: Mapping[str, Tensor]) -> nn.Module:
    hidden, in_features = head["0.weight"].shape
    return projection_head(in_features, hidden, head["2.weight"].shape[0])


def _mlp_with_norm(head: Mapping[str, Tensor]) -> nn.Module:
    hidden, in_features = head["0.weight"].shape
    return nn.Sequential(
        nn.Linear(in_features, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, head["3.weight"].shape[0]),
    )


def _simclr(head: Mapping[str, Tensor]) -> nn.Module:
    hidden, in_features = head["fc1.weight"].shape
    width = head["fc2.weight"].shape[0]
    return nn.Sequential(
        OrderedDict(
            fc1=nn.Linear(in_features, hidden, bias=False),
            bn1=nn.BatchNorm1d(hidden),
            relu1=nn.ReLU(inplace=True),
            fc2=nn.Linear(hidden, width, bias=False),
            bn2=nn.BatchNorm1d(width),
        )
    )


_BUILDERS: dict[frozenset[str], Callable[[Mapping[str, Tensor]], nn.Module]] = {
    frozenset({"weight", "bias"}): _linear,
    frozenset({"0.weight", "0.bias", "2.weight", "2.bias"}): _mlp,
    frozenset({"0.weight", "0.bias", *(f"1.{key}" for key in _NORM), "3.weight", "3.bias"}): _mlp_with_norm,
    frozenset(
        {"fc1.weight", *(f"bn1.{key}" for key in _NORM), "fc2.weight"}
        | {f"bn2.{key}" for key in _NORM if key != "bias"}
    ): _simclr,
}
