"""BINGO: the loss against a plain loop, whole training steps, CutMix, the switch of weights and the bags."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_training import train
from plain_loop import in_float64
from preparations import preparation
from reference_loop import QUEUE_SIZE, TEMPERATURE, embed, sgd_step
from tiny import EMBED_DIM, tiny_encoder, tiny_teacher
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.config.validation import schema_of
from disco_zoo.errors import BadRecipe
from disco_zoo.methods.bingo import BINGO, Box, bingo_loss, cut_mix, draw_box, weighted_info_nce
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.teacher import Teacher


def make_method(teacher: Teacher | None = None, **options: Any) -> BINGO:
    options = {"temperature": TEMPERATURE, "queue_size": QUEUE_SIZE, **options}
    return BINGO(tiny_encoder(), teacher or tiny_teacher(), EMBED_DIM, **options)


def four_views(num_steps: int, batch: int = 4) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(9)
    return [
        [torch.randint(0, 256, (batch, 3, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(4)]
        for _ in range(num_steps)
    ]


def unit_rows(number: int, seed: int, dim: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(number, dim, generator=generator, dtype=torch.float64), dim=1)


def info_nce(anchor: list[float], key: list[float], queue: list[list[float]], temperature: float) -> float:
    scores = [sum(a * c for a, c in zip(anchor, row, strict=True)) / temperature for row in (key, *queue)]
    return math.log(sum(math.exp(score) for score in scores)) - scores[0]


def plain_bingo(
    students: list[list[list[float]]],
    keys: list[list[list[float]]],
    queue: list[list[float]],
    kept: float,
    weights: tuple[float, float],
    temperature: float = 0.2,
) -> float:
    """spec 2.6, number by number."""
    total = 0.0
    for image, companion, mixed, own, other in zip(*students, *keys, strict=True):
        terms = [
            (image, own, weights[0]),
            (image, other, weights[1]),
            (companion, other, weights[0]),
            (companion, own, weights[1]),
            (mixed, own, kept),
            (mixed, other, 1 - kept),
        ]
        total += sum(weight * info_nce(anchor, key, queue, temperature) for anchor, key, weight in terms)
    return total / 3 / len(students[0])


ROWS = [unit_rows(6, seed) for seed in range(5)]
QUEUE = unit_rows(9, 7)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.5, 0.5), (0.3, 0.7)])
def test_loss_equals_a_plain_loop(weights: tuple[float, float]) -> None:
    students, keys = (ROWS[0], ROWS[1], ROWS[2]), (ROWS[3], ROWS[4])
    loss = bingo_loss(students, keys, QUEUE, kept=0.35, weights=weights, temperature=0.2)
    expected = plain_bingo([s.tolist() for s in students], [k.tolist() for k in keys], QUEUE.tolist(), 0.35, weights)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_loss_of_anchors_on_their_keys_far_from_all_negatives_is_known() -> None:
    """One negative opposite to everything: ℓ = log(1 + exp(−2/T))."""
    row = torch.zeros(4, 3, dtype=torch.float64)
    row[:, 0] = 1
    loss = bingo_loss((row, row, row), (row, row), -row[:1], kept=0.4, weights=(0.5, 0.5), temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-4)), abs=1e-12)


def test_loss_is_a_mean_over_rows_in_any_order_and_swaps_image_and_companion() -> None:
    def loss(rows: Any, queue: Tensor = QUEUE, kept: float = 0.35, swap: bool = False) -> float:
        image, companion, mixed, own, other = (part[rows] for part in ROWS)
        students, keys = (
            ((companion, image, mixed), (other, own)) if swap else ((image, companion, mixed), (own, other))
        )
        return bingo_loss(students, keys, queue, kept=kept, weights=(0.6, 0.4), temperature=0.2).item()

    joint = loss(slice(None))
    assert loss([5, 3, 1, 0, 2, 4]) == pytest.approx(joint, abs=1e-12)
    assert loss(slice(None), QUEUE.flip(0)) == pytest.approx(joint, abs=1e-12)
    assert (loss(slice(3)) + loss(slice(3, 6))) / 2 == pytest.approx(joint, abs=1e-12)
    assert loss(slice(None), kept=0.65, swap=True) == pytest.approx(joint, abs=1e-12)


def test_gradient_reaches_the_students_alone() -> None:
    parts = [part.clone().requires_grad_() for part in (*ROWS, QUEUE)]
    bingo_loss(tuple(parts[:3]), tuple(parts[3:5]), parts[5], kept=0.4, weights=(0.5, 0.5), temperature=0.2).backward()
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in parts[:3])
    assert all(part.grad is None for part in parts[3:])


def test_loss_is_computed_in_full_precision_under_autocast() -> None:
    anchors, own, other = (part.float() for part in ROWS[:3])
    plain = weighted_info_nce(anchors, (own, other), (0.5, 0.5), QUEUE.float(), 0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = weighted_info_nce(anchors, (own, other), (0.5, 0.5), QUEUE.float(), 0.07)
    assert mixed.dtype == torch.float32
    assert mixed.item() == plain.item()


def plain_mix(views: Tensor, others: Tensor, box: Box) -> tuple[Tensor, float]:
    mixed, kept = views.clone(), 0
    for row in range(views.shape[2]):
        for column in range(views.shape[3]):
            if box.top <= row < box.bottom and box.left <= column < box.right:
                mixed[:, :, row, column] = others[:, :, row, column]
            else:
                kept += 1
    return mixed, kept / (views.shape[2] * views.shape[3])


def test_cut_mix_puts_the_box_of_the_other_in_and_counts_what_is_left() -> None:
    views, others = four_views(1)[0][:2]
    for box in (Box(2, 9, 5, 16), Box(0, 16, 0, 16), Box(4, 4, 3, 8)):
        mixed, kept = cut_mix(views, others, box)
        expected, share = plain_mix(views, others, box)
        assert torch.equal(mixed, expected)
        assert kept == pytest.approx(share, abs=1e-12)
    assert not torch.equal(views, others)


def test_boxes_lie_inside_and_follow_beta_before_clipping() -> None:
    boxes = [draw_box(224, 2.0, 0, step) for step in range(3000)]
    assert all(0 <= b.top <= b.bottom <= 224 and 0 <= b.left <= b.right <= 224 for b in boxes)
    inside = [b for b in boxes if b.top > 0 and b.left > 0 and b.bottom < 224 and b.right < 224]
    assert all(b.bottom - b.top == b.right - b.left for b in inside)
    # Centres are uniform and half a box is half of side·√(1−λ), so the mean clipped area has a closed form:
    # per axis E[clipped/side | r] = r − r²/4 for r = √(1−λ), and 1−λ ~ Beta(2, 2) has density 6u(1−u).
    grid = np.linspace(0, 1, 200_001)
    expected = np.mean((np.sqrt(grid) - grid / 4) ** 2 * 6 * grid * (1 - grid))
    assert np.mean([b.area / 224**2 for b in boxes]) == pytest.approx(expected, abs=0.012)


def test_box_is_a_function_of_its_key() -> None:
    assert draw_box(64, 2.0, 1, 2) == draw_box(64, 2.0, 1, 2)
    assert len({draw_box(64, 2.0, *key) for key in ((1, 2), (1, 3), (2, 2), (1, 2, 0), (1, 2, 1))}) == 5


def reference_bingo(method: BINGO, batches: list[list[Tensor]], weights: list[tuple[float, float]]) -> Any:
    """Train a copy of the method's student from 2.6 alone; the boxes are those of the counter."""
    query = nn.ModuleList([copy.deepcopy(method.student.backbone), copy.deepcopy(method.student.head)]).train()
    teacher = method.teacher.encoder
    rows, pointer, losses = list(method.queue.rows.clone()), 0, []
    velocities = [torch.zeros_like(parameter) for parameter in query.parameters()]
    for step, (image, key, other, other_key) in enumerate(batches):
        mixed, kept = plain_mix(image, other, draw_box(16, 2.0, 0, step))
        with torch.no_grad():
            keys = [embed(teacher.backbone, teacher.head, v, teacher.mean, teacher.std) for v in (key, other_key)]
        own, others = weights[step], (kept, 1 - kept)
        anchors = [embed(*query, view) for view in (image, other, mixed)]
        pairs = [
            (anchors[0], keys[0], own[0]),
            (anchors[0], keys[1], own[1]),
            (anchors[1], keys[1], own[0]),
            (anchors[1], keys[0], own[1]),
            (anchors[2], keys[0], others[0]),
            (anchors[2], keys[1], others[1]),
        ]
        loss = torch.zeros(())
        for anchor, positive, weight in pairs:
            for a, c in zip(anchor, positive, strict=True):
                scores = torch.stack([a @ row for row in (c, *rows)]) / TEMPERATURE
                loss = loss + weight * (torch.logsumexp(scores, dim=0) - scores[0]) / len(image) / 3
        losses.append(loss.item())
        sgd_step(query, loss, velocities)
        for row in keys[0]:
            rows[pointer] = row
            pointer = (pointer + 1) % len(rows)
    return losses, query, torch.stack(rows)


@pytest.mark.parametrize("epoch", [10, 11])
def test_five_training_steps_equal_an_independent_loop(epoch: int) -> None:
    method, batches = in_float64(make_method()), four_views(5)
    method.start_epoch(epoch)
    before = backbone_fingerprint(method.teacher.encoder)
    weights = (1.0, 0.0) if epoch == 10 else (0.5, 0.5)
    losses, query, queue = reference_bingo(method, batches, [weights] * 5)
    records = train(method, batches)
    assert [record["loss"] for record in records] == pytest.approx(losses, abs=1e-9)
    own = [*method.student.backbone.parameters(), *method.student.head.parameters()]
    for mine, theirs in zip(own, query.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-9)
    assert torch.allclose(method.queue.rows, queue, atol=1e-9)
    assert backbone_fingerprint(method.teacher.encoder) == before
    assert not method.teacher.backbone.training


def test_companions_count_from_the_switch_on() -> None:
    method = make_method(switch_epoch=3, companion_weight=0.25)
    found = []
    for epoch in (0, 2, 3, 7, 1):
        method.start_epoch(epoch)
        found.append(method.weights)
    assert found == [(1.0, 0.0), (1.0, 0.0), (0.75, 0.25), (0.75, 0.25), (1.0, 0.0)]
    assert schema_of(BINGO).model_fields["switch_epoch"].default == 11


def test_counter_of_the_boxes_is_in_the_state_and_each_process_may_have_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, batches = make_method(), four_views(6)
    whole = [record["kept"] for record in train(method, batches)]
    assert len(set(whole)) >= 4  # of so few pixels that two boxes may agree
    resumed = make_method()
    train(resumed, batches[:4])
    again = make_method()
    again.load_state_dict(resumed.state_dict())
    assert [record["kept"] for record in train(again, batches[4:])] == whole[4:]
    monkeypatch.setattr("disco_zoo.methods.bingo.rank", lambda: 1)
    assert [record["kept"] for record in train(make_method(), batches)] == whole
    assert [record["kept"] for record in train(make_method(cutmix_box="process"), batches)] != whole


def test_prepare_builds_bags_and_a_seed_of_its_own(tmp_path: Path) -> None:
    method = make_method(bag_size=3)
    method.prepare(preparation(tmp_path))
    assert method.seed == 3
    assert method.companions.bags.shape == (12, 3)
    assert method.companions(0, 4) in method.companions.bags[4]
    (path,) = (tmp_path / "teacher_features").glob("bags_*.npy")
    other = make_method(bag_size=3, bags=str(path))
    other.prepare(preparation(tmp_path / "other"))
    assert np.array_equal(other.companions.bags, method.companions.bags)


def test_bags_use_the_teachers_eval_statistics_even_in_the_official_preset(tmp_path: Path) -> None:
    official, fixed = make_method(tiny_teacher(bn_mode="train"), bag_size=3), make_method(bag_size=3)
    for method in (official, fixed):
        method.prepare(preparation(tmp_path))
    assert np.array_equal(official.companions.bags, fixed.companions.bags)


def test_official_teacher_drifts() -> None:
    assert BINGO.OFFICIAL == {"teacher.bn_mode": "train", "method.cutmix_box": "process"}
    method = make_method(tiny_teacher(bn_mode="train"))
    before = backbone_fingerprint(method.teacher.encoder)
    train(method, four_views(2))
    assert backbone_fingerprint(method.teacher.encoder) != before


def test_bad_input_is_refused_in_one_line() -> None:
    with pytest.raises(BadRecipe, match=r"learns from a teacher\. Type: --set teacher\.source=NAME"):
        BINGO(tiny_encoder(), None, EMBED_DIM)
    with pytest.raises(BadRecipe, match=r"student\.embed_dim 7 must be the width of the teacher's embeddings, 6"):
        BINGO(tiny_encoder(embed_dim=7), tiny_teacher(), 7)
    with pytest.raises(BadRecipe, match=r"method\.bag_size 5 needs more than 5 images, there are 5"):
        BINGO(tiny_encoder(), tiny_teacher(), EMBED_DIM, 5)
    options = schema_of(BINGO)
    for bad in (
        {"temperature": 0},
        {"queue_size": 0},
        {"cutmix_alpha": 0.0},
        {"companion_weight": 1.1},
        {"bag_size": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            options(**bad)


def test_key_encoder_is_the_teacher_and_nothing_else_holds_weights() -> None:
    assert {name.split(".")[0] for name in make_method().state_dict()} == {"student", "queue", "step"}
