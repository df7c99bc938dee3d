"""SEED: the loss against closed forms and a plain loop, whole steps, two queues, and a teacher that stays as it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from method_training import train
from plain_loop import in_float64, plain_loop, same_weights, taught
from pydantic import ValidationError
from reference_loop import embed
from tiny import EMBED_DIM, MEAN, STD, tiny_encoder, tiny_teacher, view_batches
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.config.validation import schema_of
from disco_zoo.errors import BadRecipe
from disco_zoo.methods.base import Batch, SmallViews
from disco_zoo.methods.seed import SEED, similarity_distillation_loss
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.modules.momentum_contrast import contrastive_loss

CROPS = SmallViews(count=3, student_size=8, teacher_size=10)


def make_method(**options: Any) -> SEED:
    return SEED(tiny_encoder(), tiny_teacher(), EMBED_DIM, **{"queue_size": 10, "teacher_temperature": 0.1, **options})


def unit_rows(number: int, seed: int) -> Tensor:
    rows = torch.randn(number, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(rows, dim=1)


def plain_seed(student: Tensor, teacher: Tensor, queue: Tensor, tau_s: float, tau_t: float) -> Tensor:
    """Section 2.4, image by image."""
    losses = []
    for s, t in zip(student, teacher, strict=True):
        anchors = [t, *queue]
        z_s = torch.stack([s @ a for a in anchors]) / tau_s
        z_t = torch.stack([t @ a for a in anchors]) / tau_t
        p = (z_t - z_t.max()).exp()
        p = p / p.sum()
        losses.append((p * (torch.logsumexp(z_s, dim=0) - z_s)).sum())
    return sum(losses) / len(losses)


@pytest.mark.parametrize("tau_t", [1e-4, 0.01, 0.2])
def test_loss_equals_a_plain_loop(tau_t: float) -> None:
    student, teacher, queue = unit_rows(4, 0), unit_rows(4, 1), unit_rows(9, 2)
    expected = plain_seed(student, teacher, queue, 0.2, tau_t).item()
    assert similarity_distillation_loss(student, teacher, queue, 0.2, tau_t).item() == pytest.approx(expected, abs=1e-6)


def test_loss_of_orthogonal_anchors_in_closed_form() -> None:
    basis = torch.eye(8)
    weight = math.exp(5) / (math.exp(5) + 6)  # the teacher's share of itself at 0.2
    logs = math.log(math.exp(2) + 6)  # the student's partition sum at 0.5
    loss = similarity_distillation_loss(basis[:1], basis[:1], basis[2:], 0.5, 0.2)
    assert loss.item() == pytest.approx(logs - 2 * weight, rel=1e-6)


def test_a_one_hot_teacher_makes_it_info_nce() -> None:
    student, teacher, queue = (rows.float() for rows in (unit_rows(6, 0), unit_rows(6, 1), unit_rows(20, 2)))
    loss = similarity_distillation_loss(student, teacher, queue, 0.2, 1e-4)
    assert loss.item() == pytest.approx(contrastive_loss(student, teacher, queue, 0.2).item(), abs=1e-6)


def test_loss_has_its_minimum_over_students_at_the_teachers_distribution() -> None:
    teacher, queue = unit_rows(6, 1), unit_rows(20, 2)
    at_teacher = similarity_distillation_loss(teacher, teacher, queue, 0.2, 0.2)
    for seed in range(5):
        assert similarity_distillation_loss(unit_rows(6, 50 + seed), teacher, queue, 0.2, 0.2) > at_teacher


def test_loss_depends_neither_on_the_order_of_rows_nor_on_their_split() -> None:
    student, teacher, queue = unit_rows(6, 0), unit_rows(6, 1), unit_rows(9, 2)
    whole = similarity_distillation_loss(student, teacher, queue, 0.2, 0.05)
    halves = [similarity_distillation_loss(student[h], teacher[h], queue, 0.2, 0.05) for h in (slice(3), slice(3, 6))]
    assert sum(halves).item() / 2 == pytest.approx(whole.item(), abs=1e-12)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    shuffled = similarity_distillation_loss(student[order], teacher[order], queue.flip(0), 0.2, 0.05)
    assert shuffled.item() == pytest.approx(whole.item(), abs=1e-12)


def test_gradient_reaches_the_student_alone() -> None:
    student, teacher, queue = (unit_rows(n, seed).requires_grad_() for n, seed in ((4, 0), (4, 1), (9, 2)))
    similarity_distillation_loss(student, teacher, queue, 0.2, 0.05).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert queue.grad is None


def test_half_precision_under_autocast_is_compared_in_float32() -> None:
    student, teacher, queue = (rows.bfloat16() for rows in (unit_rows(4, 0), unit_rows(4, 1), unit_rows(9, 2)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = similarity_distillation_loss(student, teacher, queue, 0.2, 1e-2)
    exact = similarity_distillation_loss(student.double(), teacher.double(), queue.double(), 0.2, 1e-2)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), abs=1e-5)


def test_five_training_steps_equal_an_independent_seed_loop() -> None:
    method, batches = in_float64(make_method()), view_batches(5)
    encoder, rows, pointer = method.teacher.encoder, list(method.big.queue.rows.clone()), 0

    def loss_of(query: nn.ModuleList, views: list[Tensor]) -> Tensor:
        nonlocal pointer
        targets = taught(encoder, views[0], unit=True)
        loss = plain_seed(embed(*query, views[0]), targets, torch.stack(rows), 0.2, 0.1)
        for row in targets:
            rows[pointer] = row
            pointer = (pointer + 1) % len(rows)
        return loss

    batches = [views[:1] for views in batches]
    losses, query = plain_loop([method.student.backbone, method.student.head], batches, loss_of)
    records = train(method, batches)
    assert [record["loss"] for record in records] == pytest.approx(losses, abs=1e-9)
    assert same_weights([method.student.backbone, method.student.head], query, atol=1e-9)
    assert torch.allclose(method.big.queue.rows, torch.stack(rows), atol=1e-6)


def small_views(number: int, side: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(11)
    return [torch.randint(0, 256, (4, 3, side, side), generator=generator, dtype=torch.uint8) for _ in range(number)]


def test_small_crops_add_a_loss_of_their_own_with_a_second_queue() -> None:
    method = make_method()
    method.crops = SmallViews(count=3, student_size=16, teacher_size=16)
    assert method.small is not None
    big, small = view_batches(1)[0][0], small_views(3, 16)
    encoder, queues = method.teacher.encoder, [part.queue.rows.clone() for part in (method.big, method.small)]
    assert not torch.equal(*queues)
    student = tiny_encoder().train()
    parts = []
    for views, queue in zip((big, torch.cat(small)), queues, strict=True):
        own = embed(student.backbone, student.head, views, MEAN, STD)
        parts.append(plain_seed(own, taught(encoder, views, unit=True), queue, 0.2, 0.1).item())
    found = method.train()(Batch([big, *small], torch.arange(4)))
    assert [found["big"].item(), found["small"].item()] == pytest.approx(parts, abs=2e-6)
    assert found["loss"].item() == pytest.approx(sum(parts), abs=2e-6)
    assert torch.allclose(method.small.queue.rows[:4], taught(encoder, small[0], unit=True), atol=1e-6)
    assert torch.equal(method.small.queue.rows[4:], queues[1][4:])
    assert torch.allclose(method.big.queue.rows[:4], taught(encoder, big, unit=True), atol=1e-6)


def test_each_network_sees_the_small_crops_at_its_own_size() -> None:
    method = make_method()
    method.crops = CROPS
    seen: dict[str, list[tuple[int, int]]] = {"student": [], "teacher": []}
    for name, network in (("student", method.student), ("teacher", method.teacher.folded)):
        network.backbone.register_forward_pre_hook(
            lambda module, images, name=name: seen[name].append((len(images[0]), images[0].shape[-1]))
        )
    method.train()(Batch([view_batches(1)[0][0], *small_views(3, 10)], torch.arange(4)))
    assert seen == {"student": [(4, 16), (12, 8)], "teacher": [(4, 16), (12, 10)]}


def test_the_second_queue_exists_only_with_small_crops_and_is_saved() -> None:
    method = make_method()
    assert {key.split(".")[0] for key in method.state_dict()} == {"student", "big"}
    method.crops = CROPS
    assert {"small.queue.rows", "small.queue.position"} <= set(method.state_dict())
    assert method.crops == CROPS


def test_centred_targets_are_directions_from_the_running_mean() -> None:
    method, view = make_method(centre_teacher=True), view_batches(1)[0][0]
    features = method.teacher(view)
    method.train()(Batch([view], torch.arange(4)))
    assert torch.allclose(method.big.queue.rows[:4], F.normalize(features - features.mean(dim=0), dim=1), atol=1e-5)
    assert "big.centre.mean" in method.state_dict()


def test_teacher_is_bit_identical_and_in_eval_mode_after_training() -> None:
    method = make_method()
    before = backbone_fingerprint(method.teacher.encoder)
    train(method, [views[:1] for views in view_batches(3)])
    assert backbone_fingerprint(method.teacher.encoder) == before
    assert not any(module.training for module in method.teacher.encoder.modules())


@pytest.mark.parametrize("key", ["student_temperature", "teacher_temperature", "queue_size"])
def test_zero_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        schema_of(SEED).model_validate({key: 0})


def test_teacher_missing_or_of_another_width_is_refused() -> None:
    with pytest.raises(BadRecipe, match=r"teacher\.source"):
        SEED(tiny_encoder(), None, EMBED_DIM, queue_size=4)
    with pytest.raises(BadRecipe, match=f"student.embed_dim={EMBED_DIM}"):
        SEED(tiny_encoder(embed_dim=5), tiny_teacher(), 5, queue_size=4)
