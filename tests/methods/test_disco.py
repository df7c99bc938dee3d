"""DisCo: the loss, whole training steps against an independent loop, and a teacher that stays as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from method_training import train
from plain_loop import in_float64
from reference_loop import EMA, QUEUE_SIZE, TEMPERATURE, reference_loop
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher, view_batches
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.config.recipe import load_recipe
from disco_zoo.core.console import say_once
from disco_zoo.errors import BadRecipe
from disco_zoo.methods.base import Batch
from disco_zoo.methods.disco import DisCo, consistency_loss
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.teacher import Teacher


def make_method(teacher: Teacher | None = None, **options: Any) -> DisCo:
    options = {"temperature": TEMPERATURE, "queue_size": QUEUE_SIZE, "momentum": EMA, **options}
    return DisCo(tiny_encoder(), teacher or tiny_teacher(), EMBED_DIM, **options)


def unit_rows(number: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(number, 5, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_consistency_loss_is_two_minus_two_cosines() -> None:
    angles = torch.tensor([0.0, 0.3, torch.pi / 2, torch.pi])
    student = torch.stack([angles.cos(), angles.sin()], dim=1)
    teacher = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    expected = (2 - 2 * angles.cos()).mean().item()
    assert consistency_loss(student, teacher).item() == pytest.approx(expected, abs=1e-6)
    assert consistency_loss(student[3:], teacher[3:]).item() == pytest.approx(4, abs=1e-6)


def test_consistency_loss_equals_a_plain_loop_and_its_sum_is_b_times_its_mean() -> None:
    student, teacher = unit_rows(7, 0), unit_rows(7, 1)
    total = sum(
        (t - s) ** 2 for a, b in zip(teacher.tolist(), student.tolist(), strict=True) for t, s in zip(a, b, strict=True)
    )
    assert consistency_loss(student, teacher, "sum").item() == pytest.approx(total, abs=1e-6)
    assert consistency_loss(student, teacher, "mean").item() == pytest.approx(total / 7, abs=1e-6)


def test_consistency_loss_sends_gradient_to_the_student_alone() -> None:
    student, teacher = unit_rows(7, 0).requires_grad_(), unit_rows(7, 1).requires_grad_()
    consistency_loss(student, teacher).backward()
    assert student.grad is not None
    assert torch.allclose(student.grad, 2 / 7 * (student - teacher), atol=1e-6)
    assert teacher.grad is None


@pytest.mark.parametrize(("reduction", "weight", "sum_weight"), [("mean", 32.0, 8.0), ("sum", 1.0, 1.0)])
def test_five_training_steps_equal_an_independent_disco_loop(reduction: str, weight: float, sum_weight: float) -> None:
    method = in_float64(make_method(distill_reduction=reduction, distill_weight=weight))
    batches = view_batches(5)
    expected = reference_loop(
        method.student, method.contrast.queue.rows, batches, teacher=method.teacher.encoder, sum_weight=sum_weight
    )
    records = train(method, batches)
    assert [record["loss"] for record in records] == pytest.approx(expected.losses, abs=1e-8)
    assert [record["contrast"] for record in records] == pytest.approx(expected.contrasts, abs=1e-8)
    scale = 4 if reduction == "mean" else 1
    assert [scale * record["distill"] for record in records] == pytest.approx(expected.distills, abs=1e-8)
    own = [*method.student.backbone.parameters(), *method.student.head.parameters()]
    for mine, theirs in zip(own, expected.query.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-8)


def test_official_sum_over_32_images_equals_the_default_weight() -> None:
    views = view_batches(1, batch=32)[0]
    defaults = DisCo(tiny_encoder(), tiny_teacher(), EMBED_DIM, queue_size=8).train()
    official = DisCo(
        tiny_encoder(), tiny_teacher(), EMBED_DIM, queue_size=8, distill_reduction="sum", distill_weight=1.0
    )
    losses = [method.train()(Batch(views, torch.arange(32)))["loss"].item() for method in (defaults, official)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_zero_contrast_weight_is_the_papers_only_mse_variant() -> None:
    method = make_method(contrast_weight=0.0, distill_weight=3.0)
    losses = method.train()(Batch(view_batches(1)[0], torch.arange(4)))
    assert losses["loss"].item() == pytest.approx(3 * losses["distill"].item(), rel=1e-6)
    assert losses["contrast"] > 0


def test_centred_targets_are_directions_from_the_running_mean() -> None:
    method = make_method(centre_teacher=True, centre_momentum=0.9)
    views = view_batches(1)[0]
    features = [method.teacher(view) for view in views]
    mean = torch.cat(features).mean(dim=0)
    student = [method.student.train()(view) for view in views]
    expected = sum(
        (F.normalize(f - mean, dim=1) - s).pow(2).sum(dim=1).mean() for f, s in zip(features, student, strict=True)
    )
    assert method.train()(Batch(views, torch.arange(4)))["distill"].item() == pytest.approx(expected.item(), abs=1e-5)
    assert {"centre.mean", "centre.started"} <= set(method.state_dict())


def test_teacher_is_bit_identical_and_in_eval_mode_after_training() -> None:
    teacher = tiny_teacher()
    before = backbone_fingerprint(teacher.encoder)
    method = make_method(teacher)
    train(method.train(), view_batches(4))
    assert backbone_fingerprint(teacher.encoder) == before
    assert not any(module.training for module in teacher.encoder.modules())
    assert not any(parameter.requires_grad for parameter in teacher.encoder.parameters())


def test_official_teacher_in_train_mode_drifts_and_its_targets_depend_on_the_batch() -> None:
    teacher, steady = tiny_teacher(bn_mode="train"), tiny_teacher()
    before = backbone_fingerprint(teacher.encoder)
    views = view_batches(1)[0][0]
    assert not torch.allclose(teacher(views)[:2], teacher(views[:2]), atol=1e-4)
    assert torch.allclose(steady(views)[:2], steady(views[:2]), atol=1e-5)
    weights = [parameter.clone() for parameter in teacher.encoder.parameters()]
    train(make_method(teacher), view_batches(3))
    assert backbone_fingerprint(teacher.encoder) != before
    assert all(torch.equal(a, b) for a, b in zip(weights, teacher.encoder.parameters(), strict=True))


def test_teacher_is_neither_in_the_checkpoint_nor_among_the_trained_parameters() -> None:
    method = make_method()
    assert {key.split(".")[0] for key in method.state_dict()} == {"student", "contrast"}
    trained = {id(parameter) for parameter in method.parameters()}
    assert not trained & {id(parameter) for parameter in method.teacher.encoder.parameters()}


def test_queue_may_start_with_the_teachers_queue() -> None:
    rows = F.normalize(torch.randn(QUEUE_SIZE, EMBED_DIM), dim=1)
    assert torch.equal(make_method(tiny_teacher(queue=rows), queue_init="teacher").contrast.queue.rows, rows)
    assert not torch.equal(make_method(tiny_teacher(queue=rows)).contrast.queue.rows, rows)


def test_the_first_keys_replace_the_rows_at_the_files_pointer() -> None:
    """The official loader takes `queue_ptr` along with `queue`; new keys go there, the others stay."""
    rows = F.normalize(torch.randn(QUEUE_SIZE, EMBED_DIM), dim=1)
    teacher = tiny_teacher(queue=rows)
    teacher.loaded = replace(teacher.loaded, queue_position=QUEUE_SIZE - 1)
    method = make_method(teacher, queue_init="teacher")
    train(method, view_batches(1))  # 4 images: the last row and the first three
    kept = torch.isclose(method.contrast.queue.rows, rows).all(dim=1).tolist()
    assert kept == [False] * 3 + [True] * (QUEUE_SIZE - 4) + [False]


def test_official_goes_on_without_a_queue_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    say_once.cache_clear()
    random = make_method(queue_init="random").contrast.queue
    official = make_method(queue_init="teacher_if_any").contrast.queue
    assert (official.rows.shape, official.position.item()) == (random.rows.shape, 0)
    assert torch.allclose(official.rows.norm(dim=1), torch.ones(QUEUE_SIZE))
    assert capsys.readouterr().err == (
        "tiny has no queue in its file: the first negatives are random, as in the authors' code\n"
    )
    rows = F.normalize(torch.randn(QUEUE_SIZE, EMBED_DIM), dim=1)
    assert torch.equal(make_method(tiny_teacher(queue=rows), queue_init="teacher_if_any").contrast.queue.rows, rows)


def test_a_queue_that_a_former_version_dropped_is_asked_for() -> None:
    teacher = tiny_teacher()
    teacher.loaded = replace(teacher.loaded, queue_lost="disco-zoo download tiny --force")
    for start in ("teacher", "teacher_if_any"):
        with pytest.raises(
            BadRecipe, match=r"tiny without its file's queue\. Type: disco-zoo download tiny --force, or"
        ):
            make_method(teacher, queue_init=start)


@pytest.mark.parametrize(("queue", "found"), [(None, "no queue"), (torch.zeros(3, 2), "a queue of (3, 2)")])
def test_a_teacher_without_a_fitting_queue_is_refused(queue: Tensor | None, found: str) -> None:
    with pytest.raises(BadRecipe, match="random") as error:
        make_method(tiny_teacher(queue=queue), queue_init="teacher")
    assert found in str(error.value)


IN1K = "in1k/disco_effb0.disco_mocov2_r50_in1k"


def test_preset_official_sets_the_three_quirks() -> None:
    fixed, official = load_recipe(IN1K), load_recipe(IN1K, ["preset=official"])
    assert (fixed.teacher.bn_mode, official.teacher.bn_mode) == ("eval", "train")
    for key, ours, theirs in (
        ("distill_reduction", "mean", "sum"),
        ("distill_weight", 32.0, 1.0),
        ("queue_init", "random", "teacher_if_any"),
    ):
        assert (fixed.method[key], official.method[key]) == (ours, theirs)


def test_explicit_keys_win_over_the_preset() -> None:
    recipe = load_recipe(IN1K, ["preset=official", "teacher.bn_mode=eval", "method.distill_weight=2"])
    assert recipe.teacher.bn_mode == "eval"
    assert recipe.method["distill_weight"] == 2
    assert recipe.method["distill_reduction"] == "sum"
