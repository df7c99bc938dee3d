"""FLOPs of a plan: published figures and closed forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from method_runs import method_recipe
from slow_params import slow_but
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from disco_zoo.errors import UnknownName
from disco_zoo.plan.counters import CORRECTIONS, Flops
from disco_zoo.plan.stand_ins import NoiseSource, build_weightless, shapes_only, weightless_teacher, without_weights
from disco_zoo.plan.step_cost import step_cost
from disco_zoo.zoo.catalog import load_catalog

IMAGES = 26


def flops_of(network: nn.Module, *inputs: torch.Tensor) -> tuple[int, int]:
    """Forward and backward, on real tensors or on shapes."""
    with FlopCounterMode(display=False, custom_mapping=CORRECTIONS) as counter:
        output = network(*inputs)
        forward = counter.get_total_flops()
        output.sum().backward()
    return forward, counter.get_total_flops() - forward


# Multiply-adds of one forward at 224 pixels, from the papers: He et al. 2016 with the stride of torchvision's network,
# Tan and Le 2019, Touvron et al. 2021 (DeiT-B, the same network).
PUBLISHED = [("resnet50", 4.1), ("efficientnet_b0", 0.39), ("vit_base_patch16_224", 17.6)]


@pytest.mark.parametrize(
    ("teacher", "published_gmacs"),
    slow_but(PUBLISHED, PUBLISHED[1:2]),
)
def test_published_multiply_adds(teacher: str, published_gmacs: float) -> None:
    recipe = method_recipe("kd_mse", teacher__source=teacher, teacher__image_size=224)
    cost = step_cost(without_weights(recipe), NoiseSource(IMAGES), 2)
    assert cost.flops.teacher / 2 / 2e9 == pytest.approx(published_gmacs, rel=0.015)


def test_parts_of_momentum_contrast_in_closed_form() -> None:
    width, images = 24, 6
    recipe = method_recipe("moco_v2", student__embed_dim=width)
    queue = recipe.method["queue_size"]
    flops = step_cost(without_weights(recipe), NoiseSource(IMAGES), images).flops
    assert flops.twin == flops.student_forward  # one view each
    # Queries against the queue, and the gradient of the queries: the queue takes none.
    assert flops.loss == 2 * (2 * images * queue * width)


def test_a_micro_batch_costs_the_same_however_many_a_step_accumulates() -> None:
    one, two, four = (
        step_cost(without_weights(method_recipe("disco", optim__accumulation_steps=steps)), NoiseSource(IMAGES), 4)
        for steps in (1, 2, 4)
    )
    assert one.flops == two.flops == four.flops
    assert one.teacher_views == two.teacher_views == four.teacher_views == 2


def test_disco_shows_both_views_to_student_and_teacher() -> None:
    recipe = without_weights(method_recipe("disco"))
    both = step_cost(recipe, NoiseSource(IMAGES), 6)
    one = step_cost(without_weights(method_recipe("kd_mse")), NoiseSource(IMAGES), 6)
    assert both.teacher_views == 2 * one.teacher_views == 2
    assert both.flops.teacher == 2 * one.flops.teacher
    assert both.flops.student_forward == 2 * one.flops.student_forward == 2 * both.flops.twin
    assert both.flops.student_backward == 2 * one.flops.student_backward


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
def test_backward_of_a_convolution_is_two_forwards_whatever_its_groups(layer: type[nn.Module], groups: int) -> None:
    convolution = layer(8, 16, 3, stride=2, padding=1, groups=groups, bias=False)
    images = torch.randn(2, 8, 10, 12, requires_grad=True)
    forward, backward = flops_of(convolution, images)
    positions = images if layer is nn.ConvTranspose2d else convolution(images)
    assert forward == 2 * 2 * 9 * (8 * 16 // groups) * positions.shape[2] * positions.shape[3]
    assert backward == 2 * forward


def test_attention_counts_its_two_products_and_four_backward() -> None:
    class Attention(nn.Module):
        def forward(self, q: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(q, q, q)

    forward, backward = flops_of(Attention(), torch.randn(2, 3, 50, 16, requires_grad=True))
    assert forward == 2 * (2 * 2 * 3 * 50 * 50 * 16)
    assert backward == pytest.approx(2.5 * forward)  # the fused kernel computes the scores again
    with shapes_only():
        assert flops_of(Attention(), torch.empty(2, 3, 50, 16, requires_grad=True))[0] == forward


def test_every_teacher_of_the_catalog_can_be_planned_without_its_weights() -> None:
    catalog = load_catalog()
    with torch.device("meta"):
        for name, row in catalog.teachers.items():
            if row.network is None:
                continue
            teacher = weightless_teacher(name)
            assert teacher.embed_dim == (row.embed_dim or teacher.embed_dim) > 0
            assert {p.device.type for p in teacher.backbone.parameters()} == {"meta"}


def test_a_misspelt_teacher_is_said_with_its_key() -> None:
    recipe = method_recipe("disco")
    assert recipe.teacher is not None
    recipe = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"source": "lite-0"})})
    with pytest.raises(UnknownName, match=r"^teacher.source: 'lite-0' is no file.* Did you mean 'lite0'"):
        build_weightless(recipe, NoiseSource(64, 32), "meta")


def test_flops_add_up() -> None:
    flops = Flops(1, 2, 3, 4, 5)
    assert flops.total == 15
    assert flops.times(8) == Flops(8, 16, 24, 32, 40)
    assert replace(flops, teacher=0).total == 11
