"""An input size is refused by an estimate from shapes, before memory is taken."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from disco_zoo.core.process import available_bytes
from disco_zoo.errors import DiscoZooError
from disco_zoo.networks import input_size
from disco_zoo.networks.input_size import GIB, activation_bytes, fit_input_size, require_memory


def test_the_layer_with_most_at_once_counts() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert activation_bytes(network, 100) == 4 * 100 * 100 * (8 + 8)  # the ReLU, 8 channels in and out
    assert activation_bytes(network, 200) == 4 * activation_bytes(network, 100)  # type: ignore[operator]
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())


def test_a_size_beyond_memory_is_refused_in_one_line_with_one_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    network = timm.create_model("test_efficientnet", pretrained=False, num_classes=0).eval()
    needed = activation_bytes(network, 10000)
    assert needed is not None
    monkeypatch.setattr(input_size, "available_bytes", lambda: needed // 4)
    with pytest.raises(DiscoZooError, match=r"^small at 10000 pixels needs about .* Type: --image-size 4992$"):
        fit_input_size(network, 10000, "small", "--image-size ")
    require_memory(network, 4992, "small", "--image-size ")
    with pytest.raises(DiscoZooError, match=r"for 4 images and .* Type: --batch-size 1$"):
        require_memory(network, 4992, "small", "--image-size ", images=4)


def test_usual_sizes_and_networks_without_shapes_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_size, "available_bytes", lambda: 1)
    require_memory(nn.Identity(), 224, "small", "--image-size ")

    class Asks(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * images.sum().item()

    assert activation_bytes(Asks(), 100) is None
    require_memory(Asks(), 10000, "small", "--image-size ")


def test_memory_of_this_machine_is_known_on_linux() -> None:
    free = available_bytes()
    assert free is None or 0 <= free < 1e5 * GIB
