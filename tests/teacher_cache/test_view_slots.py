"""Which cached views a step replays: each once a turn, never twice a step, and first those of a run without a cache."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tiny import TinySource

from disco_zoo.teacher_cache.rows import SlotDraw, slots_of_companion, slots_of_step
from disco_zoo.transforms.view_recipes import draw_view, moco_v2_view

VIEW = moco_v2_view(16)


@pytest.mark.parametrize(("views", "a_step"), [(1, 1), (4, 1), (4, 2), (6, 2), (8, 2), (6, 3)])
def test_every_view_comes_once_a_turn(views: int, a_step: int) -> None:
    epochs_a_turn = views // a_step
    for turn in range(4):
        epochs = range(turn * epochs_a_turn, (turn + 1) * epochs_a_turn)
        seen = [slot for epoch in epochs for slot in slots_of_step(3, 7, epoch, views, a_step)]
        assert sorted(seen) == list(range(views))


def test_first_turn_is_in_order_and_later_ones_bring_other_pairs() -> None:
    assert [slots_of_step(0, 5, epoch, 8, 2) for epoch in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    pairs = Counter(frozenset(slots_of_step(0, 5, epoch, 8, 2)) for epoch in range(400))
    assert len(pairs) == 8 * 7 // 2
    assert min(pairs.values()) > 3  # 400 / 28 = 14 on average


def test_slots_are_a_function_of_seed_image_epoch_and_size() -> None:
    turn = range(32, 64)  # the second one
    keys = [(0, 5, 0), (1, 5, 0), (0, 6, 0), (0, 5, 1)]
    orders = [[s for e in turn for s in slots_of_step(seed, i, e, 64, 2, kind)] for seed, i, kind in [*keys, keys[0]]]
    assert len({tuple(order) for order in orders}) == len(keys)
    assert orders[0] == orders[-1]


def test_slot_s_is_what_epoch_s_draws_first() -> None:
    image = TinySource().opened(3)
    for slot in range(3):
        assert torch.equal(SlotDraw(VIEW, 9)(image, 3, slot), draw_view(VIEW, image, 9, slot, 3, 0))
    assert not torch.equal(SlotDraw(VIEW, 9)(image, 3, 0), SlotDraw(VIEW, 9, kind=1)(image, 3, 0))


def test_two_images_see_one_companion_in_their_own_views() -> None:
    found = [slots_of_companion(0, index, epoch, 8, 2) for index in range(20) for epoch in range(20)]
    assert all(len(set(slots)) == 2 for slots in found)
    counts = Counter(slot for slots in found for slot in slots)
    assert sorted(counts) == list(range(8))
    assert max(counts.values()) < 2 * min(counts.values())  # 100 each on average
