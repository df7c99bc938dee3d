"""Convolutions of few positions as matrix products: values and gradients of `conv2d`, only where they pay."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch import nn

from disco_zoo.networks import small_maps
from disco_zoo.networks.small_maps import FEW_POSITIONS, SmallMapConv2d, multiply_small_maps


@pytest.fixture
def no_fewest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_maps, "MANY_WEIGHTS", 1)


def multiplied(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, SmallMapConv2d)]


def value_and_gradients(convolution: nn.Module, maps: torch.Tensor) -> list[torch.Tensor]:
    maps = maps.clone().requires_grad_()
    output = convolution(maps)
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    gradients = [parameter.grad for parameter in convolution.parameters()]
    return [output.detach(), maps.grad, *gradients]  # type: ignore[list-item]


@pytest.mark.usefixtures("no_fewest")
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 5, "padding": 2, "stride": (2, 1)},
        {"kernel_size": (1, 3), "padding": (0, 1)},
        {"kernel_size": 2, "stride": 2, "bias": True},
        {"kernel_size": 3, "padding": 3, "stride": 3, "bias": True},
    ],
    ids=str,
)
def test_values_and_gradients_are_those_of_the_convolution(
    settings: dict[str, Any], memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, **{"bias": False, **settings}).double().to(memory_format=memory_format)
    other = copy.deepcopy(plain)
    multiply_small_maps(other)
    assert type(other) is SmallMapConv2d
    maps = torch.randn(3, 5, 4, 6, dtype=torch.float64).to(memory_format=memory_format)
    with torch.no_grad():
        assert not torch.equal(plain(maps), torch.zeros_like(plain(maps)))
    for found, expected in zip(value_and_gradients(other, maps), value_and_gradients(plain, maps), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("no_fewest")
def test_under_autocast_it_computes_in_bfloat16_as_a_convolution_does() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    other = copy.deepcopy(plain)
    multiply_small_maps(other)
    maps = torch.randn(4, 64, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = other(maps), plain(maps)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(("name", "count"), [("resnet18", 4), ("resnet34", 6), ("resnet50", 3), ("efficientnet_b0", 0)])
def test_the_last_stage_of_resnets_is_multiplied(name: str, count: int) -> None:
    network = timm.create_model(name, num_classes=0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    multiply_small_maps(network)
    assert len(multiplied(network)) == count
    assert all(name.startswith("layer4.") for name in multiplied(network))
    assert multiplied(copy.deepcopy(network)) == multiplied(network)
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.usefixtures("no_fewest")
@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 3, dilation=2),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 1),
        nn.LazyConv2d(8, 1),
    ],
    ids=str,
)
def test_what_is_no_plain_product_is_left_alone(convolution: nn.Module) -> None:
    multiply_small_maps(convolution)
    assert not isinstance(convolution, SmallMapConv2d)


@pytest.mark.usefixtures("no_fewest")
@pytest.mark.parametrize(("images", "training", "expected"), [(1, True, True), (1, False, False), (17, True, False)])
def test_only_small_maps_in_training_are(
    images: int, training: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    convolution = nn.Conv2d(2, 2, 3, padding=1).train(training)
    multiply_small_maps(convolution)
    calls: list[int] = []
    monkeypatch.setattr(small_maps.F, "linear", lambda *given: calls.append(1) or torch.zeros(images, 8, 8, 2))
    assert FEW_POSITIONS == 16 * 8 * 8
    convolution(torch.zeros(images, 2, 8, 8))
    assert bool(calls) == expected
