"""Starts as the authors' code draws them: each layer's moments against closed forms, and recipes that ask for them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disco_zoo.config.recipe import bundled_recipes, load_recipe
from disco_zoo.errors import BadRecipe
from disco_zoo.models.student import create_backbone

ENOUGH = 4096  # weights, for a deviation within 6 %


def backbone_of(model: str, kind: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_backbone(model, None, kind)


def layers(network: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


def is_normal(weights: Tensor, std: float) -> bool:
    """Deviation and fourth moment, which is 3σ⁴ of a normal distribution and 1.8σ⁴ of a uniform one."""
    flat = weights.detach().double().flatten()
    return bool(abs(flat.std() / std - 1) < 0.06 and abs((flat**4).mean() / std**4 - 3) < 0.6)


@pytest.mark.parametrize("model", ["disco_r18", "disco_mobv2", "disco_mobv3_se_first"])
def test_torchvision_counts_fan_out_without_groups_and_starts_every_norm_as_the_identity(model: str) -> None:
    """`kaiming_normal_(mode="fan_out")` of torchvision's ResNet and MobileNets: N(0, 2 / (k² · outputs))."""
    network, depthwise = backbone_of(model, "torchvision"), 0
    for name, layer in layers(network).items():
        outputs, _, height, width = layer.weight.shape
        std = 0.01 if layer.bias is not None else math.sqrt(2 / (outputs * height * width))
        depthwise += layer.groups > 1
        if layer.weight.numel() >= ENOUGH:
            assert is_normal(layer.weight, std), name
        assert layer.bias is None or not layer.bias.any(), name
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    assert bool(depthwise) == (model != "disco_r18")


@pytest.mark.parametrize("model", ["disco_effb0_pad224", "disco_effb1_pad2"])
def test_pytorch_draws_weights_and_biases_between_plus_and_minus_one_over_root_fan_in(model: str) -> None:
    """SEED's and BINGO's EfficientNets initialise nothing themselves."""
    network = backbone_of(model, "pytorch")
    for name, layer in layers(network).items():
        bound = 1 / math.sqrt(layer.weight[0].numel())
        flat = layer.weight.detach().double().flatten()
        assert flat.abs().max() <= bound, name
        if layer.weight.numel() >= ENOUGH:
            assert abs(flat.std() / (bound / math.sqrt(3)) - 1) < 0.06, name
            assert abs((flat**4).mean() / (bound**4 / 5) - 1) < 0.15, name
        assert layer.bias is None or (layer.bias.any() and layer.bias.abs().max() <= bound), name


def test_timms_start_is_another_and_stays_the_default() -> None:
    """timm zeroes the last BatchNorm of 8 residual blocks of ResNet-18, and counts fan-out by group."""
    zeroed = [
        m for m in backbone_of("disco_r18", "timm").modules() if isinstance(m, nn.BatchNorm2d) and not m.weight.any()
    ]
    assert len(zeroed) == 8
    torch.manual_seed(0)
    plain, own = create_backbone("disco_r18").state_dict(), backbone_of("disco_r18", "timm").state_dict()
    assert all(torch.equal(plain[key], own[key]) for key in plain)
    depthwise = backbone_of("disco_mobv2", "timm").blocks[2][0].conv_dw.weight  # type: ignore[index,union-attr]
    assert depthwise.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.1)


def authors_start(name: str) -> str:
    """spec 1.5: which start the authors' code gives the student of an in1k recipe."""
    model, method = name.removeprefix("in1k/").split(".")
    if method.startswith(("seed", "bingo")) and "eff" in model:
        return "pytorch"
    resnet = model in ("disco_r18", "disco_r34")
    if method.startswith(("seed", "bingo", "compress")) or (resnet and method.startswith("disco")):
        return "torchvision"
    return "timm"


@pytest.mark.parametrize("name", [name for name in bundled_recipes() if name.startswith("in1k/")])
def test_recipes_of_papers_start_as_their_authors_did(name: str) -> None:
    assert load_recipe(name).student.weight_init == authors_start(name)


def test_a_start_that_would_be_overwritten_is_refused_and_the_default_changes_no_digest() -> None:
    name = "pocket/disco_r18.mocov2_fmnist"
    with pytest.raises(BadRecipe, match=r"student\.weight_init: init checkpoint has every tensor from its file"):
        load_recipe(name, ["student.init=checkpoint", "student.init_from=x", "student.weight_init=pytorch"])
    assert "weight_init" not in load_recipe(name).decisive()["student"]
    assert load_recipe(name, ["student.weight_init=pytorch"]).digest() != load_recipe(name).digest()
