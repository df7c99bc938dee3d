"""Sinkhorn, SimCLR, SwAV and DisCo on SwAV: two gloo processes under DDP do what one does with the joint batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from forked import run_pair
from plain_sinkhorn import scores_of
from reference_swav import SMALL, SWAV_OPTIONS, multi_crop_batches
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from disco_zoo.core.distributed import gather_rows_with_grad, num_processes, rank
from disco_zoo.methods import Method
from disco_zoo.methods.base import Batch
from disco_zoo.methods.disco_swav import DisCoSwAV
from disco_zoo.methods.simclr import SimCLR
from disco_zoo.methods.swav import SwAV
from disco_zoo.modules.swapped_prediction import sinkhorn

METHODS = ("swav", "disco_swav", "simclr")


def make_method(name: str) -> Method:
    student = tiny_encoder()
    torch.manual_seed(1)
    if name == "simclr":
        return SimCLR(student, None, EMBED_DIM, temperature=0.2)
    method_class, teacher = (SwAV, None) if name == "swav" else (DisCoSwAV, tiny_teacher())
    method = method_class(student, teacher, EMBED_DIM, **SWAV_OPTIONS)
    method.crops = SMALL
    return method


def share(rows: Tensor) -> Tensor:
    return rows.chunk(num_processes())[rank()]


def train_share(name: str) -> dict[str, Any]:
    """Six steps with this process's share of each batch of 4 images; BatchNorm in eval mode."""
    method = make_method(name)
    trained = DistributedDataParallel(method) if num_processes() > 1 else method
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    losses, gradients = [], []
    for epoch, views in enumerate(multi_crop_batches(6)):
        views = views[:2] if name == "simclr" else views
        method.start_epoch(epoch)
        method.train().student.eval()
        loss = trained(Batch([share(view) for view in views], share(torch.arange(4))))["loss"]
        loss.backward()
        if name != "simclr":
            method.before_step()
        gradients.append([torch.zeros(1) if p.grad is None else p.grad.clone() for p in method.parameters()])
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()
        losses.append(loss.item())
    return {"losses": torch.tensor(losses), "gradients": gradients, "state": method.state_dict()}


def gathered_gradient() -> Tensor:
    """Of the mean over processes of Σ_ij weight_ij · row_i · row_j, each process having some i and all j."""
    rows = share(scores_of(6, 3)).requires_grad_()
    weights = share(scores_of(6, 6, seed=1))
    (weights * (rows @ gather_rows_with_grad(rows).T)).sum().backward()
    assert rows.grad is not None
    return rows.grad


def work() -> dict[str, Any]:
    found: dict[str, Any] = {name: train_share(name) for name in METHODS}
    assignments = sinkhorn(share(scores_of(6, 4)), epsilon=0.05, iterations=3)
    return {**found, "assignments": assignments, "gathered_gradient": gathered_gradient()}


def one_of_two(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    torch.save(work(), f"{folder}/rank{number}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_and_one(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, dict]:
    folder: Path = tmp_path_factory.mktemp("collective_losses")
    run_pair(one_of_two, folder)
    first, second = (torch.load(folder / f"rank{number}.pt", weights_only=True) for number in (0, 1))
    return first, second, work()


def test_sinkhorn_assigns_the_joint_batch(two_and_one: tuple[dict, dict, dict]) -> None:
    first, second, one = two_and_one
    assert torch.allclose(torch.cat([first["assignments"], second["assignments"]]), one["assignments"], atol=1e-12)


def test_a_gathered_row_gets_the_gradient_of_all_processes_losses(two_and_one: tuple[dict, dict, dict]) -> None:
    first, second, one = two_and_one
    both = torch.cat([first["gathered_gradient"], second["gathered_gradient"]])
    assert torch.allclose(both, one["gathered_gradient"], atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_losses_average_and_gradients_equal_those_of_the_joint_batch(
    two_and_one: tuple[dict, dict, dict], name: str
) -> None:
    first, second, one = (found[name] for found in two_and_one)
    assert torch.allclose((first["losses"] + second["losses"]) / 2, one["losses"], atol=1e-5)
    for ours, joint in zip(first["gradients"], one["gradients"], strict=True):
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, joint, strict=True))
    assert sum(gradient.abs().sum() for gradient in one["gradients"][-1]) > 1e-2


@pytest.mark.parametrize("name", METHODS)
def test_weights_prototypes_queue_and_counter_are_those_of_one_process(
    two_and_one: tuple[dict, dict, dict], name: str
) -> None:
    first, second, one = (found[name]["state"] for found in two_and_one)
    for key, value in one.items():
        assert torch.allclose(first[key].double(), value.double(), atol=1e-5), key
        assert torch.equal(first[key], second[key]), key
    if name != "simclr":
        assert one["swapped.queue"][:, :8].any(dim=2).all()
        assert one["swapped.steps"] == 6
