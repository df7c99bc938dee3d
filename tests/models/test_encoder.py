"""How an encoder lies in memory: by architecture, size and device, and without a change to what it computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from tiny_runs import toy_parquet, toy_recipe
from torch import nn

from disco_zoo.models.encoder import Encoder, channels_last_pays, choose_memory_format
from disco_zoo.models.teacher import Teacher
from disco_zoo.models.teacher_source import load_teacher_source
from disco_zoo.training.build import build_parts
from disco_zoo.training.run_data import open_data


def is_channels_last(network: nn.Module) -> bool:
    """By a kernel that is wider than a pixel; of the others both formats are one."""
    wide = [p for p in network.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert wide
    found = {p.is_contiguous(memory_format=torch.channels_last) for p in wide}
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize(
    ("name", "image_size", "device", "expected"),
    [
        ("resnet18", 32, "cpu", False),
        ("resnet34", 64, "cpu", False),
        ("resnet18", 65, "cpu", True),
        ("resnet18", 32, "cuda", True),
        ("resnet50", 64, "cpu", True),
        ("efficientnet_b0", 64, "cpu", True),
        ("mobilenetv3_large_100", 32, "cpu", True),
        ("vit_tiny_patch16_224", 64, "cpu", True),
    ],
)
def test_only_small_images_in_plain_resnets_on_cpus_are_contiguous(
    name: str, image_size: int, device: str, expected: bool
) -> None:
    assert channels_last_pays(timm.create_model(name, num_classes=0), image_size, device) == expected


def test_the_format_changes_how_and_not_what() -> None:
    torch.manual_seed(0)
    encoder = Encoder(
        timm.create_model("resnet18", num_classes=0), nn.Identity(), image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3
    ).eval()
    views = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert is_channels_last(encoder)
        expected = encoder(views)
        choose_memory_format(encoder, "cpu")
        assert not is_channels_last(encoder)
        torch.testing.assert_close(encoder(views), expected, atol=1e-5, rtol=1e-4)


def test_students_and_twins_are_channels_last_and_teachers_follow_the_rule(tmp_path: Path) -> None:
    source = open_data(toy_recipe(), str(toy_parquet(tmp_path))).train
    for model, expected in (("resnet18", False), ("test_efficientnet", True)):
        parts = build_parts(toy_recipe("moco_v2", student__model=model), source)
        assert is_channels_last(parts.student)
        assert is_channels_last(parts.method.get_submodule("contrast.twin"))
        teacher = Teacher(load_teacher_source(model, pretrained=False), image_size=32)
        assert is_channels_last(teacher.encoder) == is_channels_last(teacher.folded) == expected
