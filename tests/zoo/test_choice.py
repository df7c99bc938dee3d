"""What a name in a command means, with and without data."""

from __future__ import annotations

from pathlib import Path

import pytest

from disco_zoo.config.recipe import bundled_recipes, load_recipe
from disco_zoo.errors import UnknownName
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.choice import choose_checkpoint, dataset_in, default_out


@pytest.mark.parametrize("data", [None, "sample"])
@pytest.mark.parametrize("name", ["effb0", "disco_effb0"])
def test_short_name_without_data_means_the_pocket_recipe(name: str, data: str | None) -> None:
    choice = choose_checkpoint(name, data)
    assert choice.checkpoint.name == "disco_effb0.disco_lite0_fmnist"
    assert choice.checkpoint.recipe == "pocket/disco_effb0.disco_lite0_fmnist"


def test_first_line_says_that_it_is_pocket_scale_and_how_to_run_the_real_one() -> None:
    why = choose_checkpoint("effb0", None).why
    assert "pocket scale" in why
    real = why.split("disco-zoo reproduce ")[1].split()[0]
    assert choose_checkpoint(real, "x").checkpoint.data != "fmnist_sample"
    assert why.endswith(f"disco-zoo reproduce {real} --data DATA")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("cifar10_train.parquet", "disco_effb0.disco_lite0_cifar10"),
        ("/photos/CIFAR-10/train", "disco_effb0.disco_lite0_cifar10"),
        ("hfds/uoft-cs/cifar10", "disco_effb0.disco_lite0_cifar10"),
        ("/data/imagenet", "disco_effb0.disco_mocov2_r50_in1k"),
        ("hfds/ILSVRC/imagenet-1k", "disco_effb0.disco_mocov2_r50_in1k"),
        ("fashion-mnist/", "disco_effb0.disco_lite0_fmnist"),
    ],
)
def test_short_name_with_data_means_the_recipe_for_that_data(data: str, expected: str) -> None:
    choice = choose_checkpoint("effb0", data)
    assert choice.checkpoint.name == expected
    assert expected in choice.why


@pytest.mark.parametrize("data", ["holidays/", "cifar100_train.parquet", "imagenet_and_cifar10"])
def test_short_name_with_unknown_data_asks_for_a_full_name(data: str) -> None:
    assert dataset_in(data) is None
    with pytest.raises(UnknownName, match=r"no recipe of effb0.*Give a full name; there are: .*disco_lite0_cifar10"):
        choose_checkpoint("effb0", data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("tiny-imagenet-200", "tiny_imagenet"),
        ("hfds/zh-plus/tiny-imagenet", "tiny_imagenet"),
        ("/data/imagenet/tiny-imagenet-200/train", "tiny_imagenet"),
        ("imagenette2-320/train", "imagenette"),
        ("/data/imagenet/train", "in1k"),
    ],
)
def test_parts_of_imagenet_are_not_taken_for_the_whole(data: str, expected: str) -> None:
    assert dataset_in(data) == expected
    assert expected in load_catalog().datasets


def test_full_name_means_itself_whatever_the_data() -> None:
    choice = choose_checkpoint("disco_effb0.mocov2_cifar10", "holidays/")
    assert (choice.checkpoint.name, choice.why) == ("disco_effb0.mocov2_cifar10", "")


def test_short_name_never_means_a_baseline() -> None:
    for name in ("effb0", "r18"):
        for data in (None, "cifar10"):
            assert choose_checkpoint(name, data).checkpoint.method == "disco"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efb0", "Did you mean 'effb0'"),
        ("disco_effb0.disco_lite0_cifar1", "Did you mean 'disco_effb0.disco_lite0_cifar10'"),
        ("mobv3", "no recipe of mobv3"),
        ("disco_r50.seed_swav_r50w4_in1k", "has no recipe to reproduce it with"),
    ],
)
def test_name_without_recipe_is_refused_in_words(name: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        choose_checkpoint(name, None)


def test_every_recipe_of_the_catalog_exists_and_is_of_that_checkpoint() -> None:
    for row in load_catalog().checkpoints.values():
        if row.recipe is not None:
            assert row.recipe in bundled_recipes()
            recipe = load_recipe(row.recipe)
            assert (recipe.name, recipe.data.id) == (row.name, row.data)
            assert recipe.method["name"].startswith(row.method)  # the catalog does not tell CompRess's variants apart
            assert (recipe.teacher.source if recipe.teacher else None) == row.teacher
            assert recipe.student.init == row.start
            begun_from = recipe.student.init_from
            assert row.start_from == (begun_from if begun_from in load_catalog().checkpoints else None)
            assert recipe.student.model == row.architecture


def test_a_look_goes_into_a_folder_of_its_own() -> None:
    assert default_out("x", None) == Path("runs/x")
    assert default_out("x", 20) == Path("runs/x-20-steps")
