"""Two real processes: their averaged gradients are those of one process with the joint batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked import run_pair
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.distributed import gather_rows, gather_rows_with_grad, rank, sum_over_processes_with_grad
from disco_zoo.methods.coss import column_cosine_loss
from disco_zoo.methods.kd_mse import standardized_regression_loss
from disco_zoo.methods.rkd import angle_loss, distance_loss
from disco_zoo.modules.standardize import RunningStandardizer

B, D = 3, 4


def relations(student: Tensor, teacher: Tensor) -> Tensor:
    own = slice(rank() * len(student), (rank() + 1) * len(student))
    students, teachers = gather_rows_with_grad(student), gather_rows(teacher)
    return distance_loss(students, teachers) + angle_loss(students, teachers, own)


def weighted_sum(student: Tensor, teacher: Tensor) -> Tensor:
    """A loss that is not the same on each process: only its mean over them is that of one process."""
    return (sum_over_processes_with_grad(student.sum(dim=0)).pow(3) * teacher).sum() / len(teacher)


LOSSES = {
    "columns": column_cosine_loss,
    "standardised": standardized_regression_loss,
    "relations": relations,
    "weighted_sum": weighted_sum,
}


def work_on(inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Losses of a shared linear layer and its gradients, both averaged over processes as DDP does."""
    found = {}
    for name, loss_of in LOSSES.items():
        torch.manual_seed(3)
        layer = nn.Linear(D, D).double()
        loss = loss_of(F.normalize(layer(inputs), dim=1), targets)
        loss.backward()
        for key, value in {"loss": loss, "weight": layer.weight.grad, "bias": layer.bias.grad}.items():
            found[f"{name} {key}"] = mean(value.detach())
    standardise = RunningStandardizer(D, 0.9)
    for _ in range(2):
        standardise.update(targets.float() + 5)
    return {**found, "mean": standardise.mean, "variance": standardise.variance}


def mean(value: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(value)
        return value / dist.get_world_size()
    return value


def joint_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randn(2 * B, D, generator=generator, dtype=torch.float64) for _ in range(2))
    return inputs, F.normalize(targets, dim=1)


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    inputs, targets = (rows[rank * B : rank * B + B] for rows in joint_batch())
    torch.save(work_on(inputs, targets), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], ...]:
    folder: Path = tmp_path_factory.mktemp("two")
    run_pair(one_of_two, folder)
    pair = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    return (*pair, work_on(*joint_batch()))


@pytest.mark.parametrize("name", LOSSES)
def test_mean_of_two_processes_is_the_joint_loss_with_the_joint_gradient(name: str, results: tuple) -> None:
    first, _, one = results
    for part in ("loss", "weight", "bias"):
        assert torch.allclose(first[f"{name} {part}"], one[f"{name} {part}"], atol=1e-10), part
    assert one[f"{name} weight"].abs().max() > 1e-3


def test_running_statistics_are_joint_ones_on_both_processes(results: tuple) -> None:
    first, second, one = results
    for key in ("mean", "variance"):
        assert torch.equal(first[key], second[key])
        assert torch.allclose(first[key], one[key], atol=1e-5)


def test_on_one_process_both_are_the_identity() -> None:
    rows = torch.randn(2, 3, requires_grad=True)
    assert sum_over_processes_with_grad(rows) is rows
    assert gather_rows_with_grad(rows) is rows
