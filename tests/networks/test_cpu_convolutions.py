"""Convolutions by faster ways on a CPU: values and gradients of `conv2d`, in training alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch import nn

from disco_zoo.networks import cpu_convolutions
from disco_zoo.networks.cpu_convolutions import (
    FEW_POSITIONS,
    DepthwiseConv2d,
    ProductConv2d,
    use_cpu_convolutions,
)


@pytest.fixture
def no_fewest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_convolutions, "MANY_WEIGHTS", 1)


def replaced(network: nn.Module) -> dict[str, type]:
    """Names of the convolutions that take a faster way, and which."""
    ways = (ProductConv2d, DepthwiseConv2d)
    return {name: type(module) for name, module in network.named_modules() if isinstance(module, ways)}


def value_and_gradients(convolution: nn.Module, maps: torch.Tensor) -> list[torch.Tensor]:
    maps = maps.clone().requires_grad_()
    output = convolution(maps)
    output.backward(torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output))
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
    use_cpu_convolutions(other)
    assert type(other) is ProductConv2d
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
    use_cpu_convolutions(other)
    maps = torch.randn(4, 64, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = other(maps), plain(maps)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


DEPTHWISE: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 5, "padding": 2},
    {"kernel_size": 5, "padding": 2, "stride": 2},
    {"kernel_size": 7, "padding": 3, "stride": (2, 1)},
    {"kernel_size": 4, "padding": 1, "stride": 3},
    {"kernel_size": (5, 2), "padding": (0, 1)},
    {"kernel_size": (1, 6), "padding": (0, 3), "stride": (1, 2)},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 13, "padding": 6},
    {"kernel_size": 13, "padding": 6, "stride": 2},
]


@pytest.mark.parametrize("settings", DEPTHWISE, ids=str)
@pytest.mark.parametrize("size", [(2, 2), (3, 3), (5, 7), (8, 6)], ids=str)
def test_depthwise_gradients_are_those_of_the_convolution(settings: dict[str, Any], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 5, groups=5, bias=False, **settings).double()
    other = copy.deepcopy(plain)
    use_cpu_convolutions(other)
    assert type(other) is DepthwiseConv2d
    maps = torch.randn(3, 5, *size, dtype=torch.float64).to(memory_format=torch.channels_last)
    if any(side + 2 * pad < kernel for side, pad, kernel in zip(size, plain.padding, plain.kernel_size, strict=True)):
        pytest.skip("the kernel does not fit the map")
    found, expected = value_and_gradients(other, maps), value_and_gradients(plain, maps)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    output = plain(maps)
    gradient = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
    spread = cpu_convolutions._gradient_of_maps(maps, plain.weight, gradient, plain.stride, plain.padding)
    torch.testing.assert_close(spread, expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize(("groups", "way"), [(1, ProductConv2d), (32, DepthwiseConv2d)])
def test_strides_into_a_single_column(groups: int, way: type, stride: int) -> None:
    """PyTorch's own, in bfloat16, are whatever was in memory (`findings/torch_bf16_narrow_maps.sh`)."""
    torch.manual_seed(0)
    plain = nn.Conv2d(32, 32, 3, stride, 1, groups=groups, bias=False)
    other = copy.deepcopy(plain)
    use_cpu_convolutions(other)
    assert type(other) is way
    for height, width in ((8, 1), (1, 1), (8, 2), (8, 3)):
        maps = torch.randn(64, 32, height, width)
        exact = value_and_gradients(copy.deepcopy(plain).double(), maps.double())
        with torch.autocast("cpu", torch.bfloat16):
            found = value_and_gradients(other, maps)
        other.zero_grad()
        for half, expected in zip(found, exact, strict=True):
            assert (half.double() - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("settings", [DEPTHWISE[2], DEPTHWISE[7]], ids=str)
def test_depthwise_gradients_under_autocast(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(32, 32, groups=32, bias=False, **settings)
    other = copy.deepcopy(plain)
    use_cpu_convolutions(other)
    maps = torch.randn(4, 32, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = value_and_gradients(other, maps)
    assert [tensor.dtype for tensor in found] == [torch.bfloat16, torch.float32, torch.float32]
    for ours, exact in zip(found, value_and_gradients(plain, maps), strict=True):
        assert torch.nn.functional.cosine_similarity(ours.float().flatten(), exact.flatten(), dim=0) > 0.9999


def test_only_wanted_depthwise_gradients_are_computed() -> None:
    convolution = nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False)
    use_cpu_convolutions(convolution)
    maps = torch.randn(2, 4, 4, 4, requires_grad=True)
    convolution.weight.requires_grad_(False)
    convolution(maps).sum().backward()
    assert maps.grad is not None
    assert convolution.weight.grad is None
    assert not convolution(torch.randn(2, 4, 4, 4)).requires_grad


@pytest.mark.parametrize(
    ("name", "products", "depthwise"),
    [
        ("resnet18", 7, 0),
        ("resnet34", 9, 0),
        ("resnet50", 6, 0),
        ("efficientnet_b0", 1, 16),
        ("mobilenetv3_large_100", 1, 15),
        ("vit_tiny_patch16_224", 1, 0),
    ],
)
def test_which_convolutions_of_students_are_replaced(name: str, products: int, depthwise: int) -> None:
    network = timm.create_model(name, num_classes=0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    use_cpu_convolutions(network)
    ways = list(replaced(network).values())
    assert (ways.count(ProductConv2d), ways.count(DepthwiseConv2d)) == (products, depthwise)
    assert replaced(copy.deepcopy(network)) == replaced(network)
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenetv3_large_100"])
def test_a_network_takes_the_same_step(name: str) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=0).double().train()
    other = copy.deepcopy(plain)
    use_cpu_convolutions(other)
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    for network in (plain, other):
        network(images).square().mean().backward()
    for (key, theirs), ours in zip(plain.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12, msg=key)
    other.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        assert torch.equal(other.eval()(images), plain.eval()(images))


@pytest.mark.usefixtures("no_fewest")
@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 3, dilation=2),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, groups=8, bias=False, padding=3),
        nn.Conv2d(8, 16, 3, groups=8, bias=False),
        nn.LazyConv2d(8, 1),
    ],
    ids=str,
)
def test_other_convolutions_are_left_alone(convolution: nn.Module) -> None:
    use_cpu_convolutions(convolution)
    assert replaced(convolution) == {}


@pytest.mark.usefixtures("no_fewest")
@pytest.mark.parametrize(("images", "training", "expected"), [(1, True, True), (1, False, False), (17, True, False)])
def test_only_few_positions_in_training_are_a_product(
    images: int, training: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    convolution = nn.Conv2d(2, 2, 3, padding=1).train(training)
    use_cpu_convolutions(convolution)
    calls: list[int] = []
    monkeypatch.setattr(cpu_convolutions.F, "linear", lambda *given: calls.append(1) or torch.zeros(images, 8, 8, 2))
    assert FEW_POSITIONS == 16 * 8 * 8
    convolution(torch.zeros(images, 2, 8, 8))
    assert bool(calls) == expected
