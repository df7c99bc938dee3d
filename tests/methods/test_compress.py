"""CompRess: the loss against a plain loop, whole training steps of all three variants, and the cached teacher."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from method_training import train
from plain_loop import in_float64
from preparations import preparation
from reference_loop import EMA, embed, sgd_step
from tiny import EMBED_DIM, MEAN, STD, TinyNet, TinySource, tiny_encoder, tiny_teacher, view_batches
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.config.validation import schema_of
from disco_zoo.errors import BadRecipe
from disco_zoo.methods import Method
from disco_zoo.methods.base import Batch
from disco_zoo.methods.compress import CompRess1q, CompRess2q, CompRess2qMomentum, MomentumEncoder, similarity_loss
from disco_zoo.models.encoder import Encoder, backbone_fingerprint
from disco_zoo.models.teacher import Teacher

QUEUE, TEMPERATURE = 10, 0.1
VARIANTS = [CompRess1q, CompRess2q, CompRess2qMomentum]


def headless_encoder() -> Encoder:
    """Features 8 wide are the embedding: not the teacher's 6."""
    torch.manual_seed(0)
    return Encoder(TinyNet(), nn.Identity(), image_size=16, mean=MEAN, std=STD)


def make_method(variant: type[Method], teacher: Teacher | None = None, **options: Any) -> Any:
    options = {"queue_size": QUEUE, "student_temperature": TEMPERATURE, "teacher_temperature": 0.05, **options}
    if variant is CompRess2qMomentum:
        options["momentum"] = EMA
    student, dim = (tiny_encoder(), EMBED_DIM) if variant is CompRess1q else (headless_encoder(), 8)
    return variant(student, teacher or tiny_teacher(), dim, **options)


def single_views(num_steps: int, batch: int = 4) -> list[list[Tensor]]:
    return [views[:1] for views in view_batches(num_steps, batch)]


def unit_rows(number: int, seed: int, dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(number, dim, generator=generator, dtype=torch.float64), dim=1)


STUDENT, TEACHER = unit_rows(6, 0, 4), unit_rows(6, 1, 7)
STUDENT_MEMORY, TEACHER_MEMORY = unit_rows(11, 2, 4), unit_rows(11, 3, 7)


def loss_of(rows: Any = slice(None), columns: Any = slice(None), **changes: float) -> float:
    temperatures = {"student_temperature": 0.2, "teacher_temperature": 0.1, **changes}
    return similarity_loss(
        STUDENT[rows], TEACHER[rows], STUDENT_MEMORY[columns], TEACHER_MEMORY[columns], **temperatures
    ).item()


def softmax(scores: list[float]) -> list[float]:
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def test_loss_equals_a_plain_loop() -> None:
    expected = 0.0
    for s, t in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True):
        ps, pt = (
            softmax([sum(a * b for a, b in zip(row, other, strict=True)) / temperature for other in memory.tolist()])
            for row, memory, temperature in ((s, STUDENT_MEMORY, 0.2), (t, TEACHER_MEMORY, 0.1))
        )
        expected += sum(p * (math.log(p) - math.log(q)) for p, q in zip(pt, ps, strict=True)) / 6
    assert loss_of() == pytest.approx(expected, abs=1e-12)


def test_loss_of_equal_similarities_is_zero_and_of_two_known_ones_is_known() -> None:
    options = {"student_temperature": 0.04, "teacher_temperature": 0.04}
    assert similarity_loss(TEACHER, TEACHER, TEACHER_MEMORY, TEACHER_MEMORY, **options).item() == pytest.approx(0)
    row = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    memory = torch.eye(2, dtype=torch.float64)
    # Student scores (0, 1), teacher scores (1, 0), both at temperature 1: KL of (σ, 1−σ) from (1−σ, σ).
    sigma = 1 / (1 + math.exp(-1))
    expected = sigma * math.log(sigma / (1 - sigma)) + (1 - sigma) * math.log((1 - sigma) / sigma)
    found = similarity_loss(row, row, memory.flip(0), memory, student_temperature=1.0, teacher_temperature=1.0)
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_loss_is_a_mean_over_rows_in_any_order_of_rows_and_memory() -> None:
    joint = loss_of()
    assert loss_of([4, 0, 2, 5, 1, 3]) == pytest.approx(joint, abs=1e-12)
    assert loss_of(slice(None), list(range(10, -1, -1))) == pytest.approx(joint, abs=1e-12)
    assert (loss_of(slice(3)) + loss_of(slice(3, 6))) / 2 == pytest.approx(joint, abs=1e-12)
    assert loss_of(student_temperature=0.3) != pytest.approx(joint, abs=1e-3)


def test_gradient_reaches_the_student_alone() -> None:
    parts = [part.clone().requires_grad_() for part in (STUDENT, TEACHER, STUDENT_MEMORY, TEACHER_MEMORY)]
    similarity_loss(*parts, student_temperature=0.2, teacher_temperature=0.1).backward()
    assert parts[0].grad is not None
    # d KL / d scores = softmax(student) − softmax(teacher)
    ps, pt = (STUDENT @ STUDENT_MEMORY.T / 0.2).softmax(1), (TEACHER @ TEACHER_MEMORY.T / 0.1).softmax(1)
    assert torch.allclose(parts[0].grad, (ps - pt) @ STUDENT_MEMORY / 0.2 / 6, atol=1e-12)
    assert all(part.grad is None for part in parts[1:])


def test_loss_is_computed_in_full_precision_under_autocast() -> None:
    parts = [part.float() for part in (STUDENT, TEACHER, STUDENT_MEMORY, TEACHER_MEMORY)]
    plain = similarity_loss(*parts, student_temperature=0.04, teacher_temperature=0.04)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = similarity_loss(*parts, student_temperature=0.04, teacher_temperature=0.04)
    assert mixed.dtype == torch.float32
    assert mixed.item() == plain.item()


def reference(method: Any, batches: list[list[Tensor]]) -> Any:
    """Train a copy of the method's student from 2.7 alone, image by image."""
    query = nn.ModuleList([copy.deepcopy(method.student.backbone), copy.deepcopy(method.student.head)]).train()
    twin = copy.deepcopy(query) if isinstance(method, CompRess2qMomentum) else None
    teacher = method.teacher.encoder
    teacher_rows = list(method.targets.memory.rows.clone())
    student_rows = teacher_rows if isinstance(method, CompRess1q) else list(method.memory.rows.clone())
    velocities = [torch.zeros_like(parameter) for parameter in query.parameters()]
    losses, pointer = [], 0
    for (view,) in batches:
        with torch.no_grad():
            targets = embed(teacher.backbone, teacher.head, view, teacher.mean, teacher.std)
            keys = None if twin is None else embed(*twin, view)
        embeddings = embed(*query, view)
        loss = torch.zeros(())
        for s, t in zip(embeddings, targets, strict=True):
            pt = torch.stack([t @ row for row in teacher_rows]).div(0.05).softmax(dim=0)
            scores = torch.stack([s @ row for row in student_rows]) / TEMPERATURE
            loss = loss + (pt * (pt.log() - (scores - scores.logsumexp(dim=0)))).sum() / len(view)
        losses.append(loss.item())
        sgd_step(query, loss, velocities)
        keys = embeddings.detach() if keys is None else keys
        for row, target in zip(keys, targets, strict=True):
            student_rows[pointer] = row
            teacher_rows[pointer] = target
            pointer = (pointer + 1) % QUEUE
        for slow, fast in zip(twin.parameters() if twin else (), query.parameters(), strict=False):
            slow.data.copy_(EMA * slow + (1 - EMA) * fast)
    return losses, query, student_rows, teacher_rows, twin


@pytest.mark.parametrize("last", [4, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_five_training_steps_equal_an_independent_loop(variant: type[Method], last: int) -> None:
    """Also where one is the smaller last batch of an epoch, after which the memory's end lies inside a batch."""
    method, batches = in_float64(make_method(variant)), single_views(5)
    batches[2] = [view[:last] for view in batches[2]]
    before = backbone_fingerprint(method.teacher.encoder)
    losses, query, student_rows, teacher_rows, twin = reference(method, batches)
    assert [record["loss"] for record in train(method, batches)] == pytest.approx(losses, abs=1e-9)
    own = [*method.student.backbone.parameters(), *method.student.head.parameters()]
    for mine, theirs in zip(own, query.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-9)
    assert torch.allclose(method.targets.memory.rows, torch.stack(teacher_rows), atol=1e-9)
    if variant is not CompRess1q:
        assert torch.allclose(method.memory.rows, torch.stack(student_rows), atol=1e-9)
    if twin is not None:
        own = [*method.twin.encoder.backbone.parameters(), *method.twin.encoder.head.parameters()]
        for mine, theirs in zip(own, twin.parameters(), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-9)
    assert backbone_fingerprint(method.teacher.encoder) == before
    assert not method.teacher.backbone.training


def test_the_three_variants_part_ways() -> None:
    """What fills the student's memory decides from the second step on."""
    batches = single_views(4)
    finals = []
    for variant in (CompRess2q, CompRess2qMomentum):
        method = make_method(variant)
        torch.manual_seed(1)
        method.memory.rows.uniform_(-1, 1)
        method.targets.memory.rows.uniform_(-1, 1)
        finals.append([record["loss"] for record in train(method, batches)])
    assert finals[0][0] == finals[1][0]
    assert abs(finals[0][3] - finals[1][3]) > 1e-4


def test_one_memory_is_shared_and_nothing_else_is_kept() -> None:
    names = {variant: {name.split(".")[0] for name in make_method(variant).state_dict()} for variant in VARIANTS}
    assert names[CompRess1q] == {"student", "targets"}
    assert names[CompRess2q] == {"student", "targets", "memory"}
    assert names[CompRess2qMomentum] == {"student", "targets", "memory", "twin"}


def test_gradient_of_one_queue_goes_through_the_students_head() -> None:
    method = make_method(CompRess1q)
    method.train()(Batch(single_views(1)[0], torch.arange(4)))["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.student.head.parameters())


def test_twin_is_in_eval_but_for_batch_norm_and_starts_as_an_exact_copy() -> None:
    student = headless_encoder()
    student.backbone.drop = nn.Dropout(0.5)
    twin = MomentumEncoder(student, 0.9)
    nn.ModuleList([twin]).train()
    assert twin.encoder.backbone.bn.training
    assert not twin.encoder.backbone.drop.training
    assert not twin.encoder.training
    assert all(torch.equal(a, b) for a, b in zip(twin.encoder.parameters(), student.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    nn.ModuleList([twin]).eval()
    assert not twin.encoder.backbone.bn.training


@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_teacher_gives_targets_by_index_and_is_never_run(
    variant: type[Method], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make_method(variant, cached_teacher=True)
    method.prepare(preparation(tmp_path, TinySource(unreadable=(11,))))
    bank = method.targets.bank
    monkeypatch.setattr(type(method.teacher), "__call__", None)
    method.train()(Batch(single_views(1)[0], torch.tensor([5, 0, 9, 2])))["loss"].backward()
    assert torch.equal(method.targets.memory.rows[:4], bank.targets(torch.tensor([5, 0, 9, 2])))
    assert bank.key["features"] == "embedding"
    assert bank.width == EMBED_DIM
    plain = make_method(variant)
    plain.prepare(preparation(tmp_path / "plain"))
    assert plain.targets.bank is None
    assert not (tmp_path / "plain").exists()


def test_bad_input_is_refused_in_one_line() -> None:
    for variant in VARIANTS:
        with pytest.raises(BadRecipe, match=r"learns from a teacher\. Type: --set teacher\.source=NAME"):
            variant(tiny_encoder(), None, EMBED_DIM)
        with pytest.raises(BadRecipe, match=r"queue_size 128000 is larger than the data \(12 images\)\. Type: --set"):
            variant(tiny_encoder(), tiny_teacher(), EMBED_DIM, 12)
        for bad in ({"student_temperature": 0}, {"teacher_temperature": -1.0}, {"queue_size": 0}):
            with pytest.raises(ValueError, match=next(iter(bad))):
                schema_of(variant)(**bad)
    with pytest.raises(BadRecipe, match=r"student\.embed_dim 8 must be the teacher's 6\. Type: --set student\.head="):
        CompRess1q(headless_encoder(), tiny_teacher(), 8)
