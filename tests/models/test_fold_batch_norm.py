"""A frozen teacher folded: the same outputs from fewer layers, and the unfolded weights where they are needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from slow_params import slow_but
from tiny import TinyNet, tiny_teacher
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from disco_zoo.models.encoder import Encoder, backbone_fingerprint
from disco_zoo.models.fold_batch_norm import TOLERANCE, fold_batch_norm
from disco_zoo.models.student import student_head
from disco_zoo.models.teacher import Teacher
from disco_zoo.models.teacher_source import load_teacher_source

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
VIEWS = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def norms_of(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def shake_statistics(network: nn.Module, seed: int = 0) -> None:
    """Fresh BatchNorm is almost the identity; a wrong fold of it would pass unseen."""
    generator = torch.Generator().manual_seed(seed)
    ranges = {"running_mean": (-0.3, 0.3), "running_var": (0.5, 2.0), "weight": (0.5, 1.5), "bias": (-0.3, 0.3)}
    for norm in norms_of(network):
        for name, (low, high) in ranges.items():
            getattr(norm, name).data.uniform_(low, high, generator=generator)


def frozen(backbone: nn.Module, head: nn.Module | None = None, size: int = 64) -> Encoder:
    """An encoder as a teacher holds it."""
    encoder = Encoder(backbone, head or nn.Identity(), image_size=size, mean=MEAN, std=STD)
    return encoder.eval().requires_grad_(False)


FOLDED = [
    ("lite0", 0),
    ("resnet50", 0),
    ("efficientnet_b0", 0),  # its norms hold the activations
    ("mobilenetv3_large_100", 0),
    ("regnety_002", 0),
    ("resnetv2_50", 17),  # the rest comes before its convolution and cannot be folded
    ("xcit_tiny_12_p16_224", 12),  # as here
]


@pytest.mark.parametrize(("name", "left"), slow_but(FOLDED, [FOLDED[0], FOLDED[2], FOLDED[5]]))
def test_folded_networks_compute_the_same_with_fewer_norms(name: str, left: int) -> None:
    torch.manual_seed(0)
    loaded = load_teacher_source(name, pretrained=False)
    if name != "lite0":  # this one is trained
        shake_statistics(loaded.backbone)
    teacher = Teacher(loaded, image_size=64)
    with torch.no_grad():
        expected = loaded.backbone((VIEWS / 255 - view(loaded.mean)) / view(loaded.std))
    found = teacher(VIEWS)
    scale = expected.square().mean().sqrt()
    assert (found - expected).abs().max() <= TOLERANCE * scale
    assert not torch.equal(expected, expected[:1].expand_as(expected))
    assert len(norms_of(teacher.folded)) == left < len(norms_of(teacher.encoder))
    assert not any(module.training for module in teacher.folded.modules())
    assert not any(parameter.requires_grad for parameter in teacher.folded.parameters())


def view(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_networks_without_batch_norm_exist_once(name: str) -> None:
    teacher = Teacher(load_teacher_source(name, pretrained=False), image_size=64)
    assert teacher.folded is teacher.encoder


def test_a_head_is_folded_and_all_other_tensors_are_shared() -> None:
    torch.manual_seed(0)
    encoder = frozen(TinyNet(), student_head("mlp_bn", 8, 10, 4), size=16)
    shake_statistics(encoder)
    views = VIEWS[:, :, :16, :16]
    folded = fold_batch_norm(encoder)
    assert not norms_of(folded)
    torch.testing.assert_close(folded(views), encoder(views), atol=1e-6, rtol=1e-5)
    assert folded.head.get_submodule("3").weight is encoder.head.get_submodule("3").weight
    assert folded.backbone.get_submodule("conv").weight.is_contiguous(memory_format=torch.channels_last)


def test_what_identifies_and_measures_a_teacher_sees_the_weights_as_loaded() -> None:
    teacher = tiny_teacher()
    names, before = list(teacher.encoder.state_dict()), backbone_fingerprint(teacher.encoder)
    teacher(VIEWS[:, :, :16, :16])
    assert teacher.folded is not teacher.encoder
    assert list(teacher.encoder.state_dict()) == names
    assert backbone_fingerprint(teacher.encoder) == before
    assert norms_of(teacher.backbone)


def test_a_teacher_in_train_mode_is_not_folded() -> None:
    teacher = tiny_teacher(bn_mode="train")
    before = backbone_fingerprint(teacher.encoder)
    teacher(VIEWS[:, :, :16, :16])
    assert teacher.folded is teacher.encoder
    assert backbone_fingerprint(teacher.encoder) != before


def test_folding_draws_no_random_number() -> None:
    teacher, before = tiny_teacher(), torch.get_rng_state()
    _ = teacher.folded
    assert torch.equal(torch.get_rng_state(), before)


class Between(nn.Module):
    """Convolution, something of the test's, BatchNorm."""

    num_features = 6

    def __init__(self, between: Callable[[Between, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.bn, self.between = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), between

    def forward(self, images: Tensor) -> Tensor:
        return self.between(self, self.conv(images)).mean(dim=(2, 3))


@pytest.mark.parametrize(
    "between",
    [
        lambda net, x: net.bn(torch.relu(x)),
        lambda net, x: net.bn(x.relu_()),  # the same tensor object, with other values
        lambda net, x: net.bn(x) + x,  # a second reader of the convolution's output
        lambda net, x: net.bn(net.bn(x)),
        lambda net, x: x,
    ],
    ids=["relu", "relu in place", "second reader", "norm used twice", "norm not used"],
)
def test_what_cannot_be_folded_stays_as_it_is(between: Callable[[Between, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    encoder = frozen(Between(between), size=16)
    shake_statistics(encoder)
    assert fold_batch_norm(encoder) is encoder


def test_a_network_that_computes_nan_stays_unfolded() -> None:
    encoder = frozen(TinyNet(), size=16)
    encoder.backbone.get_submodule("bn").running_var[0] = -1.0
    assert fold_batch_norm(encoder) is encoder


def test_no_hook_remains() -> None:
    encoder = frozen(TinyNet(), size=16)
    folded = fold_batch_norm(encoder)
    for network in (encoder, folded):
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_teacher_that_made_room_still_answers() -> None:
    teacher, views = tiny_teacher(), VIEWS[:, :, :16, :16]
    expected, folded = teacher(views), teacher.folded
    teacher.offload()
    assert "folded" not in vars(teacher)
    assert torch.equal(teacher(views), expected)
    assert teacher.folded is not folded
