"""The variants compute what their names say, with timm's keys; nothing of another network gets in."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from disco_zoo.errors import WrongNetwork
from disco_zoo.networks.variants import WIDE_RESNETS, backbone_shapes, check_backbone

VARIANTS = {
    "disco_effb0_pad224": "tf_efficientnet_b0",
    "disco_effb1_pad2": "tf_efficientnet_b1",
    "disco_mobv3_se_first": "mobilenetv3_large_100",
}
FROZEN = [("disco_effb0_pad224", "tf_efficientnet_b0", 224), ("disco_effb1_pad2", "tf_efficientnet_b1", 240)]


def calibrated(name: str, **options: Any) -> nn.Module:
    """Random weights with BatchNorm statistics of some other batch, in eval mode."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return model.eval()


@pytest.mark.parametrize(("variant", "native"), VARIANTS.items())
def test_a_variant_has_its_natives_tensors_and_other_numbers(variant: str, native: str) -> None:
    assert backbone_shapes(variant) == backbone_shapes(native)
    ours, theirs = calibrated(variant), calibrated(native)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 3, 225, 225)
    with torch.inference_mode():
        difference = (ours(images) - theirs(images)).abs().max() / theirs(images).abs().max()
    assert difference > 0.01


@pytest.mark.parametrize(("variant", "native", "side"), FROZEN)
def test_frozen_padding_equals_tfs_where_it_was_frozen(variant: str, native: str, side: int) -> None:
    ours, theirs = calibrated(variant), calibrated(native)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize(("variant", "native", "side"), FROZEN)
def test_frozen_padding_keeps_the_dilation_of_output_stride(variant: str, native: str, side: int) -> None:
    ours, theirs = (calibrated(name, output_stride=8) for name in (variant, native))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert ours.blocks[5][0].conv_dw.dilation == theirs.blocks[5][0].conv_dw.dilation == (2, 2)
    images = torch.randn(1, 3, side, side)  # the padding of a convolution of stride 1 is symmetric at any size
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize(("variant", "native", "side"), FROZEN)
def test_padding_is_that_of_the_definition(variant: str, native: str, side: int) -> None:
    """Tan and Le 2019, table 1: kernels and steps of the five convolutions that step; SAME adds what lacks, last."""
    del native
    model = calibrated(variant)
    steps = [model.conv_stem, *(model.blocks[stage][0].conv_dw for stage in (1, 2, 3, 5))]
    for kernel, convolution in zip((3, 3, 5, 3, 5), steps, strict=True):
        total = max((-(-side // 2) - 1) * 2 + kernel - side, 0)
        before = convolution.padding[0]
        assert (convolution.kernel_size[0], convolution.stride[0]) == (kernel, 2)
        assert (before, before + convolution.after) == (total // 2, total - total // 2)
        side = -(-side // 2)


def test_se_first_gates_before_it_activates() -> None:
    """One block against a plain forward: gate(BN(depthwise)) first, hard-swish after."""
    model = calibrated("disco_mobv3_se_first")
    changed = [block for stage in model.blocks for block in stage if hasattr(block, "se") and hasattr(block.se, "gate")]
    assert len(changed) == 8
    block = model.blocks[2][1]
    x = torch.randn(2, 40, 14, 14)
    with torch.inference_mode():
        inner = F.relu(
            F.batch_norm(
                block.conv_pw(x),
                block.bn1.running_mean,
                block.bn1.running_var,
                block.bn1.weight,
                block.bn1.bias,
                eps=block.bn1.eps,
            )
        )
        inner = F.batch_norm(
            block.conv_dw(inner),
            block.bn2.running_mean,
            block.bn2.running_var,
            block.bn2.weight,
            block.bn2.bias,
            eps=block.bn2.eps,
        )
        pooled = inner.mean((2, 3), keepdim=True)
        gate = F.hardsigmoid(block.se.conv_expand(F.relu(block.se.conv_reduce(pooled))))
        inner = F.relu(inner * gate)
        expected = x + F.batch_norm(
            block.conv_pwl(inner),
            block.bn3.running_mean,
            block.bn3.running_var,
            block.bn3.weight,
            block.bn3.bias,
            eps=block.bn3.eps,
        )
        torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_serve_timms_options(variant: str) -> None:
    images = torch.randn(1, 3, 64, 64)
    assert timm.create_model(variant, num_classes=7)(images.expand(2, -1, -1, -1)).shape == (2, 7)
    assert len(timm.create_model(variant, features_only=True).eval()(images)) == 5
    assert timm.create_model(variant, in_chans=1, num_classes=0).eval()(images[:, :1]).shape == (1, 1280)
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        timm.create_model(variant, pretrained=True)


def test_a_variant_can_be_exported_and_trained() -> None:
    model = calibrated("disco_mobv3_se_first")
    images = torch.randn(1, 3, 64, 64)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), model(images))
    model.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(("name", "width"), WIDE_RESNETS.items())
def test_wide_resnets_are_wide_everywhere(name: str, width: int) -> None:
    narrow, wide = backbone_shapes("resnet50"), backbone_shapes(name)
    assert list(narrow) == list(wide)
    for key, shape in narrow.items():
        if key == "conv1.weight":
            assert wide[key] == (64 * width, 3, 7, 7)
        elif len(shape) == 4:
            assert wide[key] == (shape[0] * width, shape[1] * width, *shape[2:])


def test_width_two_equals_a_plain_bottleneck_forward() -> None:
    model = calibrated("disco_r50w2")
    images = torch.randn(1, 3, 64, 64)

    def norm(x: torch.Tensor, bn: nn.Module) -> torch.Tensor:
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=1e-5)

    with torch.inference_mode():
        x = F.relu(norm(F.conv2d(images, model.conv1.weight, stride=2, padding=3), model.bn1))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for index, stage in enumerate((model.layer1, model.layer2, model.layer3, model.layer4)):
            for number, block in enumerate(stage):
                stride = 2 if index and not number else 1
                y = F.relu(norm(F.conv2d(x, block.conv1.weight), block.bn1))
                y = F.relu(norm(F.conv2d(y, block.conv2.weight, stride=stride, padding=1), block.bn2))
                y = norm(F.conv2d(y, block.conv3.weight), block.bn3)
                if not number:
                    x = norm(F.conv2d(x, block.downsample[0].weight, stride=stride), block.downsample[1])
                x = F.relu(x + y)
        torch.testing.assert_close(model(images), x.mean((2, 3)), rtol=1e-4, atol=1e-4)
    assert model(images).shape == (1, 4096)


def test_only_the_batch_counters_may_be_missing() -> None:
    shapes = dict(backbone_shapes("resnet18"))
    check_backbone("resnet18", shapes, "f")
    check_backbone("resnet18", {k: s for k, s in shapes.items() if not k.endswith("num_batches_tracked")}, "f")


def test_every_fault_of_a_file_is_listed_in_one_line() -> None:
    shapes = dict(backbone_shapes("resnet18"))
    del shapes["bn1.weight"]
    shapes["extra.weight"] = (1,)
    shapes["conv1.weight"] = (64, 3, 3, 3)
    with pytest.raises(WrongNetwork) as caught:
        check_backbone("resnet18", shapes, "f.pth")
    assert str(caught.value) == (
        "f.pth does not fit resnet18: missing (1) bn1.weight; unknown (1) extra.weight; "
        "of another shape (1) conv1.weight (64, 3, 3, 3), not (64, 3, 7, 7)"
    )


def test_names_of_a_file_are_listed_without_what_a_terminal_would_obey() -> None:
    shapes = {**backbone_shapes("resnet18"), "a\n\x1b[31mb": (1,), "c" * 1000: (1,)}
    with pytest.raises(WrongNetwork) as caught:
        check_backbone("resnet18", shapes, "f.pth")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
