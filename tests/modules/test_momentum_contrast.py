"""Shared parts against closed forms, plain loops, and two real processes."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import run_pair
from tiny import TinyNet
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.distributed import gather_objects, gather_rows, mean_over_processes, shuffle_rows, unshuffle_rows
from disco_zoo.modules.momentum_contrast import (
    FeatureQueue,
    MomentumContrast,
    RunningCenter,
    contrastive_loss,
    ema_update,
    projection_head,
)


def unit_rows(number: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(number, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_contrastive_loss_with_a_perfect_key_and_orthogonal_negatives() -> None:
    basis = torch.eye(8)
    for temperature in (0.07, 0.2, 1.0):
        loss = contrastive_loss(basis[:2], basis[:2], basis[2:], temperature)
        assert loss.item() == pytest.approx(math.log(1 + 6 * math.exp(-1 / temperature)), rel=1e-6, abs=1e-6)


def test_contrastive_loss_is_log_of_the_number_of_equal_candidates() -> None:
    rows = F.normalize(torch.ones(3, 4), dim=1)
    assert contrastive_loss(rows, rows, rows[:1].expand(15, 4), 0.2).item() == pytest.approx(math.log(16), rel=1e-6)


def test_contrastive_loss_of_an_opposite_key() -> None:
    query = torch.tensor([[1.0, 0.0]])
    loss = contrastive_loss(query, -query, query, 0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(4)), rel=1e-6)


def test_contrastive_loss_equals_a_plain_loop() -> None:
    queries, keys, negatives = (unit_rows(n, 16, seed).double() for n, seed in ((5, 0), (5, 1), (20, 2)))
    expected = 0.0
    for query, key in zip(queries.tolist(), keys.tolist(), strict=True):
        scores = [sum(a * b for a, b in zip(query, row, strict=True)) / 0.2 for row in [key, *negatives.tolist()]]
        expected += (math.log(sum(math.exp(score) for score in scores)) - scores[0]) / 5
    assert contrastive_loss(queries, keys, negatives, 0.2).item() == pytest.approx(expected, abs=1e-6)


def test_contrastive_loss_does_not_depend_on_the_order_of_the_queue() -> None:
    queries, keys, negatives = (unit_rows(n, 16, seed) for n, seed in ((5, 0), (5, 1), (20, 2)))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    loss, permuted = (contrastive_loss(queries, keys, rows, 0.2).item() for rows in (negatives, negatives[order]))
    assert loss == pytest.approx(permuted, abs=1e-6)


def test_contrast_sends_gradient_to_the_queries_alone() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    contrast = MomentumContrast(encoder, embed_dim=4, queue_size=8, momentum=0.9, temperature=0.2)
    queries = F.normalize(torch.randn(3, 4), dim=1).requires_grad_()
    contrast.loss(queries, torch.randn(3, 3, 2, 2)).backward()
    assert queries.grad is not None
    assert queries.grad.abs().sum() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in contrast.twin.parameters())
    assert not contrast.queue.rows.requires_grad


def test_contrastive_loss_is_computed_in_full_precision_under_autocast() -> None:
    queries, keys, negatives = (unit_rows(n, 16, seed) for n, seed in ((5, 0), (5, 1), (20, 2)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive_loss(queries, keys, negatives, 0.07)
    assert loss.dtype == torch.float32
    assert loss.item() == contrastive_loss(queries, keys, negatives, 0.07).item()


def test_queue_starts_with_unit_rows_and_all_its_state_is_in_the_state_dict() -> None:
    queue = FeatureQueue(10, 4)
    assert torch.allclose(queue.rows.norm(dim=1), torch.ones(10))
    queue.write(unit_rows(3, 4, 0))
    restored = FeatureQueue(10, 4)
    restored.load_state_dict(queue.state_dict())
    assert torch.equal(restored.rows, queue.rows)
    assert restored.position == 3
    assert set(queue.state_dict()) == {"rows", "position"}


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 10])
def test_queue_wraps_around_at_any_batch_size(batch: int) -> None:
    queue = FeatureQueue(10, 2)
    expected = queue.rows.tolist()
    written = 0
    for step in range(6):
        rows = unit_rows(batch, 2, step)
        queue.write(rows)
        for row in rows.tolist():
            expected[written % 10] = row
            written += 1
        assert queue.rows.tolist() == expected
        assert queue.position == written % 10


def test_queue_keeps_the_newest_rows_of_a_batch_larger_than_itself() -> None:
    queue = FeatureQueue(4, 2)
    rows = unit_rows(11, 2, 0)
    queue.write(rows[:3])
    queue.write(rows[3:])
    oldest_first = torch.roll(queue.rows, -int(queue.position), dims=0)
    assert torch.equal(oldest_first, rows[-4:])


def test_queue_is_scored_before_it_is_written() -> None:
    encoder = nn.Identity()
    contrast = MomentumContrast(encoder, embed_dim=4, queue_size=6, momentum=0.9, temperature=0.2)
    before = contrast.queue.rows.clone()
    keys = unit_rows(3, 4, 1)
    loss = contrast.loss(keys, keys)
    assert loss.item() == contrastive_loss(keys, keys, before, 0.2).item()
    assert torch.equal(contrast.queue.rows[:3], keys)
    assert loss.item() != pytest.approx(contrastive_loss(keys, keys, contrast.queue.rows, 0.2).item(), abs=1e-3)


def test_snapshot_is_not_changed_by_a_later_write() -> None:
    queue = FeatureQueue(6, 4)
    snapshot = queue.snapshot()
    copied = snapshot.clone()
    queue.write(unit_rows(6, 4, 0))
    assert torch.equal(snapshot, copied)


def test_ema_update_is_the_formula_and_leaves_batch_norm_statistics_alone() -> None:
    torch.manual_seed(0)
    twin, online = TinyNet(), TinyNet()
    for net in (twin, online):
        net(torch.randn(4, 3, 8, 8))
    buffers = {name: buffer.clone() for name, buffer in twin.named_buffers()}
    expected = {
        name: 0.9 * parameter.detach().double() + 0.1 * dict(online.named_parameters())[name].detach().double()
        for name, parameter in twin.named_parameters()
    }
    ema_update(twin, online, 0.9)
    for name, parameter in twin.named_parameters():
        assert torch.allclose(parameter.double(), expected[name], atol=1e-7)
    for name, buffer in twin.named_buffers():
        assert torch.equal(buffer, buffers[name])
        assert not torch.equal(buffer, dict(online.named_buffers())[name]) or name.endswith("num_batches_tracked")


def test_twin_starts_as_an_exact_copy_and_stays_in_the_mode_of_its_owner() -> None:
    net = TinyNet()
    contrast = MomentumContrast(net, embed_dim=8, queue_size=4, momentum=0.9, temperature=0.2)
    assert all(torch.equal(a, b) for a, b in zip(contrast.twin.parameters(), net.parameters(), strict=True))
    assert contrast.train().twin.training  # keys come from batch statistics, as in MoCo


def test_running_centre_starts_at_the_first_mean_and_then_averages() -> None:
    centre = RunningCenter(3, 0.75)
    first, second = torch.randn(5, 3) + 4, torch.randn(7, 3)
    centre.update(first)
    assert torch.allclose(centre.mean, first.mean(dim=0))
    centre.update(second)
    expected = 0.75 * first.mean(dim=0) + 0.25 * second.mean(dim=0)
    assert torch.allclose(centre.mean, expected, atol=1e-6)
    assert torch.allclose(centre(first), first - expected, atol=1e-6)
    restored = RunningCenter(3, 0.75)
    restored.load_state_dict(centre.state_dict())
    restored.update(first)
    assert torch.allclose(restored.mean, 0.75 * expected + 0.25 * first.mean(dim=0), atol=1e-6)


def test_projection_head_is_two_layers_with_relu_or_one() -> None:
    head = projection_head(5, 7, 3)
    features = torch.randn(2, 5)
    hidden = torch.clamp(features @ head[0].weight.T + head[0].bias, min=0)
    assert torch.allclose(head(features), hidden @ head[2].weight.T + head[2].bias, atol=1e-6)
    assert [tuple(p.shape) for p in projection_head(5, None, 3).parameters()] == [(3, 5), (3,)]


def linear_contrast() -> MomentumContrast:
    torch.manual_seed(5)
    encoder = nn.Sequential(nn.Linear(4, 4), Normalized())
    return MomentumContrast(encoder, embed_dim=4, queue_size=12, momentum=0.9, temperature=0.2)


class Normalized(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=1)


def work_on(rows: Tensor, steps: int) -> dict[str, Any]:
    """What one process does in the test of two: its rows (steps, b, 4) are its share of each joint batch."""
    contrast, centre = linear_contrast(), RunningCenter(4, 0.5)
    online = copy.deepcopy(contrast.twin)
    losses = []
    for step in range(steps):
        losses.append(contrast.loss(online(rows[step]), rows[step] + 0.1).item())
        centre.update(rows[step])
    torch.manual_seed(int(rows[0, 0, 0] * 1000))  # each process its own: rank 0's permutation must win
    share, permutation = shuffle_rows(rows[0])
    return {
        "queue": contrast.queue.rows,
        "position": contrast.queue.position,
        "losses": torch.tensor(losses),
        "centre": centre.mean,
        "gathered": gather_rows(rows[0]),
        "mean": mean_over_processes(rows[0].mean(dim=0)),
        "objects": gather_objects(rows.shape[1]),
        "own": rows[0],
        "share": share,
        "permutation": permutation,
        "unshuffled": unshuffle_rows(share, permutation),
    }


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    joint = torch.load(f"{folder}/joint.pt", weights_only=True)
    torch.save(work_on(joint[:, rank * 3 : rank * 3 + 3], len(joint)), f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, dict]:
    """What processes 0 and 1 found with three rows each a step, and one process with all six."""
    folder: Path = tmp_path_factory.mktemp("two_processes")
    joint = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(1))
    torch.save(joint, folder / "joint.pt")
    run_pair(one_of_two, folder)
    first, second = (torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    return first, second, work_on(joint, 5)


def test_two_processes_fill_the_queue_as_one_does(two_processes: tuple[dict, dict, dict]) -> None:
    first, second, one = two_processes
    assert torch.allclose(first["queue"], one["queue"], atol=1e-6)
    assert torch.equal(first["queue"], second["queue"])
    assert first["position"] == one["position"] == 5 * 6 % 12


def test_losses_of_two_processes_average_to_that_of_one(two_processes: tuple[dict, dict, dict]) -> None:
    first, second, one = two_processes
    assert torch.allclose((first["losses"] + second["losses"]) / 2, one["losses"], atol=1e-6)


def test_shuffle_mixes_the_processes_and_unshuffle_restores_the_order(two_processes: tuple[dict, dict, dict]) -> None:
    first, second, one = two_processes
    joint = torch.cat([first["own"], second["own"]])
    assert torch.equal(first["permutation"], second["permutation"])
    assert torch.equal(torch.cat([first["share"], second["share"]]), joint[first["permutation"]])
    assert sorted(first["permutation"].tolist()) == list(range(6))
    for found in (first, second, one):
        assert torch.equal(found["unshuffled"], found["own"])


def test_gathering_and_averaging_over_two_processes(two_processes: tuple[dict, dict, dict]) -> None:
    first, second, one = two_processes
    for found in (first, second):
        assert torch.equal(found["gathered"], torch.cat([first["own"], second["own"]]))
        assert torch.allclose(found["mean"], one["mean"], atol=1e-6)
        assert torch.allclose(found["centre"], one["centre"], atol=1e-6)
        assert found["objects"] == [3, 3]
    assert one["objects"] == [6]
