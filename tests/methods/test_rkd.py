"""RKD: distances and angles against closed forms and plain loops, and whole steps alone and with DisCo."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from method_training import train
from plain_loop import in_float64, plain_loop, same_weights, taught
from reference_loop import EMA, QUEUE_SIZE, TEMPERATURE, embed, info_nce
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher, view_batches
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.config.validation import schema_of
from disco_zoo.errors import BadRecipe
from disco_zoo.methods import rkd
from disco_zoo.methods.base import Batch
from disco_zoo.methods.rkd import RKD, angle_loss, distance_loss
from disco_zoo.models.encoder import backbone_fingerprint


def make_method(**options: Any) -> RKD:
    options = {"temperature": TEMPERATURE, "queue_size": QUEUE_SIZE, "momentum": EMA, **options}
    return RKD(tiny_encoder(), options.pop("teacher", None) or tiny_teacher(), EMBED_DIM, **options)


def unit_rows(number: int, seed: int) -> Tensor:
    rows = torch.randn(number, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(rows, dim=1)


def smooth(difference: Tensor) -> Tensor:
    size = difference.abs()
    return 0.5 * size**2 if size < 1 else size - 0.5


def plain_distances(rows: Tensor) -> list[list[Tensor]]:
    zero = torch.zeros((), dtype=rows.dtype)
    found = [[zero if i == j else ((u - v) ** 2).sum().sqrt() for j, v in enumerate(rows)] for i, u in enumerate(rows)]
    positive = [d for row in found for d in row if d > 0]
    mean = sum(positive) / len(positive)
    return [[d / mean for d in row] for row in found]


def plain_distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    own, theirs = plain_distances(student), plain_distances(teacher)
    number = len(student)
    return sum(smooth(own[i][j] - theirs[i][j]) for i in range(number) for j in range(number)) / number**2


def plain_angle(rows: Tensor, i: int, j: int, k: int) -> Tensor:
    if i in (j, k):
        return torch.zeros((), dtype=rows.dtype)
    first, second = rows[i] - rows[j], rows[i] - rows[k]
    return (first * second).sum() / ((first**2).sum() * (second**2).sum()).sqrt()


def plain_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    numbers = range(len(student))
    triples = [(i, j, k) for i in numbers for j in numbers for k in numbers]
    return sum(smooth(plain_angle(student, *t) - plain_angle(teacher, *t)) for t in triples) / len(triples)


PAIRS = [(distance_loss, plain_distance_loss), (angle_loss, plain_angle_loss)]
LOSSES = [distance_loss, angle_loss]


@pytest.mark.parametrize(("loss", "plain"), PAIRS)
def test_losses_and_gradients_equal_plain_loops(loss: Any, plain: Any) -> None:
    student, teacher = unit_rows(6, 0).requires_grad_(), unit_rows(6, 1).requires_grad_()
    found, expected = loss(student, teacher), plain(student, teacher.detach())
    assert found.item() == pytest.approx(expected.item(), abs=1e-9)
    (gradient,) = torch.autograd.grad(expected, student)
    found.backward()
    assert student.grad is not None
    assert torch.allclose(student.grad, gradient, atol=1e-9)
    assert teacher.grad is None


def test_triangles_in_closed_form() -> None:
    """An equilateral triangle against one with a right angle and legs of 1."""
    even = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64)
    right = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    mean = (2 + math.sqrt(2)) / 3
    legs, hypotenuse = 0.5 * (1 - 1 / mean) ** 2, 0.5 * (1 - math.sqrt(2) / mean) ** 2
    assert distance_loss(even, right).item() == pytest.approx((4 * legs + 2 * hypotenuse) / 9, abs=1e-12)
    # Each angle twice; those of a leg with itself are 1 in both: 0.5 against 0 once, against cos 45 degrees twice.
    angles = 2 * 0.5 * (0.5**2 + 2 * (0.5 - math.sqrt(0.5)) ** 2)
    assert angle_loss(even, right).item() == pytest.approx(angles / 27, abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_relations_do_not_see_rotation_shift_scale_or_order(loss: Any) -> None:
    student, teacher = unit_rows(7, 0), unit_rows(7, 1)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]
    value = loss(student, teacher).item()
    assert value > 1e-4
    assert loss(3 * student @ turn + 0.7, teacher).item() == pytest.approx(value, abs=1e-9)
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    assert loss(student[order], teacher[order]).item() == pytest.approx(value, abs=1e-12)
    assert loss(2 * teacher @ turn - 0.1, teacher).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_coincide_have_finite_gradients(loss: Any, dtype: torch.dtype) -> None:
    student, teacher = unit_rows(5, 0).to(dtype), unit_rows(5, 1).to(dtype)
    student[1] = student[0]
    student.requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert student.grad.abs().max() < 10
    collapsed = torch.ones(4, 5, dtype=dtype, requires_grad=True)
    loss(collapsed, teacher[:4]).backward()
    assert collapsed.grad is not None
    assert collapsed.grad.abs().max() == 0


def test_vertices_split_the_angles_and_chunks_do_not_change_them(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = unit_rows(7, 0).requires_grad_(), unit_rows(7, 1)
    whole = angle_loss(student, teacher)
    (gradient,) = torch.autograd.grad(whole, student)
    parts = [angle_loss(student, teacher, slice(i, i + 1)).item() for i in range(7)]
    assert sum(parts) / 7 == pytest.approx(whole.item(), abs=1e-12)
    assert max(parts) - min(parts) > 1e-3
    for limit in (3 * 49, 48):  # three vertices at once, and fewer than one
        monkeypatch.setattr(rkd, "MAX_ANGLES", limit)
        chunked = angle_loss(student, teacher)
        assert chunked.item() == pytest.approx(whole.item(), abs=1e-12)
        assert torch.allclose(torch.autograd.grad(chunked, student)[0], gradient, atol=1e-12)
        own = angle_loss(student, teacher, slice(2, 7)).item()
        assert own == pytest.approx(sum(parts[2:]) / 5, abs=1e-12)


@pytest.mark.parametrize("limit", [1, 3 * 7 * 5, 6 * 7 * 5], ids=["a row", "three rows", "six rows"])
@pytest.mark.parametrize("loss", LOSSES)
def test_chunks_of_differences_change_neither_loss_nor_gradient(
    loss: Any, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = unit_rows(7, 0).requires_grad_(), unit_rows(7, 1)
    whole = loss(student, teacher)
    (gradient,) = torch.autograd.grad(whole, student)
    monkeypatch.setattr(rkd, "MAX_DIFFERENCES", limit)
    chunked = loss(student, teacher)
    assert chunked.item() == pytest.approx(whole.item(), abs=1e-12)
    assert torch.allclose(torch.autograd.grad(chunked, student)[0], gradient, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "limit", "value", "least", "most"),
    [
        (angle_loss, "MAX_ANGLES", 2 * 24**2, 2 * 24**3, 24**2),
        (angle_loss, "MAX_DIFFERENCES", 2 * 24 * 5, 3 * 24**2 * 5, 24**2),
        (distance_loss, "MAX_DIFFERENCES", 2 * 24 * 5, 24**2 * 5, 6 * 24**2),
    ],
)
def test_chunks_bound_what_is_kept_for_the_backward_pass(
    loss: Any, limit: str, value: int, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = unit_rows(24, 0).requires_grad_(), unit_rows(24, 1)

    def kept() -> list[int]:
        sizes: dict[int, int] = {}  # by address: each chunk keeps the same rows
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.update({t.data_ptr(): t.numel()}) or t, id):
            loss(student, teacher)
        return [*sizes.values()]

    assert sum(kept()) >= least
    monkeypatch.setattr(rkd, limit, value)
    found = kept()
    assert sum(found) < most
    assert max(found) <= 24**2  # nothing has D numbers a pair


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_compared_in_float32(loss: Any) -> None:
    student, teacher = unit_rows(6, 0).bfloat16(), unit_rows(6, 1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(student, teacher)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(student.double(), teacher.double()).item(), abs=1e-6)


# Small weights: larger steps blow rounding up from 1e-7 to 1e-4 within five of them.
@pytest.mark.parametrize("distill_weight", [0.0, 0.3])
def test_five_training_steps_equal_an_independent_loop(distill_weight: float) -> None:
    weights = {"contrast_weight": 0.5, "distance_weight": 0.4, "angle_weight": 0.6, "distill_weight": distill_weight}
    method, batches = in_float64(make_method(**weights)), view_batches(5)
    encoder = method.teacher.encoder
    rows, pointer, key = list(method.contrast.queue.rows.clone()), 0, None
    before = backbone_fingerprint(encoder)

    def loss_of(query: nn.ModuleList, views: list[Tensor]) -> Tensor:
        nonlocal pointer, key
        own, theirs = embed(*query, views[0]), taught(encoder, views[0], unit=True)
        with torch.no_grad():
            key = copy.deepcopy(query) if key is None else key
            for slow, fast in zip(key.parameters(), query.parameters(), strict=True):
                slow.copy_(EMA * slow + (1 - EMA) * fast)
            keys = embed(*key, views[1])
        loss = 0.5 * info_nce(own, keys, [row.detach() for row in rows])
        loss = loss + 0.4 * plain_distance_loss(own, theirs) + 0.6 * plain_angle_loss(own, theirs)
        if distill_weight:
            second = ((taught(encoder, views[1], unit=True) - embed(*query, views[1])) ** 2).sum(dim=1).mean()
            loss = loss + distill_weight * (((theirs - own) ** 2).sum(dim=1).mean() + second)
        for row in keys:
            rows[pointer] = row
            pointer = (pointer + 1) % len(rows)
        return loss

    parts = [method.student.backbone, method.student.head]
    losses, query = plain_loop(parts, batches, loss_of)
    records = train(method, batches)
    assert [record["loss"] for record in records] == pytest.approx(losses, abs=1e-8)
    assert same_weights(parts, query, atol=1e-8)
    assert torch.allclose(method.contrast.queue.rows, torch.stack(rows), atol=1e-8)
    assert ("distill" in records[0]) == bool(distill_weight)
    assert backbone_fingerprint(encoder) == before
    assert not any(module.training for module in encoder.modules())


def test_without_disco_the_student_sees_one_view() -> None:
    method, calls = make_method(), []
    method.student.backbone.register_forward_pre_hook(lambda *_: calls.append(1))
    method.train()(Batch(view_batches(1)[0], torch.arange(4)))
    assert len(calls) == 1


def test_official_preset() -> None:
    assert RKD.OFFICIAL == {
        "teacher.bn_mode": "train",
        "method.relations": "local",
        "method.distill_reduction": "sum",
        "method.both_views": True,
        "method.queue_init": "teacher_if_any",
    }
    options = schema_of(RKD).model_validate({k.split(".")[1]: v for k, v in RKD.OFFICIAL.items() if "method" in k})
    assert options.model_dump()["relations"] == "local"
    rows = F.normalize(torch.randn(QUEUE_SIZE, EMBED_DIM), dim=1)
    method = make_method(teacher=tiny_teacher(queue=rows), queue_init="teacher")
    assert torch.equal(method.contrast.queue.rows, rows)
    with pytest.raises(BadRecipe, match="no queue"):
        make_method(queue_init="teacher")


def test_bad_input_is_refused() -> None:
    with pytest.raises(BadRecipe, match=r"teacher\.source"):
        RKD(tiny_encoder(), None, EMBED_DIM, queue_size=4)
    with pytest.raises(BadRecipe, match=f"student.embed_dim={EMBED_DIM}"):
        RKD(tiny_encoder(embed_dim=5), tiny_teacher(), 5, queue_size=4)
    with pytest.raises(BadRecipe, match="batch_size=2"):
        make_method().train()(Batch(view_batches(1, batch=1)[0], torch.arange(1)))
    with pytest.raises(ValueError, match="temperature"):
        schema_of(RKD).model_validate({"temperature": 0.0})
