"""DisCo on SwAV: both ways to distil, whole steps against an independent loop, an untouched teacher."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain_loop import in_float64
from reference_swav import SMALL, SWAV_OPTIONS, multi_crop_batches, reference_swav, train_epochs
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher
from torch.nn import functional as F

from disco_zoo.config.recipe import load_recipe
from disco_zoo.errors import BadRecipe
from disco_zoo.methods.base import Batch
from disco_zoo.methods.disco_swav import DisCoSwAV, view_consistency_loss
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.teacher import Teacher

OFFICIAL = {key.split(".")[1]: value for key, value in DisCoSwAV.OFFICIAL.items() if key.startswith("method.")}


def make_method(teacher: Teacher | None = None, **changes: Any) -> DisCoSwAV:
    student, teacher = tiny_encoder(), teacher or tiny_teacher()
    torch.manual_seed(1)
    method = DisCoSwAV(student, teacher, EMBED_DIM, **{**SWAV_OPTIONS, **changes})
    method.crops = SMALL
    return method


def test_distillation_is_two_minus_two_cosines_or_that_by_the_width() -> None:
    angles = torch.tensor([0.0, 0.3, torch.pi / 2, torch.pi], dtype=torch.float64)
    student = torch.stack([angles.cos(), angles.sin()], dim=1).chunk(2)
    teacher = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(4, 2).chunk(2)
    expected = (2 - 2 * angles.cos()).mean().item()
    assert view_consistency_loss(student, teacher, "mean").item() == pytest.approx(expected, abs=1e-12)
    assert view_consistency_loss(student, teacher, "mean_elements").item() == pytest.approx(expected / 2, abs=1e-12)


def test_distillation_equals_a_plain_loop_and_reaches_the_student_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        [torch.randn(3, 5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(4)]
        for _ in range(2)
    )
    total = sum(
        (a - b) ** 2
        for t, s in zip(teacher, student, strict=True)
        for a, b in zip(t.flatten().tolist(), s.flatten().tolist(), strict=True)
    )
    loss = view_consistency_loss(student, teacher, "mean")
    assert loss.item() == pytest.approx(total / 12, abs=1e-9)
    assert view_consistency_loss(student, teacher, "mean_elements").item() == pytest.approx(total / 60, abs=1e-9)
    halves = [
        view_consistency_loss(student[:2], teacher[:2], "mean"),
        view_consistency_loss(student[2:], teacher[2:], "mean"),
    ]
    assert (sum(halves) / 2).item() == pytest.approx(loss.item(), abs=1e-9)
    loss.backward()
    assert torch.allclose(student[1].grad, (student[1] - teacher[1]) * 2 / 12)
    assert all(rows.grad is None for rows in teacher)


@pytest.mark.parametrize("official", [False, True])
def test_six_training_steps_equal_an_independent_loop(official: bool) -> None:
    method, batches = in_float64(make_method(**(OFFICIAL if official else {}))), multi_crop_batches(6)
    teacher = method.teacher.encoder
    weight = method.swapped.prototypes.weight
    expected = reference_swav(method.student, weight, batches, teacher=teacher, official=official)
    records = train_epochs(method, batches)
    assert [record["loss"] for record in records] == pytest.approx(expected.losses, abs=1e-9)
    own = [*method.student.backbone.parameters(), *method.student.head.parameters()]
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(own, expected.query.parameters(), strict=True))
    assert torch.allclose(method.swapped.prototypes.weight, expected.prototypes, atol=1e-9)


def test_loss_is_the_sum_of_its_parts() -> None:
    method = make_method(distill_weight=3.0)
    record = train_epochs(method, multi_crop_batches(1))[0]
    assert record["loss"] == pytest.approx(record["swapped"] + 3 * record["distill"], rel=1e-6)


def test_official_leaves_the_teachers_length_and_fixed_does_not() -> None:
    views = multi_crop_batches(1)[0]
    fixed, official = make_method(), make_method(**OFFICIAL)
    raw = [fixed.teacher(view, view.shape[-1]) for view in views]
    for rows, unit, whole in zip(
        raw,
        fixed._targets(Batch(views, torch.arange(4))),
        official._targets(Batch(views, torch.arange(4))),
        strict=True,
    ):
        assert torch.allclose(unit, F.normalize(rows, dim=1), atol=1e-5)
        assert torch.allclose(whole, rows, atol=1e-5)


def test_centred_targets_are_directions_from_the_running_mean() -> None:
    method, views = make_method(centre_teacher=True), multi_crop_batches(1)[0]
    raw = [method.teacher(view, view.shape[-1]) for view in views]
    mean = torch.cat(raw).mean(dim=0)
    for rows, target in zip(raw, method._targets(Batch(views, torch.arange(4))), strict=True):
        assert torch.allclose(target, F.normalize(rows - mean, dim=1), atol=1e-4)


@pytest.mark.parametrize("options", [{}, OFFICIAL])
def test_teacher_is_bit_identical_and_in_eval_mode_after_training(options: dict[str, Any]) -> None:
    teacher = tiny_teacher()
    before = backbone_fingerprint(teacher.encoder)
    method = make_method(teacher, **options)
    train_epochs(method, multi_crop_batches(4))
    assert backbone_fingerprint(teacher.encoder) == before
    assert not any(module.training for module in teacher.encoder.modules())
    assert {key.split(".")[0] for key in method.state_dict()} == {"student", "swapped"}


def test_a_missing_teacher_and_one_of_another_width_are_refused() -> None:
    with pytest.raises(BadRecipe, match=r"teacher\.source"):
        DisCoSwAV(tiny_encoder(), None, EMBED_DIM)
    with pytest.raises(BadRecipe, match=rf"student\.embed_dim={EMBED_DIM}") as error:
        DisCoSwAV(tiny_encoder(embed_dim=4), tiny_teacher(), 4)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["pocket/disco_r18.disco_swav_lite0_fmnist", "cifar10/disco_r18.disco_swav_lite0_cifar10"]
)
def test_the_official_preset_goes_with_its_own_weight_and_the_teachers_own_deviation(name: str) -> None:
    """Q24 rounds ImageNet's .229; EfficientNet-Lite0 was trained with .5."""
    with pytest.raises(BadRecipe, match=r"at a weight of 0\.5, not 32\.0\. Type: --set method\.distill_weight=0\.5"):
        load_recipe(name, ["preset=official"])
    recipe = load_recipe(name, ["preset=official", "method.distill_weight=0.5"])
    assert recipe.teacher is not None
    assert (recipe.teacher.source, recipe.teacher.std) == ("lite0", None)
    assert recipe.student.std == (0.5, 0.5, 0.5)  # the recipe says so
    other = load_recipe(name, ["preset=official", "method.distill_weight=0.5", "teacher.source=swav.pth"])
    assert other.teacher is not None
    assert other.teacher.std == (0.228, 0.224, 0.225)
