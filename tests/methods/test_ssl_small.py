"""ssl-small: MoCo-v2's steps at its own temperature."""

from __future__ import annotations

import pytest
import torch
from method_training import train
from plain_loop import in_float64
from reference_loop import EMA, QUEUE_SIZE, TEMPERATURE, reference_loop
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher, view_batches

from disco_zoo.config.validation import schema_of
from disco_zoo.methods.moco_v2 import SslSmall


def test_five_training_steps_equal_an_independent_moco_loop() -> None:
    method = in_float64(
        SslSmall(tiny_encoder(), None, EMBED_DIM, temperature=TEMPERATURE, queue_size=QUEUE_SIZE, momentum=EMA)
    )
    batches = view_batches(5)
    expected = reference_loop(method.student, method.contrast.queue.rows, batches)
    records = train(method, batches)
    assert [record["loss"] for record in records] == pytest.approx(expected.losses, abs=1e-9)
    own = [*method.student.backbone.parameters(), *method.student.head.parameters()]
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(own, expected.query.parameters(), strict=True))
    assert torch.allclose(method.contrast.queue.rows, expected.queue, atol=1e-9)


def test_defaults_are_the_papers() -> None:
    assert schema_of(SslSmall)().model_dump() == {"temperature": 0.1, "queue_size": 65536, "momentum": 0.999}
    assert SslSmall(tiny_encoder(), None, EMBED_DIM, queue_size=4).contrast.temperature == 0.1


def test_no_teacher_takes_part() -> None:
    assert not SslSmall.needs_teacher
    assert SslSmall(tiny_encoder(), tiny_teacher(), EMBED_DIM, queue_size=4).teacher is None
