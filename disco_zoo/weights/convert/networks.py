"""The network and the self-supervised head (spec 1.3 and 6) that a set of tensors belongs to, from names and shapes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

import disco_zoo.networks.variants as disco_networks
from disco_zoo.errors import BadCheckpoint, WrongNetwork
from disco_zoo.modules.momentum_contrast import projection_head
from disco_zoo.weights.convert import key_maps
from disco_zoo.weights.convert.key_maps import Naming

# (bottleneck, blocks a stage) tells the five ResNets of the papers apart.
_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
# Networks of one set of names and shapes. The first is timm's own, the second the authors' variant, which computes
# something else; so does timm's network with TensorFlow's padding, in which students of ours may have been trained.
_SAME_TENSORS = {
    key_maps.B0_STAGES: ("efficientnet_b0", disco_networks.B0_PAD224, "tf_efficientnet_b0"),
    key_maps.B1_STAGES: ("efficientnet_b1", disco_networks.B1_PAD2),
    (*key_maps.MOBILENETV3_STAGES, 1): ("mobilenetv3_large_100", disco_networks.MOBV3_SE_FIRST),
    key_maps.MOBILENETV2_STAGES: ("mobilenetv2_100",),
}
# Their EfficientNets and MobileNets are timm's own where the names are timm's (spec 7).
_LAYOUTS_OF_TIMMS_NETWORKS = ("moco", "disco", "swav")


def recognize_network(
    naming: Naming, layout: str, backbone: Mapping[str, Tensor], wanted: str | None, origin: str
) -> str:
    """The timm name of the network that computes from these tensors what their authors' code did.

    Args:
        naming: whose names the tensors had before they became timm's.
        layout: of the file; it settles whose network timm's names mean.
        backbone: tensors under timm's names.
        wanted: the network they are meant for, None to accept any.
        origin: the file, for messages.

    Raises:
        WrongNetwork: names or shapes are not those of the network, or it is not the wanted one.
        BadCheckpoint: no network of the zoo, or several that take these tensors and compute different things.
    """
    candidates = _candidates(naming, layout, backbone, origin)
    if wanted is not None and wanted not in candidates:
        raise WrongNetwork(_another(candidates, wanted, origin))
    shapes = {key: tuple(value.shape) for key, value in backbone.items()}
    disco_networks.check_backbone(wanted or candidates[0], shapes, origin)
    if wanted is None and len(candidates) > 1:
        raise BadCheckpoint(
            f"{origin} fits {' and '.join(candidates)}, which compute different things from it, and does not say "
            "whose it is. Name a model of the network that it was trained in: disco-zoo convert FILE --as NAME"
        )
    return wanted or candidates[0]


def feature_dim(backbone: Mapping[str, Tensor]) -> int:
    """Width of the pooled features of a checked backbone under timm's names."""
    for key in ("conv_head.weight", "norm.weight"):
        if key in backbone:
            return backbone[key].shape[0]
    last = max((key for key in backbone if key.startswith("layer4.0.conv")), default="")
    return backbone[last].shape[0]


def _candidates(naming: Naming, layout: str, backbone: Mapping[str, Tensor], origin: str) -> tuple[str, ...]:
    if naming is key_maps.VIT:
        return ("vit_tiny_patch16_224",)
    if naming is key_maps.XCIT:
        return ("xcit_tiny_12_p16_224",)
    if naming is key_maps.RESNET:
        return (_resnet(backbone, origin),)
    stages = _stages(backbone, "blocks.", range(7))
    if stages not in _SAME_TENSORS:
        raise BadCheckpoint(f"{origin}: no network of the zoo has stages of {stages} blocks")
    networks = _SAME_TENSORS[stages]
    if naming in (key_maps.EFFICIENTNET_PYTORCH, key_maps.SEED_MOBILENETV3):
        return networks[1:2]
    return networks[:1] if layout in _LAYOUTS_OF_TIMMS_NETWORKS else networks


def _resnet(backbone: Mapping[str, Tensor], origin: str) -> str:
    bottleneck = any(key.endswith(".conv3.weight") for key in backbone)
    stages = _stages(backbone, "layer", range(1, 5))
    name = _RESNETS.get((bottleneck, stages))
    if name is None:
        raise BadCheckpoint(f"{origin}: no ResNet of the papers has stages of {stages} blocks")
    stem = backbone.get("bn1.weight")
    if name == "resnet50" and stem is not None and stem.dim() == 1:
        widths = {64 * width: wide for wide, width in disco_networks.WIDE_RESNETS.items()}
        return widths.get(stem.shape[0], name)
    return name


def _stages(backbone: Mapping[str, Tensor], prefix: str, numbers: range) -> tuple[int, ...]:
    """Blocks a stage, from names `<prefix><stage>.<block>.…`."""
    found: dict[str, set[str]] = {str(number): set() for number in numbers}
    for key in backbone:
        stage, _, rest = key.removeprefix(prefix).partition(".")
        if key.startswith(prefix) and stage in found:
            found[stage].add(rest.partition(".")[0])
    return tuple(len(blocks) for blocks in found.values())


def _another(candidates: tuple[str, ...], wanted: str, origin: str) -> str:
    found = " or ".join(candidates)
    relatives = next((group for group in _SAME_TENSORS.values() if wanted in group), ())
    if set(candidates) & set(relatives):
        fault = f"{origin} holds weights of {found}; {wanted} would load them and compute something else"
    else:
        fault = f"{origin} holds weights of {found}, not of {wanted}"
    return f"{fault}. Name a model of the network {found}; to see them, type: disco-zoo list"


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
    return projection_head(in_features, hidden, head["3.weight"].shape[0], batch_norm=True)


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
