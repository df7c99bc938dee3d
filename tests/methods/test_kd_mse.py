"""Plain regression: both losses against closed forms and plain loops, and whole steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_training import train
from plain_loop import in_float64, plain_loop, raw, same_weights, taught
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher, view_batches
from torch import Tensor, nn

from disco_zoo.errors import BadRecipe
from disco_zoo.methods.base import Batch
from disco_zoo.methods.kd_mse import KdMse, regression_loss, standardized_regression_loss
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.modules.standardize import standardize_batch


def make_method(**options: Any) -> KdMse:
    return KdMse(tiny_encoder(), tiny_teacher(), EMBED_DIM, **options)


def rows(number: int, seed: int, dim: int = 5) -> Tensor:
    return torch.randn(number, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_regression(student: Tensor, teacher: Tensor) -> Tensor:
    losses = []
    for s, t in zip(student, teacher, strict=True):
        unit = t / (t * t).sum().sqrt()
        losses.append(sum((a - b) ** 2 for a, b in zip(s, unit, strict=True)))
    return sum(losses) / len(losses)


def plain_standardized(student: Tensor, teacher: Tensor) -> Tensor:
    total = 0
    for own, theirs in zip(student.T, teacher.T, strict=True):
        a, b = ((c - c.mean()) / (((c - c.mean()) ** 2).mean() + 1e-5).sqrt() for c in (own, theirs))
        total = total + ((a - b) ** 2).mean()
    return total / student.shape[1]


@pytest.mark.parametrize(
    ("loss", "plain"), [(regression_loss, plain_regression), (standardized_regression_loss, plain_standardized)]
)
def test_losses_equal_plain_loops_and_do_not_depend_on_the_order_of_rows(loss: Any, plain: Any) -> None:
    student, teacher = rows(7, 0), rows(7, 1)
    assert loss(student, teacher).item() == pytest.approx(plain(student, teacher).item(), abs=1e-6)
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    assert loss(student[order], teacher[order]).item() == pytest.approx(loss(student, teacher).item(), abs=1e-12)


def test_regression_does_not_see_the_teachers_lengths_but_the_students() -> None:
    student, teacher = rows(7, 0), rows(7, 1)
    lengths = torch.linspace(0.1, 9, 7, dtype=torch.float64)[:, None]
    assert regression_loss(student, lengths * teacher).item() == pytest.approx(regression_loss(student, teacher).item())
    unit = teacher / teacher.norm(dim=1, keepdim=True)
    assert regression_loss(unit, teacher).item() == pytest.approx(0, abs=1e-12)
    assert regression_loss(3 * unit, teacher).item() == pytest.approx(4, abs=1e-9)
    assert regression_loss(0 * unit, teacher).item() == pytest.approx(1, abs=1e-9)


def test_standardised_regression_is_blind_to_scale_and_shift_of_a_dimension() -> None:
    student, teacher = rows(50, 0), rows(50, 1)
    scale, shift = torch.rand(5).double() + 0.5, rows(1, 3)
    assert standardized_regression_loss(3 * teacher * scale + shift, teacher).item() == pytest.approx(0, abs=1e-6)
    assert standardized_regression_loss(-teacher, teacher).item() == pytest.approx(4, abs=1e-3)
    one = standardized_regression_loss(student, teacher).item()
    assert standardized_regression_loss(student * scale + shift, teacher).item() == pytest.approx(one, abs=1e-4)


def test_mean_over_halves_equals_the_joint_regression() -> None:
    student, teacher = rows(8, 0), rows(8, 1)
    halves = [regression_loss(student[h], teacher[h]).item() for h in (slice(4), slice(4, 8))]
    assert sum(halves) / 2 == pytest.approx(regression_loss(student, teacher).item(), abs=1e-12)


@pytest.mark.parametrize("loss", [regression_loss, standardized_regression_loss])
def test_gradient_reaches_the_student_alone(loss: Any) -> None:
    student, teacher = rows(7, 0).requires_grad_(), rows(7, 1).requires_grad_()
    loss(student, teacher).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher.detach()), (student,))


def test_standardised_batch_is_batch_norm_without_parameters() -> None:
    norm = nn.BatchNorm1d(5, affine=False, track_running_stats=False).double().train()
    batch = rows(9, 4) * 3 + 2
    assert torch.allclose(standardize_batch(batch), norm(batch), atol=1e-12)


@pytest.mark.parametrize(("batch_norm", "plain"), [(True, plain_standardized), (False, plain_regression)])
def test_five_training_steps_equal_an_independent_loop(batch_norm: bool, plain: Any) -> None:
    method, batches = in_float64(make_method(batch_norm=batch_norm)), [views[:1] for views in view_batches(5)]
    encoder = method.teacher.encoder
    before = backbone_fingerprint(encoder)

    def loss_of(query: nn.ModuleList, views: list[Tensor]) -> Tensor:
        return plain(raw(*query, views[0]), taught(encoder, views[0], unit=False))

    parts = [method.student.backbone, method.student.head]
    losses, query = plain_loop(parts, batches, loss_of)
    records = train(method, batches)
    # Standardising four rows divides by small variances: rounding grows with each step.
    assert [record["loss"] for record in records] == pytest.approx(losses, abs=1e-9)
    assert same_weights(parts, query, atol=1e-9)
    assert backbone_fingerprint(encoder) == before
    assert not any(module.training for module in encoder.modules())


def test_centring_moves_the_targets_of_the_plain_regression() -> None:
    method, view = make_method(batch_norm=False, centre_teacher=True), view_batches(1)[0][0]
    features = method.teacher(view)
    student = tiny_encoder().train()
    expected = plain_regression(student.head(student.features(view)), features - features.mean(dim=0))
    assert method.train()(Batch([view], torch.arange(4)))["loss"].item() == pytest.approx(expected.item(), abs=1e-5)


def test_teacher_missing_of_another_width_or_a_single_image_is_refused() -> None:
    with pytest.raises(BadRecipe, match=r"teacher\.source"):
        KdMse(tiny_encoder(), None, EMBED_DIM)
    with pytest.raises(BadRecipe, match=f"student.embed_dim={EMBED_DIM}"):
        KdMse(tiny_encoder(embed_dim=5), tiny_teacher(), 5)
    with pytest.raises(BadRecipe, match="batch_size=2"):
        make_method().train()(Batch([view_batches(1, batch=1)[0][0]], torch.arange(1)))
