"""CRD: the loss against a plain loop, whole training steps, negatives without labels, a normaliser set once."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from method_training import train
from plain_loop import in_float64
from reference_loop import embed, sgd_step
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher, view_batches
from torch import Tensor, nn

from disco_zoo.config.validation import schema_of
from disco_zoo.errors import BadRecipe
from disco_zoo.methods.base import Batch
from disco_zoo.methods.crd import CRD, draw_candidates, noise_contrastive_loss
from disco_zoo.models.encoder import backbone_fingerprint

NUM_IMAGES, NEGATIVES, TEMPERATURE, MOMENTUM = 20, 6, 0.2, 0.6


def make_method(seed: int = 0, **options: Any) -> CRD:
    options = {"temperature": TEMPERATURE, "negatives": NEGATIVES, "memory_momentum": MOMENTUM, **options}
    student, teacher = tiny_encoder(), tiny_teacher()
    torch.manual_seed(50 + seed)
    return CRD(student, teacher, EMBED_DIM, NUM_IMAGES, **options)


def single_views(num_steps: int) -> list[list[Tensor]]:
    return [views[:1] for views in view_batches(num_steps)]


SCORES = torch.empty(6, 1 + NEGATIVES, dtype=torch.float64).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))


def test_loss_equals_a_plain_loop() -> None:
    expected, noise = 0.0, NEGATIVES / NUM_IMAGES
    for row in SCORES.tolist():
        ratios = [math.exp(score / TEMPERATURE) / 37.0 for score in row]
        expected -= math.log(ratios[0] / (ratios[0] + noise + 1e-7)) / 6
        expected -= sum(math.log(noise / (ratio + noise + 1e-7)) for ratio in ratios[1:]) / 6
    assert noise_contrastive_loss(SCORES, math.log(37), NUM_IMAGES, TEMPERATURE).item() == pytest.approx(
        expected, abs=1e-12
    )


def test_loss_of_scores_that_say_nothing_is_known() -> None:
    """Where every ratio equals the noise's m/N, each of the 1 + m guesses is a coin's toss."""
    scores = torch.zeros(3, 1 + NEGATIVES, dtype=torch.float64)
    loss = noise_contrastive_loss(scores, math.log(NUM_IMAGES / NEGATIVES), NUM_IMAGES, TEMPERATURE).item()
    assert loss == pytest.approx((1 + NEGATIVES) * math.log(2), abs=1e-5)  # ε is 1e-7 of 0.3


def test_loss_is_a_mean_over_rows_and_knows_no_order_of_negatives() -> None:
    def loss(scores: Tensor) -> float:
        return noise_contrastive_loss(scores, math.log(37), NUM_IMAGES, TEMPERATURE).item()

    joint = loss(SCORES)
    assert loss(SCORES.flip(0)) == pytest.approx(joint, abs=1e-12)
    assert loss(torch.cat([SCORES[:, :1], SCORES[:, 1:].flip(1)], dim=1)) == pytest.approx(joint, abs=1e-12)
    assert (loss(SCORES[:3]) + loss(SCORES[3:])) / 2 == pytest.approx(joint, abs=1e-12)
    assert loss(SCORES.flip(1)) != pytest.approx(joint, abs=1e-3)


def test_loss_pulls_the_positive_and_pushes_the_negatives() -> None:
    scores = SCORES.clone().requires_grad_()
    noise_contrastive_loss(scores, math.log(37), NUM_IMAGES, TEMPERATURE).backward()
    assert (scores.grad[:, 0] < 0).all()
    assert (scores.grad[:, 1:] > 0).all()


def test_loss_is_computed_in_full_precision_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = noise_contrastive_loss(SCORES.bfloat16(), math.log(37), NUM_IMAGES, TEMPERATURE)
    assert loss.dtype == torch.float32
    expected = noise_contrastive_loss(SCORES.bfloat16().float(), math.log(37), NUM_IMAGES, TEMPERATURE)
    assert loss.item() == expected.item()


def test_candidates_are_the_image_itself_and_then_uniform_over_all_images() -> None:
    index = torch.tensor([4, 0, 9])
    candidates = draw_candidates(index, 30_000, 10, 1, 2)
    assert candidates.shape == (3, 30_001)
    assert torch.equal(candidates[:, 0], index)
    counts = torch.stack([row.bincount(minlength=10) for row in candidates[:, 1:]])
    assert counts.shape == (3, 10)  # themselves included
    assert (counts - 3000).abs().max() < 300


def test_candidates_of_an_image_do_not_depend_on_its_batch_but_on_seed_and_step() -> None:
    joint = draw_candidates(torch.tensor([4, 0, 9, 7]), 5, 50, 1, 2)
    halves = [draw_candidates(torch.tensor(half), 5, 50, 1, 2) for half in ([4, 0], [9, 7])]
    assert torch.equal(joint, torch.cat(halves))
    assert not torch.equal(joint[0, 1:], joint[1, 1:])
    for key in ((1, 3), (2, 2)):
        assert not torch.equal(draw_candidates(torch.tensor([4]), 5, 50, *key), joint[:1])


def reference(method: CRD, batches: list[list[Tensor]]) -> Any:
    """Train copies of the method's student and teacher's Linear from 2.8 alone."""
    query = nn.ModuleList([copy.deepcopy(method.student.backbone), copy.deepcopy(method.student.head)]).train()
    linear = copy.deepcopy(method.teacher_head)
    trained = nn.ModuleList([query, linear])
    teacher = method.teacher.encoder
    of_teacher = [row.clone() for row in method.student_side.memory.rows]
    of_student = [row.clone() for row in method.teacher_side.memory.rows]
    velocities = [torch.zeros_like(parameter) for parameter in trained.parameters()]
    losses, normalizers = [], []
    for step, (view,) in enumerate(batches):
        index = list(range(4 * step, 4 * step + 4))
        students = embed(*query, view)
        with torch.no_grad():
            pixels = torch.stack([(view[:, c] / 255 - teacher.mean[c]) / teacher.std[c] for c in range(3)], dim=1)
            features = teacher.head(teacher.backbone(pixels))
        teachers = linear(features)
        teachers = teachers / teachers.norm(dim=1, keepdim=True)
        drawn = draw_candidates(torch.tensor(index), NEGATIVES, NUM_IMAGES, 0, step).tolist()
        loss = torch.zeros(())
        for side, (rows, memory) in enumerate(((students, of_teacher), (teachers, of_student))):
            exps = torch.stack(
                [
                    torch.stack([(v @ memory[j] / TEMPERATURE).exp() for j in numbers])
                    for v, numbers in zip(rows, drawn, strict=True)
                ]
            )
            if step == 0:
                normalizers.append(NUM_IMAGES * exps.mean().item())
            noise = NEGATIVES / NUM_IMAGES
            for g in exps / normalizers[side]:
                loss = loss - (g[0] / (g[0] + noise + 1e-7)).log() / 4
                loss = loss - (noise / (g[1:] + noise + 1e-7)).log().sum() / 4
        losses.append(loss.item())
        sgd_step(trained, loss, velocities)
        for number, v, u in zip(index, students.detach(), teachers.detach(), strict=True):
            for memory, new in ((of_student, v), (of_teacher, u)):
                mixed = MOMENTUM * memory[number] + (1 - MOMENTUM) * new
                memory[number] = mixed / mixed.norm()
    return losses, trained, torch.stack(of_student), torch.stack(of_teacher), normalizers


def test_five_training_steps_equal_an_independent_loop() -> None:
    method, batches = in_float64(make_method()), single_views(5)
    before = backbone_fingerprint(method.teacher.encoder)
    losses, trained, of_student, of_teacher, normalizers = reference(method, batches)
    assert [record["loss"] for record in train(method, batches)] == pytest.approx(losses, rel=1e-9)
    own = [*method.student.backbone.parameters(), *method.student.head.parameters(), *method.teacher_head.parameters()]
    for mine, theirs in zip(own, trained.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-9)
    assert torch.allclose(method.teacher_side.memory.rows, of_student, atol=1e-9)
    assert torch.allclose(method.student_side.memory.rows, of_teacher, atol=1e-9)
    found = [side.log_normaliser.exp().item() for side in (method.student_side, method.teacher_side)]
    assert found == pytest.approx(normalizers, rel=1e-9)
    assert backbone_fingerprint(method.teacher.encoder) == before
    assert not method.teacher.backbone.training


def test_both_embedding_layers_learn_and_the_memories_do_not() -> None:
    method = make_method()
    method.train()(Batch(single_views(1)[0], torch.arange(4)))["loss"].backward()
    for layer in (method.teacher_head, method.student.head, method.student.backbone):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
    assert not any("memory" in name for name, _ in method.named_parameters())
    assert not any(parameter.requires_grad for parameter in method.teacher.encoder.parameters())


def test_counter_normaliser_and_memories_are_in_the_state() -> None:
    method, batches = make_method(), single_views(5)
    whole = [record["loss"] for record in train(method, batches)]
    former = make_method()
    assert [record["loss"] for record in train(former, batches[:1])] == whole[:1]
    resumed = make_method(seed=1)
    resumed.load_state_dict(former.state_dict())
    assert resumed.step == 1
    assert resumed.student_side.log_normaliser == former.student_side.log_normaliser
    # A first step under two counters draws two sets of negatives.
    batch = Batch(batches[1], torch.arange(4))
    assert resumed.train()(batch)["loss"].item() == copy.deepcopy(former).train()(batch)["loss"].item()
    former.step.zero_()
    assert former.train()(batch)["loss"].item() != resumed(batch)["loss"].item()


def test_weight_scales_the_loss_and_is_official_at_0_8() -> None:
    views = single_views(1)[0]
    losses = [make_method(distill_weight=w).train()(Batch(views, torch.arange(4)))["loss"].item() for w in (1.0, 0.8)]
    assert losses[1] == pytest.approx(0.8 * losses[0], rel=1e-6)
    assert CRD.OFFICIAL == {"method.distill_weight": 0.8}


def test_bad_input_is_refused_in_one_line() -> None:
    with pytest.raises(BadRecipe, match=r"learns from a teacher\. Type: --set teacher\.source=NAME"):
        CRD(tiny_encoder(), None, EMBED_DIM, NUM_IMAGES, negatives=4)
    with pytest.raises(BadRecipe, match=r"method\.negatives 16384 are more than the data \(20 images\)\. Type: --set"):
        CRD(tiny_encoder(), tiny_teacher(), EMBED_DIM, NUM_IMAGES)
    for bad in ({"temperature": 0.0}, {"negatives": 0}, {"memory_momentum": 1.0}, {"distill_weight": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            schema_of(CRD)(**bad)
