"""SwAV: whole training steps equal an independent loop, with and without small views."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain_loop import in_float64
from reference_swav import SMALL, SWAV_OPTIONS, multi_crop_batches, reference_swav, train_epochs
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher
from torch import nn

from disco_zoo.config.validation import schema_of
from disco_zoo.methods.swav import SwAV
from disco_zoo.modules.multi_crop import embed_views


def make_method(**changes: Any) -> SwAV:
    student = tiny_encoder()
    # SwAV's head has BatchNorm, which in the official code sees all crops as one batch.
    student.head = nn.Sequential(nn.Linear(8, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, EMBED_DIM))
    torch.manual_seed(1)
    return SwAV(student, None, EMBED_DIM, **{**SWAV_OPTIONS, **changes})


@pytest.mark.parametrize("num_small", [0, 2])
def test_six_training_steps_equal_an_independent_loop(num_small: int) -> None:
    method, batches = in_float64(make_method()), multi_crop_batches(6, num_small)
    method.crops = SMALL if num_small else None
    expected = reference_swav(method.student, method.swapped.prototypes.weight, batches)
    records = train_epochs(method, batches)
    assert expected.used_queue == [False] * 6 + [True] * 6
    assert [record["loss"] for record in records] == pytest.approx(expected.losses, abs=1e-9)
    own = [*method.student.backbone.parameters(), *method.student.head.parameters()]
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(own, expected.query.parameters(), strict=True))
    assert torch.allclose(method.swapped.prototypes.weight, expected.prototypes, atol=1e-9)
    for crop in (0, 1):
        assert torch.allclose(method.swapped.queue[crop, :8], torch.stack(expected.queues[crop]), atol=1e-9)
    assert not method.swapped.queue[:, 8].any()  # 9 rounded down to twice the batch


def test_the_head_sees_all_crops_as_one_batch() -> None:
    """A head pass a size, with BatchNorm of its own each time, gives other embeddings (spec 2.10)."""
    method, (views,) = make_method().train(), multi_crop_batches(1)
    student = method.student
    together = embed_views(student, views, 2, small_size=8)
    apart = [student(torch.cat(views[:2])), student(torch.cat(views[2:]), 8)]
    assert (torch.cat(together) - torch.cat(apart)).abs().max() > 0.05


def test_the_comparison_notices_prototypes_that_were_not_frozen() -> None:
    method, batches = in_float64(make_method(freeze_prototypes_steps=0)), multi_crop_batches(6, 0)
    wrong = reference_swav(method.student, method.swapped.prototypes.weight, batches)
    right = reference_swav(method.student, method.swapped.prototypes.weight, batches, frozen_steps=0)
    losses = [record["loss"] for record in train_epochs(method, batches)]
    assert losses == pytest.approx(right.losses, abs=1e-9)
    assert abs(losses[5] - wrong.losses[5]) > 1e-3


def test_all_state_of_a_run_is_in_its_state_dict() -> None:
    batches = multi_crop_batches(6)
    straight, first, second = make_method(), make_method(), make_method()
    for method in (straight, first, second):
        method.crops = SMALL
    train_epochs(straight, batches[:4])
    train_epochs(first, batches[:4])
    second.load_state_dict(first.state_dict())
    losses = [train_epochs(method, batches[4:], first_epoch=4) for method in (straight, second)]
    assert losses[0] == losses[1]
    assert all(
        torch.equal(a, b) for a, b in zip(straight.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_teacher_takes_no_part_and_small_views_are_optional() -> None:
    assert not SwAV.needs_teacher
    assert SwAV.small_views == "optional"
    assert SwAV(tiny_encoder(), tiny_teacher(), EMBED_DIM, num_prototypes=5).teacher is None


@pytest.mark.parametrize("key", ["temperature", "epsilon", "num_prototypes", "sinkhorn_iterations"])
def test_zeros_that_mean_nothing_are_refused(key: str) -> None:
    schema = schema_of(SwAV)
    schema.model_validate({"queue_size": 0, "freeze_prototypes_steps": 0, "queue_start_epoch": 0})
    with pytest.raises(ValueError, match=key):
        schema.model_validate({key: 0})
