"""SwAV's loss in closed form, and its state: prototypes, queue, freezing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.errors import BadRecipe
from disco_zoo.modules.swapped_prediction import SwappedPrediction, sinkhorn, swapped_prediction_loss


def make_swapped(**changes: Any) -> SwappedPrediction:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "num_prototypes": 6,
        "num_assigned": 2,
        "temperature": 0.1,
        "epsilon": 0.05,
        "sinkhorn_iterations": 3,
        "queue_size": 0,
        "queue_start_epoch": 0,
        "freeze_prototypes_steps": 0,
    }
    return SwappedPrediction(4, **{**options, **changes})


def unit_rows(number: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(number, 4, generator=torch.Generator().manual_seed(seed)), dim=1)


def scores_and_targets(views: int = 4, images: int = 3, prototypes: int = 5) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    scores = [torch.randn(images, prototypes, generator=generator, dtype=torch.float64) for _ in range(views)]
    targets = [torch.rand(images, prototypes, generator=generator, dtype=torch.float64) for _ in range(2)]
    return scores, [rows / rows.sum(dim=1, keepdim=True) for rows in targets]


def test_loss_equals_the_formula_number_by_number() -> None:
    scores, targets = scores_and_targets()
    expected = 0.0
    for crop in range(2):
        for view in range(4):
            for i in range(3):
                logits = [value / 0.1 for value in scores[view][i].tolist()]
                log_total = math.log(sum(math.exp(x - max(logits)) for x in logits)) + max(logits)
                cross = -sum(q * (x - log_total) for q, x in zip(targets[crop][i].tolist(), logits, strict=True))
                expected += cross / 3 / 3 / 2 if view != crop else 0.0
    assert swapped_prediction_loss(scores, targets, 0.1).item() == pytest.approx(expected, abs=1e-9)


def test_equal_scores_cost_the_log_of_the_number_of_prototypes() -> None:
    _, targets = scores_and_targets()
    equal = [torch.full((3, 5), 0.4, dtype=torch.float64) for _ in range(3)]
    assert swapped_prediction_loss(equal, targets, 0.1).item() == pytest.approx(math.log(5), abs=1e-12)


def test_two_views_predict_each_other_and_order_of_images_does_not_matter() -> None:
    (first, second, *_), (mine, yours) = scores_and_targets()
    expected = sum(-(q * F.log_softmax(s / 0.1, 1)).sum(1).mean() for q, s in ((mine, second), (yours, first))) / 2
    found = swapped_prediction_loss([first, second], [mine, yours], 0.1).item()
    assert found == pytest.approx(expected.item(), abs=1e-12)
    order = torch.tensor([2, 0, 1])
    shuffled = swapped_prediction_loss([first[order], second[order]], [mine[order], yours[order]], 0.1)
    assert shuffled.item() == pytest.approx(found, abs=1e-12)


def test_mean_over_halves_is_the_joint_loss() -> None:
    scores, targets = scores_and_targets(images=6)
    halves = [
        swapped_prediction_loss([s[p] for s in scores], [t[p] for t in targets], 0.1) for p in (slice(3), slice(3, 6))
    ]
    assert (sum(halves) / 2).item() == pytest.approx(swapped_prediction_loss(scores, targets, 0.1).item(), abs=1e-9)


def test_gradient_reaches_the_predictions_and_no_assignment() -> None:
    scores, targets = scores_and_targets(views=3)
    for rows in (*scores, *targets):
        rows.requires_grad_()
    swapped_prediction_loss(scores, targets, 0.1).backward()
    assert all(rows.grad is None for rows in targets)
    assert all(rows.grad is not None and rows.grad.abs().sum() > 0 for rows in scores)


def test_loss_is_computed_in_full_precision_under_autocast() -> None:
    swapped, views = make_swapped(), [unit_rows(8, seed) for seed in range(3)]
    plain = swapped.loss(views)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = swapped.loss(views)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(plain.item(), rel=1e-6)


def test_prototypes_have_length_one_in_each_forward() -> None:
    swapped = make_swapped()
    directions = F.normalize(swapped.prototypes.weight.detach(), dim=1)
    swapped.loss([unit_rows(4, 0), unit_rows(4, 1)])
    assert torch.allclose(swapped.prototypes.weight, directions, atol=1e-6)
    with torch.no_grad():
        swapped.prototypes.weight *= 3
    swapped.loss([unit_rows(4, 0), unit_rows(4, 1)])
    assert torch.allclose(swapped.prototypes.weight.norm(dim=1), torch.ones(6), atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_prototypes_feel_neither_gradient_nor_decay_nor_momentum(optimizer: str) -> None:
    swapped = make_swapped(freeze_prototypes_steps=3)
    weight = swapped.prototypes.weight
    with torch.no_grad():
        weight.copy_(F.normalize(weight, dim=1))
    start = weight.detach().clone()
    options = {"lr": 0.1, "weight_decay": 0.1}
    kinds = {
        "sgd": lambda: torch.optim.SGD([weight], momentum=0.9, **options),
        "adamw": lambda: torch.optim.AdamW([weight], **options),
    }
    steps = kinds[optimizer]()
    views = [unit_rows(4, seed).requires_grad_() for seed in range(2)]
    for number in range(4):
        swapped.loss(views).backward()
        swapped.before_step()
        assert (weight.grad is None) == (number < 3)
        steps.step()
        steps.zero_grad()
        swapped.after_step()
        if number < 3:
            assert torch.allclose(weight, start, atol=1e-6)
            assert not steps.state
    assert not torch.allclose(weight, start, atol=1e-4)
    assert all(view.grad.abs().sum() > 0 for view in views)  # the student learns from the first step


def test_queue_waits_until_full_takes_new_rows_at_the_front_and_scores_before_it_writes() -> None:
    swapped = make_swapped(queue_size=11, queue_start_epoch=2)  # 8 at a batch of 4
    batches = [[unit_rows(4, 10 * step + view) for view in range(2)] for step in range(6)]
    swapped.start_epoch(1)
    swapped.loss(batches[0])
    assert not swapped.queue.any()
    swapped.start_epoch(2)
    expected: list[list[float]] = []
    for step in range(1, 5):
        prototypes = F.normalize(swapped.prototypes.weight.detach(), dim=1)
        earlier = swapped.queue[1, :8] if len(expected) == 8 else torch.zeros(0, 4)
        joint = torch.cat([earlier, batches[step][1]]) @ prototypes.T
        wanted = sinkhorn(joint, epsilon=0.05, iterations=3)[-4:]
        assert torch.allclose(assigned(swapped, batches[step])[1], wanted, atol=1e-5)
        expected = [*batches[step][1].tolist(), *expected][:8]
        assert swapped.queue[1, : len(expected)].tolist() == expected
        assert not swapped.queue[1, len(expected) :].any()


def assigned(swapped: SwappedPrediction, embeddings: list[Tensor]) -> list[Tensor]:
    """The assignments that a call of `loss` finds."""
    found: list[Tensor] = []
    own = swapped._assign
    swapped._assign = lambda *arguments: found.append(own(*arguments)) or found[-1]
    swapped.loss(embeddings)
    swapped._assign = own
    return found


@pytest.mark.parametrize("queue_size", [0, 8])
def test_a_restored_copy_goes_on_bit_by_bit(queue_size: int) -> None:
    swapped = make_swapped(queue_size=queue_size, freeze_prototypes_steps=2)
    batches = [[unit_rows(4, 10 * step + view) for view in range(2)] for step in range(6)]
    swapped.start_epoch(0)
    for batch in batches[:3]:
        swapped.loss(batch)
        swapped.after_step()
    restored = make_swapped(queue_size=queue_size, freeze_prototypes_steps=2)
    restored.load_state_dict(swapped.state_dict())
    restored.start_epoch(0)
    assert set(swapped.state_dict()) == {"prototypes.weight", "queue", "steps"}
    for batch in batches[3:]:
        assert restored.loss(batch).item() == swapped.loss(batch).item()
    assert torch.equal(restored.queue, swapped.queue)
    assert restored.steps == 3


def test_a_queue_smaller_than_a_batch_is_refused_at_the_first_step() -> None:
    swapped = make_swapped(queue_size=3, queue_start_epoch=15)
    swapped.start_epoch(0)
    with pytest.raises(BadRecipe, match="queue_size=4, or 0 for no queue") as error:
        swapped.loss([unit_rows(4, 0), unit_rows(4, 1)])
    assert "\n" not in str(error.value)
