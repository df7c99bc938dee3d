"""timm's vision transformers as teachers at the recipe's image size, with their own normalisation."""

from __future__ import annotations

import pytest
import timm
import torch

from disco_zoo.errors import BadTeacher
from disco_zoo.models.teacher import Teacher
from disco_zoo.models.teacher_source import load_teacher_source
from disco_zoo.networks.input_size import create_for_any_size


def views(size: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit_relpos", "test_convnext"])
def test_a_teacher_looks_at_the_size_it_is_given(name: str) -> None:
    teacher = Teacher(load_teacher_source(name, pretrained=False), image_size=96)
    assert teacher(views(224)).shape == (2, teacher.embed_dim)


def test_small_crops_go_through_the_same_transformer() -> None:
    teacher = Teacher(load_teacher_source("test_vit", pretrained=False), image_size=96)
    assert teacher(views(96), size=48).shape == (2, 64)


def test_at_its_own_size_a_transformer_is_what_timm_makes_of_it() -> None:
    torch.manual_seed(0)
    ours = create_for_any_size("test_vit", num_classes=0).eval()
    torch.manual_seed(0)
    theirs = timm.create_model("test_vit", num_classes=0).eval()
    images = torch.randn(2, 3, 160, 160)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert torch.equal(ours(images), theirs(images))


def test_dinov2_at_224_pixels_with_its_own_normalisation() -> None:
    loaded = load_teacher_source("vit_small_patch14_dinov2.lvd142m", pretrained=False)
    teacher = Teacher(loaded, image_size=224)
    assert teacher(views(224)).shape == (2, 384)
    assert loaded.mean == pytest.approx((0.485, 0.456, 0.406))


@pytest.mark.parametrize(("name", "size", "better"), [("vit_small_patch14_dinov2", 96, 98), ("mixer_s16_224", 96, 224)])
def test_a_size_that_cannot_be_is_refused_with_one_that_can(name: str, size: int, better: int) -> None:
    with pytest.raises(BadTeacher, match=f"cannot look at {size} pixels .*image_size={better}$"):
        Teacher(load_teacher_source(name, pretrained=False), image_size=size)


def test_the_try_leaves_batch_norm_as_it_was() -> None:
    loaded = load_teacher_source("test_resnet", pretrained=False)
    before = {key: value.clone() for key, value in loaded.backbone.state_dict().items()}
    teacher = Teacher(loaded, image_size=64, bn_mode="train")
    assert all(torch.equal(value, before[key]) for key, value in teacher.backbone.state_dict().items())
    assert teacher.backbone.training
