"""Learning rates at points where they are known, and what the optimisers are given."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tiny import TinyNet, optim_section

from disco_zoo.optim import build_optimizer, lr_at


def rates(num_steps: int, **changes) -> list[float]:
    section = optim_section(**changes)
    return [lr_at(step, peak_lr=0.06, steps_per_epoch=10, optim=section) for step in range(num_steps)]


def test_cosine_epoch_is_constant_within_an_epoch_and_the_papers_curve_over_epochs() -> None:
    found = rates(100, schedule="cosine_epoch", epochs=10)
    for epoch in range(10):
        expected = 0.06 * 0.5 * (1 + math.cos(math.pi * epoch / 10))
        assert found[epoch * 10 : epoch * 10 + 10] == [pytest.approx(expected, rel=1e-12)] * 10
    assert found[50] == pytest.approx(0.03)


def test_cosine_step_follows_the_same_curve_step_by_step() -> None:
    found = rates(101, schedule="cosine_step", epochs=10)
    for step, share in (
        (0, 1.0),
        (25, 0.5 + 0.5 * math.sqrt(0.5)),
        (50, 0.5),
        (75, 0.5 - 0.5 * math.sqrt(0.5)),
        (100, 0),
    ):
        assert found[step] == pytest.approx(0.06 * share, abs=1e-12)
    assert all(a > b for a, b in itertools.pairwise(found))


def test_warm_up_is_linear_and_its_length_is_taken_off_the_cosine() -> None:
    found = rates(101, schedule="cosine_step", epochs=10, warmup_epochs=2.0)
    assert found[:20] == pytest.approx([0.06 * (step + 1) / 20 for step in range(20)])
    assert found[20] == pytest.approx(0.06)
    assert found[60] == pytest.approx(0.03)
    assert found[100] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("warmup_epochs", [0.01, 0.15, 0.25, 1.56])
def test_warm_up_of_a_fraction_of_steps_never_exceeds_the_peak(warmup_epochs: float) -> None:
    found = rates(30, warmup_epochs=warmup_epochs)
    assert max(found) == 0.06
    assert found[math.ceil(warmup_epochs * 10) :] == [0.06] * (30 - math.ceil(warmup_epochs * 10))
    assert all(a <= b for a, b in itertools.pairwise(found))


def test_constant_stays() -> None:
    assert rates(100) == [0.06] * 100


def test_sgd_is_the_papers_update_on_every_trainable_parameter() -> None:
    torch.manual_seed(0)
    net = TinyNet()
    net.bn.bias.requires_grad_(False)
    section = optim_section(momentum=0.9, weight_decay=0.1)
    optimizer = build_optimizer(net.parameters(), section, 0.5)
    assert len(optimizer.param_groups[0]["params"]) == 2
    expected, velocity = net.conv.weight.detach().clone(), torch.zeros_like(net.conv.weight)
    for _ in range(3):
        optimizer.zero_grad()
        (net.conv.weight**2).sum().backward()
        velocity = 0.9 * velocity + 2 * expected + 0.1 * expected
        expected = expected - 0.5 * velocity
        optimizer.step()
    assert torch.allclose(net.conv.weight, expected, rtol=1e-5)


def test_adamw_takes_rate_and_decay_from_the_recipe() -> None:
    optimizer = build_optimizer(TinyNet().parameters(), optim_section(optimizer="adamw", weight_decay=0.1), 0.5)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.5, 0.1)
