"""Memory of a plan: closed forms on small networks, and real trainings of three sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from measure_training_memory import measured_recipe, peak_of_training
from method_runs import method_recipe
from slow_params import slow_but
from torch import nn

from disco_zoo.plan.counters import GRADIENTS, SAVED, TEMPORARY, LiveMemory
from disco_zoo.plan.stand_ins import NoiseSource, build_weightless, without_weights
from disco_zoo.plan.step_cost import step_cost
from disco_zoo.plan.types import predict_memory
from disco_zoo.training.build import count_parameters

MIB = 2**20


def test_live_memory_of_a_chain_in_closed_form() -> None:
    """x (1000, 10) through two bias-free layers of 50: what each moment holds can be counted by hand."""
    x, network = torch.randn(1000, 10), nn.Sequential(nn.Linear(10, 50, bias=False), nn.Linear(50, 50, bias=False))
    weights, hidden = 4 * (10 * 50 + 50 * 50), 4 * 1000 * 50
    memory = LiveMemory()
    memory.own("network", network.parameters())
    memory.own("input", [x])
    with memory.of(network):
        output = network(x)
        assert memory.live == {"network": weights, "input": 4 * 1000 * 10, SAVED: hidden, TEMPORARY: hidden}
        output.backward(torch.ones_like(output))
        del output
        assert memory.live[GRADIENTS] == weights
        assert memory.live[SAVED] == memory.live[TEMPORARY] == 0
        network.zero_grad()
        assert memory.live[GRADIENTS] == 0
    # The gradient of the first layer's output comes while its input, the output and its gradient are all there.
    assert memory.peak.total() == weights + 4 * 1000 * 10 + 4 * hidden + 4 * 50 * 50


def test_views_of_a_storage_count_once() -> None:
    memory = LiveMemory()
    with memory:
        rows = torch.zeros(100, 4)
        parts = [rows[:50], rows.T, rows.reshape(400)]
        assert memory.live.total() == 1600
        del rows
        assert memory.live.total() == 1600
        del parts
    assert memory.live.total() == 0


@pytest.mark.parametrize(("optimizer", "copies"), slow_but([("sgd", 1), ("adamw", 2)], [("adamw", 2)]))
def test_what_stays_is_what_the_networks_have(optimizer: str, copies: int) -> None:
    recipe = without_weights(method_recipe("disco", optim__optimizer=optimizer))
    cost = step_cost(recipe, NoiseSource(26), 8)
    parts = build_weightless(recipe, NoiseSource(26), "cpu")
    buffers = 4 * sum(b.numel() for b in parts.student.buffers() if b.is_floating_point())
    counters = 8 * sum(b.numel() for b in parts.student.buffers() if not b.is_floating_point())
    student = 4 * count_parameters(parts.student)
    assert cost.peak_bytes["student"] == cost.peak_bytes["twin"] == student + buffers + counters
    assert cost.peak_bytes["optimiser"] == pytest.approx(copies * student, rel=0.01)  # AdamW counts steps, too
    assert cost.peak_bytes["views"] == 2 * 8 * 3 * 32 * 32
    assert parts.teacher is not None
    assert cost.parameters.teacher == count_parameters(parts.teacher.encoder)


@pytest.mark.slow
def test_activations_grow_with_the_batch_and_shrink_with_precision() -> None:
    def saved(images: int, **changes: object) -> int:
        recipe = without_weights(method_recipe("moco_v2", **changes))
        return step_cost(recipe, NoiseSource(64), images).peak_bytes[SAVED]

    small, large = saved(8), saved(16)
    fixed = 2 * small - large  # the queue's rows
    assert 0 <= fixed < 0.02 * small
    assert 0.45 < saved(8, optim__precision="bf16") / small < 0.8  # BatchNorm and the loss stay in fp32


@pytest.mark.slow
def test_accumulated_gradients_are_there_while_the_next_forward_saves() -> None:
    plain, accumulated = (
        step_cost(without_weights(method_recipe("moco_v2", optim__accumulation_steps=steps)), NoiseSource(64), 4)
        for steps in (1, 2)
    )
    assert accumulated.peak_bytes[GRADIENTS] == 4 * plain.parameters.student > plain.peak_bytes[GRADIENTS]


def test_several_devices_keep_buckets() -> None:
    cost = step_cost(without_weights(method_recipe("moco_v2")), NoiseSource(64), 4)
    one, eight = predict_memory(cost, 1), predict_memory(cost, 8)
    assert eight.tensors_bytes - one.tensors_bytes == 4 * cost.parameters.student


SIZES = [("resnet18", 32, 128), ("mobilenetv3_large_100", 64, 64), ("efficientnet_b0", 64, 64)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the factor is glibc's, on Linux")
@pytest.mark.parametrize(("student", "image_size", "batch_size"), SIZES)
def test_prediction_is_within_15_percent_of_a_real_training(
    tmp_path: Path, student: str, image_size: int, batch_size: int
) -> None:
    recipe = without_weights(measured_recipe(student, image_size, batch_size, "moco_v2"))
    predicted = predict_memory(step_cost(recipe, NoiseSource(batch_size), batch_size), devices=1)
    measured = peak_of_training(tmp_path / "as_it_comes", student, image_size, batch_size, "moco_v2")
    assert predicted.resident_bytes / MIB == pytest.approx(measured, rel=0.15)
    # Where malloc gives freed blocks back at once, the tensors alone are nearly all of it.
    returned = peak_of_training(
        tmp_path / "returned", student, image_size, batch_size, "moco_v2", MALLOC_MMAP_THRESHOLD_="131072"
    )
    assert predicted.tensors_bytes / MIB == pytest.approx(returned, rel=0.12)
    print(
        f"{student} {image_size} px, batch {batch_size}: tensors {predicted.tensors_bytes / MIB:.0f} (measured "
        f"{returned:.0f}), resident {predicted.resident_bytes / MIB:.0f} (measured {measured:.0f}) MiB"
    )
