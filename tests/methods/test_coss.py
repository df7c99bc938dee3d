"""CoSS: the column term against closed forms and a plain loop, and whole steps."""

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
from disco_zoo.methods.coss import CoSS, column_cosine_loss
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.modules.similarity import row_cosine_loss


def make_method(**options: Any) -> CoSS:
    return CoSS(tiny_encoder(), tiny_teacher(), EMBED_DIM, **options)


def rows(number: int, seed: int, dim: int = 5) -> Tensor:
    return torch.randn(number, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_cosines(student: Tensor, teacher: Tensor) -> Tensor:
    cosines = [(s * t).sum() / ((s * s).sum() * (t * t).sum()).sqrt() for s, t in zip(student, teacher, strict=True)]
    return 1 - sum(cosines) / len(cosines)


def test_losses_equal_plain_loops_and_columns_are_rows_of_the_transposed_matrices() -> None:
    student, teacher = rows(7, 0), rows(7, 1)
    assert row_cosine_loss(student, teacher).item() == pytest.approx(plain_cosines(student, teacher).item(), abs=1e-9)
    expected = plain_cosines(student.T, teacher.T).item()
    assert column_cosine_loss(student, teacher).item() == pytest.approx(expected, abs=1e-9)
    assert column_cosine_loss(student, teacher).item() == pytest.approx(row_cosine_loss(student.T, teacher.T).item())


def test_rows_are_blind_to_the_length_of_a_row_and_columns_to_that_of_a_dimension() -> None:
    student, teacher = rows(7, 0), rows(7, 1)
    by_row, by_column = torch.rand(7, 1).double() + 0.2, torch.rand(1, 5).double() + 0.2
    assert row_cosine_loss(teacher * by_row, teacher).item() == pytest.approx(0, abs=1e-9)
    assert column_cosine_loss(teacher * by_row, teacher) > 1e-3
    assert column_cosine_loss(teacher * by_column, teacher).item() == pytest.approx(0, abs=1e-9)
    assert row_cosine_loss(teacher * by_column, teacher) > 1e-3
    assert column_cosine_loss(-teacher, teacher).item() == pytest.approx(2, abs=1e-9)
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    for loss in (row_cosine_loss, column_cosine_loss):
        assert loss(student[order], teacher[order]).item() == pytest.approx(loss(student, teacher).item(), abs=1e-12)


@pytest.mark.parametrize("loss", [row_cosine_loss, column_cosine_loss])
def test_gradient_is_exact_and_reaches_the_student_alone(loss: Any) -> None:
    student, teacher = rows(4, 0).requires_grad_(), rows(4, 1).requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher.detach()), (student,))


def test_dead_dimensions_neither_teach_nor_break() -> None:
    student, teacher = rows(6, 0), rows(6, 1)
    teacher[:, 2] = 0
    student[:, 3] = 0
    student.requires_grad_()
    loss = column_cosine_loss(student, teacher)
    loss.backward()
    alive = plain_cosines(student.T[[0, 1, 4]], teacher.T[[0, 1, 4]])
    assert loss.item() == pytest.approx(1 - 0.6 * (1 - alive.item()), abs=1e-9)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert student.grad[:, 2].abs().max() == 0


def test_half_precision_is_summed_in_float32() -> None:
    student, teacher = rows(300, 0).bfloat16(), rows(300, 1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = column_cosine_loss(student, teacher)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(column_cosine_loss(student.double(), teacher.double()).item(), abs=1e-6)


@pytest.mark.parametrize("space_weight", [1.0, 0.25])
def test_five_training_steps_equal_an_independent_loop(space_weight: float) -> None:
    method, batches = in_float64(make_method(space_weight=space_weight)), [views[:1] for views in view_batches(5)]
    encoder = method.teacher.encoder
    before = backbone_fingerprint(encoder)

    def loss_of(query: nn.ModuleList, views: list[Tensor]) -> Tensor:
        student, teacher = raw(*query, views[0]), taught(encoder, views[0], unit=False)
        return plain_cosines(student, teacher) + space_weight * plain_cosines(student.T, teacher.T)

    parts = [method.student.backbone, method.student.head]
    losses, query = plain_loop(parts, batches, loss_of)
    records = train(method, batches)
    assert [record["loss"] for record in records] == pytest.approx(losses, abs=1e-9)
    assert records[0]["loss"] == pytest.approx(records[0]["rows"] + space_weight * records[0]["columns"], abs=1e-6)
    assert same_weights(parts, query, atol=1e-9)
    assert backbone_fingerprint(encoder) == before
    assert not any(module.training for module in encoder.modules())


def test_centred_teacher() -> None:
    method, view = make_method(centre_teacher=True), view_batches(1)[0][0]
    features = method.teacher(view)
    student = tiny_encoder().train()
    own, theirs = student.head(student.features(view)), features - features.mean(dim=0)
    expected = plain_cosines(own, theirs) + plain_cosines(own.T, theirs.T)
    assert method.train()(Batch([view], torch.arange(4)))["loss"].item() == pytest.approx(expected.item(), abs=1e-5)


def test_teacher_missing_or_of_another_width_is_refused() -> None:
    with pytest.raises(BadRecipe, match=r"teacher\.source"):
        CoSS(tiny_encoder(), None, EMBED_DIM)
    with pytest.raises(BadRecipe, match=f"student.embed_dim={EMBED_DIM}"):
        CoSS(tiny_encoder(embed_dim=5), tiny_teacher(), 5)
