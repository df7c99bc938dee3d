"""The teacher cache: the views of the first time bit for bit, the teacher's own numbers, and nobody else's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache_runs import NUM_IMAGES, VIEWS, build, cache_of, cached_recipe, content
from method_runs import method_recipe, method_values
from slow_params import slow_but
from tiny_runs import STEPS_PER_EPOCH, differences, toy_images, toy_parquet, toy_recipe, train

from disco_zoo.config.recipe import parse_recipe
from disco_zoo.errors import BadCache, BadData, BadRecipe
from disco_zoo.methods import METHODS
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.teacher import Teacher, teacher_key
from disco_zoo.teacher_cache import inventory
from disco_zoo.teacher_cache.rows import SlotDraw
from disco_zoo.training.build import seeded_teacher
from disco_zoo.training.run_data import open_training_images
from disco_zoo.transforms.view_dataset import view_plan

pytest_plugins = ("cache_fixtures",)
pytestmark = pytest.mark.usefixtures("one_thread", "own_caches")
WIDTH = 96  # features of the toy teacher
TEACHING = [name for name, method in METHODS.items() if method.needs_teacher]


def test_replayed_views_are_the_first_ones_and_targets_the_teachers_rows(many: Path) -> None:
    recipe = cached_recipe()
    replay = build(recipe, many)
    rows = cache_of(replay).rows()
    assert rows.shape == (VIEWS, NUM_IMAGES, WIDTH)
    source, teacher = open_training_images(recipe, str(many)), seeded_teacher(recipe, "cpu")
    assert teacher is not None
    draw = SlotDraw(view_plan(recipe.views, recipe.view_size, 2).view, recipe.seed)
    for first in (0, 64, 128):
        block = range(first, min(first + 64, NUM_IMAGES))
        for slot in range(VIEWS):
            seen = torch.stack([draw(source.opened(index), index, slot) for index in block])
            found = torch.from_numpy(np.array(rows[slot, first : first + 64]))
            assert torch.equal(found, teacher(seen).half())  # the same batch: to the bit
            alone = teacher(seen[:1])
            # In other batches sums run in another order; what is stored is rounded to eleven bits.
            torch.testing.assert_close(found[:1].float(), alone, rtol=2**-10, atol=1e-4 * float(alone.abs().max()))
    for epoch in (0, 1, 5):
        item = replay.epoch(epoch, None)[70]
        assert item["mismatches"] == []
        for drawn, target in zip(item["views"], item["targets"], strict=True):
            slots = [slot for slot in range(VIEWS) if torch.equal(drawn, draw(source.opened(70), 70, slot))]
            assert [torch.equal(target, torch.from_numpy(np.array(rows[slot, 70]))) for slot in slots] == [True]


# Bags, small crops, memories and a momentum encoder; the other methods ask in the same ways.
@pytest.mark.parametrize("method", slow_but(TEACHING, ["bingo", "compress_2q", "disco", "disco_swav"]))
def test_every_method_trains_without_asking_the_teacher(
    method: str, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = method_recipe(method, teacher__cache_views=2 * METHODS[method].num_views)
    source = open_training_images(recipe, str(few))
    build(recipe, source)

    def nobody(*_: Any, **__: Any) -> None:
        raise AssertionError("the teacher was asked")

    if method != "bingo":  # its bags are made of another forward, before training
        monkeypatch.setattr(Teacher, "__call__", nobody)
        train(recipe, few, tmp_path / "run")
        return
    train(recipe, few, tmp_path / "first", steps=1)  # makes the bags
    shutil.copytree(tmp_path / "first" / "teacher_features", tmp_path / "run" / "teacher_features")
    monkeypatch.setattr(Teacher, "__call__", nobody)
    train(recipe, few, tmp_path / "run")


def test_cache_of_as_many_views_as_epochs_changes_a_one_view_method_by_rounding_alone(
    few: Path, tmp_path: Path
) -> None:
    plain = train(method_recipe("coss"), few, tmp_path / "plain")
    cached = train(method_recipe("coss", teacher__cache_views=2), few, tmp_path / "cached")
    for key, value in plain["method"].items():
        torch.testing.assert_close(cached["method"][key], value, atol=2e-3, rtol=2e-3, msg=key)
    assert differences(plain["method"], cached["method"])  # the rounding is there
    other = train(method_recipe("coss", seed=1), few, tmp_path / "other")
    moved = (plain["method"]["centre.mean"] - other["method"]["centre.mean"]).abs().max()
    assert moved > 10 * (plain["method"]["centre.mean"] - cached["method"]["centre.mean"]).abs().max()


@pytest.mark.parametrize("method", slow_but(["bingo", "disco", "seed"], ["seed"]))
def test_resume_of_a_cached_run_to_the_bit(method: str, few: Path, tmp_path: Path) -> None:
    views = METHODS[method].num_views
    recipe = method_recipe(method, student__model="dropping_student", optim__epochs=3, teacher__cache_views=2 * views)
    straight = train(recipe, few, tmp_path / "straight")
    train(recipe, few, tmp_path / "run", steps=2 * STEPS_PER_EPOCH + 1)  # in the second turn of the views
    torch.manual_seed(99)
    assert differences(straight, train(recipe, few, tmp_path / "run", resume=True, workers=1)) == []


def test_one_cache_serves_methods_students_and_fewer_views(few: Path, tmp_path: Path, own_caches: Path) -> None:
    build(cached_recipe(4), few)
    before = content(inventory.caches()[0])
    for number, recipe in enumerate(
        (
            cached_recipe(2),
            cached_recipe(4, student__model="test_vit"),
            method_recipe("kd_mse", optim__epochs=3, teacher__cache_views=3),
        )
    ):
        train(recipe, few, tmp_path / f"run{number}", steps=1)
    assert len(inventory.caches()) == 1
    assert content(inventory.caches()[0]) == before
    replay = build(cached_recipe(6), few)  # more views: only the new ones are computed
    rows, _ = content(cache_of(replay))
    assert rows[: len(before[0])] == before[0]
    assert inventory.state_of(cache_of(replay)).views == 6
    assert [(done.first_slot, done.slots) for done in cache_of(replay).journal.read()] == [(0, 4), (4, 2)]


CHANGES: list[dict[str, Any]] = [
    {"seed": 1},
    {"teacher__source": "test_efficientnet"},
    {"teacher__image_size": 48},
    {"student__image_size": 48},
    {"views__crop_scale": [0.3, 1.0]},
    {"views__recipe": "plain"},
    {"data__max_images": 20},
    {"optim__precision": "bf16"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_another_key_never_reads_it(change: dict[str, Any], few: Path) -> None:
    first, other = build(cached_recipe(2), few), build(cached_recipe(2, **change), few)
    assert cache_of(first).path != cache_of(other).path
    assert cache_of(build(cached_recipe(2), few)).path == cache_of(first).path


def test_added_removed_and_edited_images_are_not_those_of_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(toy_images(12, seed=0)):
        image.save(folder / f"{number:02d}.bmp")
    recipe = cached_recipe(2)
    first = build(recipe, folder)
    (folder / "11.bmp").rename(tmp_path / "11.bmp")
    assert cache_of(build(recipe, folder)).path != cache_of(first).path
    (tmp_path / "11.bmp").rename(folder / "11.bmp")
    assert cache_of(build(recipe, folder)).path == cache_of(first).path


def test_unreadable_images_are_left_out_and_limited(tmp_path: Path) -> None:
    data = toy_parquet(tmp_path / "data", broken=(3, 9))
    replay = build(cached_recipe(2), data)
    rows = cache_of(replay).rows()
    assert [index for index in range(26) if not rows[:, index].any()] == [3, 9]
    assert sorted(cache_of(replay).journal.unreadable()) == [3, 9]
    item = replay.epoch(0, None)[3]
    assert (item["index"], item["mismatches"], len(item["unreadable"])) == (4, [], 1)  # the next readable one
    with pytest.raises(BadData, match="2 images are unreadable, 1 are tolerated"):
        build(cached_recipe(2, data__max_unreadable_images=1, seed=1), data)


def test_features_beyond_half_precision_are_refused(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = Teacher.__call__
    monkeypatch.setattr(Teacher, "__call__", lambda *arguments: former(*arguments) * 1e6)
    with pytest.raises(BadCache, match=r"beyond half precision.*teacher\.cache_views=null"):
        build(cached_recipe(2), few)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"cache_views": 3}, "must be a multiple of the 2 views that disco takes a step, not 3. Type: .*cache_views=2"),
    ({"cache_views": 8}, "disco over 3 epochs never needs more than 6 views, not 8. Type: .*cache_views=6"),
    ({"cache_views": 0}, "teacher.cache_views: input should be greater than 0"),
    (
        {"cache_views": 2, "bn_mode": "train"},
        "with bn_mode train the teacher's embedding of a view depends on its batch",
    ),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_a_cache_that_no_run_can_use_is_a_fault_of_the_recipe(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRecipe, match=words):
        cached_recipe(
            **{f"teacher__{key}": value for key, value in change.items()} | {"views": change.get("cache_views", 2)}
        )


def test_compress_has_one_cache_or_the_other() -> None:
    values = method_values("compress_1q", teacher__cache_views=2)
    values["method"]["cached_teacher"] = True
    with pytest.raises(BadRecipe, match=r"method\.cached_teacher already replaces the teacher"):
        parse_recipe(values, origin="toy")


def test_recipes_without_a_cache_keep_their_digest() -> None:
    plain, cached = toy_recipe("disco"), toy_recipe("disco", teacher__cache_views=2)
    assert plain.digest() != cached.digest()
    assert plain.as_dict()["teacher"]["cache_views"] is None


def test_networks_that_differ_outside_their_tensors_have_other_keys(few: Path) -> None:
    plain, padded = (
        seeded_teacher(cached_recipe(2, teacher__source=name), "cpu")
        for name in ("efficientnet_b0", "tf_efficientnet_b0")
    )
    assert plain is not None
    assert padded is not None
    assert backbone_fingerprint(plain.encoder) == backbone_fingerprint(padded.encoder)
    assert teacher_key(plain) != teacher_key(padded)
