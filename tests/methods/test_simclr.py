"""SimCLR: NT-Xent's closed forms and invariances, and whole steps against an independent loop."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from method_training import train
from plain_loop import in_float64
from reference_loop import embed, sgd_step
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher, view_batches
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.errors import BadRecipe
from disco_zoo.methods.base import Batch
from disco_zoo.methods.simclr import SimCLR, nt_xent_loss


def pairs(images: int, dim: int = 5, seed: int = 0) -> Tensor:
    """Rows (2 * images, dim) of length 1, float64: the first views, then the second."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(2 * images, dim, generator=generator, dtype=torch.float64), dim=1)


def joint_loss(rows: Tensor, temperature: float = 0.1) -> Tensor:
    own = torch.arange(len(rows))
    return nt_xent_loss(rows, rows, own, own.roll(len(rows) // 2), temperature)


def plain_nt_xent(rows: Tensor, temperature: float) -> Tensor:
    """Equation 1 of the paper, pair by pair."""
    number, total = len(rows), rows.new_zeros(())
    for i in range(number):
        scores = {j: rows[i] @ rows[j] / temperature for j in range(number) if j != i}
        twin = i + number // 2 if i < number // 2 else i - number // 2
        total = total + torch.logsumexp(torch.stack([*scores.values()]), dim=0) - scores[twin]
    return total / number


def test_loss_equals_the_papers_equation_and_so_does_its_gradient() -> None:
    rows, copied = pairs(4).requires_grad_(), pairs(4).requires_grad_()
    found, expected = joint_loss(rows), plain_nt_xent(copied, 0.1)
    found.backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), abs=1e-9)
    assert torch.allclose(rows.grad, copied.grad, atol=1e-9)


def test_identical_views_of_orthogonal_images() -> None:
    rows = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    for temperature in (0.1, 0.5, 1.0):
        expected = math.log(1 + 6 * math.exp(-1 / temperature))
        assert joint_loss(rows, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_equal_rows_give_the_log_of_all_but_oneself() -> None:
    assert joint_loss(F.normalize(torch.ones(10, 3), dim=1)).item() == pytest.approx(math.log(9), rel=1e-6)


def test_order_of_images_and_of_views_does_not_matter() -> None:
    rows = pairs(6)
    order = torch.randperm(6)
    found = joint_loss(rows).item()
    assert joint_loss(torch.cat([rows[:6][order], rows[6:][order]])).item() == pytest.approx(found, abs=1e-9)
    assert joint_loss(rows.roll(6, dims=0)).item() == pytest.approx(found, abs=1e-9)


def test_mean_over_shares_of_the_rows_is_the_joint_loss() -> None:
    """What makes it independent of the processes: each scores its rows against the rows of all."""
    rows, own = pairs(6), torch.arange(12)
    twins = own.roll(6)
    shares = [nt_xent_loss(rows[part], rows, own[part], twins[part], 0.1) for part in own.chunk(3)]
    assert (sum(shares) / 3).item() == pytest.approx(joint_loss(rows).item(), abs=1e-9)


def test_loss_is_computed_in_full_precision_under_autocast() -> None:
    rows = pairs(4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = joint_loss(rows, 0.05)
    assert found.dtype == torch.float32
    assert found.item() == joint_loss(rows, 0.05).item()


def test_five_training_steps_equal_an_independent_loop() -> None:
    method, batches = in_float64(SimCLR(tiny_encoder(), None, EMBED_DIM, temperature=0.2)), view_batches(5)
    query = copy.deepcopy(nn.ModuleList([method.student.backbone, method.student.head])).train()
    velocities = [torch.zeros_like(parameter) for parameter in query.parameters()]
    expected = []
    for first, second in batches:
        loss = plain_nt_xent(embed(*query, torch.cat([first, second])), 0.2)
        sgd_step(query, loss, velocities)
        expected.append(loss.item())
    records = train(method, batches)
    assert [record["loss"] for record in records] == pytest.approx(expected, abs=1e-9)
    own = [*method.student.backbone.parameters(), *method.student.head.parameters()]
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(own, query.parameters(), strict=True))


def test_simclr_has_no_state_of_its_own_and_ignores_a_teacher() -> None:
    method = SimCLR(tiny_encoder(), tiny_teacher(), EMBED_DIM)
    assert method.teacher is None
    assert {key.split(".")[0] for key in method.state_dict()} == {"student"}


def test_a_batch_of_one_image_is_refused() -> None:
    method = SimCLR(tiny_encoder(), None, EMBED_DIM)
    with pytest.raises(BadRecipe, match="batch_size=2"):
        method.train()(Batch(view_batches(1, batch=1)[0], torch.arange(1)))
