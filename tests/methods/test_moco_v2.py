"""MoCo-v2: whole training steps equal an independent loop written from the spec."""

from __future__ import annotations

import pytest
import torch
from method_training import train
from plain_loop import in_float64
from reference_loop import EMA, QUEUE_SIZE, TEMPERATURE, reference_loop
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher, view_batches

from disco_zoo.methods import METHODS
from disco_zoo.methods.moco_v2 import MoCoV2


def make_method() -> MoCoV2:
    return MoCoV2(tiny_encoder(), None, EMBED_DIM, temperature=TEMPERATURE, queue_size=QUEUE_SIZE, momentum=EMA)


def test_five_training_steps_equal_an_independent_moco_loop() -> None:
    method, batches = in_float64(make_method()), view_batches(5)
    expected = reference_loop(method.student, method.contrast.queue.rows, batches)
    records = train(method, batches)
    assert [record["loss"] for record in records] == pytest.approx(expected.losses, abs=1e-9)
    assert [record["contrast"] for record in records] == [record["loss"] for record in records]
    own = [*method.student.backbone.parameters(), *method.student.head.parameters()]
    for mine, theirs in zip(own, expected.query.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-9)
    assert torch.allclose(method.contrast.queue.rows, expected.queue, atol=1e-9)


def test_twins_batch_norm_statistics_are_those_of_its_own_forwards() -> None:
    method, batches = make_method(), view_batches(5)
    expected = reference_loop(method.student, method.contrast.queue.rows, batches)
    train(method, batches)
    twin, student = method.contrast.twin.backbone.bn, method.student.backbone.bn
    assert torch.allclose(twin.running_mean, expected.key[0].bn.running_mean, atol=1e-5)
    assert torch.allclose(student.running_mean, expected.query[0].bn.running_mean, atol=1e-5)
    assert not torch.allclose(twin.running_mean, student.running_mean, atol=1e-3)


def test_twin_after_the_step_is_mocos_key_encoder_before_its_next_key() -> None:
    method, batches = make_method(), view_batches(5)
    # MoCo's update of step 5 sees the weights after step 4; ours has been made at the end of step 4.
    expected = reference_loop(method.student, method.contrast.queue.rows, batches)
    train(method, batches[:4])
    twin = [*method.contrast.twin.backbone.parameters(), *method.contrast.twin.head.parameters()]
    for mine, theirs in zip(twin, expected.key.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_the_comparison_notices_a_key_encoder_that_does_not_follow() -> None:
    method, batches = make_method(), view_batches(5)
    wrong = reference_loop(method.student, method.contrast.queue.rows, batches, key_follows="never")
    losses = [record["loss"] for record in train(method, batches)]
    assert losses[0] == pytest.approx(wrong.losses[0], abs=1e-6)
    assert abs(losses[4] - wrong.losses[4]) > 1e-3


def test_moco_v2_ignores_a_teacher_and_needs_none() -> None:
    assert not MoCoV2.needs_teacher
    assert MoCoV2(tiny_encoder(), tiny_teacher(), EMBED_DIM, queue_size=4).teacher is None
    assert METHODS["moco_v2"] is MoCoV2
