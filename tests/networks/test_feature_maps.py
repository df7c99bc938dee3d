"""Feature maps against timm's own `features_only` with the same tensors."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

import disco_zoo.networks.variants  # noqa: F401  registers the variants
from disco_zoo.errors import DiscoZooError
from disco_zoo.networks.feature_maps import PYRAMID_STRIDES, FeatureMaps, map_strides
from disco_zoo.networks.input_size import create_for_any_size


def backbone(name: str) -> Any:
    """With BatchNorm statistics that are not the first ones, so that a wrong tensor shows."""
    torch.manual_seed(0)
    model = create_for_any_size(name, num_classes=0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model.eval()


@pytest.mark.parametrize("name", ["test_resnet", "efficientnet_b0", "disco_mobv3_se_first", "mobilenetv2_100"])
def test_maps_are_those_of_the_features_only_twin_with_every_tensor_it_has(name: str) -> None:
    model = backbone(name)
    twin = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    tensors = model.state_dict()
    twin.load_state_dict({key: tensors[key] for key in twin.state_dict()}, strict=True)
    images = torch.rand(1, 3, 64, 96)
    maps = FeatureMaps(model, PYRAMID_STRIDES, title=name).eval()
    with torch.no_grad():
        for own, other, stride in zip(maps(images), twin(images), PYRAMID_STRIDES, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4)  # one of them is channels last
            assert own.shape[-2:] == (64 // stride, 96 // stride)
    assert maps.channels == tuple(twin.feature_info.channels())
    kept = {key.removeprefix("getter.model.") for key in maps.state_dict()}
    assert kept == set(twin.state_dict())


def test_a_plain_transformer_has_one_map_behind_its_norm() -> None:
    model = backbone("test_vit")
    tokens = model.forward_features(torch.full((1, 3, 160, 160), 0.3))[:, model.num_prefix_tokens :]
    maps = FeatureMaps(model, (16,), title="vit").eval()
    (found,) = maps(torch.full((1, 3, 160, 160), 0.3))
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), tokens, rtol=1e-4, atol=1e-5)


def test_frozen_maps_stay_in_eval_mode_and_learn_nothing() -> None:
    maps = FeatureMaps(backbone("test_resnet"), (32,), title="r", frozen=True)
    before = {key: value.clone() for key, value in maps.state_dict().items()}
    (found,) = maps.train()(torch.rand(2, 3, 64, 64))
    assert not found.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in maps.state_dict().items())


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scales() -> None:
    maps = FeatureMaps(backbone("test_resnet"), (32,), title="r", freeze_batch_norm=True).train()
    before = {key: value.clone() for key, value in maps.state_dict().items() if "running" in key}
    assert before
    maps(torch.rand(2, 3, 64, 64))[0].sum().backward()
    assert all(torch.equal(maps.state_dict()[key], value) for key, value in before.items())
    assert maps.getter.model.bn1.weight.grad is not None
    learning = FeatureMaps(backbone("test_resnet"), (32,), title="r").train()
    learning(torch.rand(2, 3, 64, 64))
    assert not all(torch.equal(learning.state_dict()[key], value) for key, value in before.items())


def test_a_map_that_is_not_there() -> None:
    with pytest.raises(DiscoZooError, match=r"vit has no feature maps of stride \[4, 8, 32\], only of \[16\]"):
        FeatureMaps(backbone("test_vit"), PYRAMID_STRIDES, title="vit")
    with pytest.raises(DiscoZooError, match="timm gives no feature maps of it"):
        map_strides(nn.Flatten(), "it")


def test_a_transformer_of_one_size_is_refused() -> None:
    fixed = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    with pytest.raises(DiscoZooError, match="it cannot look at images of any size"):
        FeatureMaps(fixed, (16,), title="it")
