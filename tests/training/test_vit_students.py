"""Vision transformers as students at the recipe's image size, and small crops that both networks can look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from method_runs import method_values
from safetensors.torch import load_file
from tiny_runs import toy_parquet, toy_recipe, train

from disco_zoo.config.recipe import parse_recipe
from disco_zoo.errors import BadRecipe
from disco_zoo.networks.input_size import create_for_any_size
from disco_zoo.training.build import build_parts
from disco_zoo.training.run_data import open_data

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])
def test_a_student_trains_off_its_native_size_and_its_file_loads_in_timm(name: str, data: Path, tmp_path: Path) -> None:
    native = timm.create_model(name, num_classes=0)
    assert native.pretrained_cfg["input_size"] == (3, 160, 160)
    train(toy_recipe("moco_v2", student__model=name, student__image_size=48), data, tmp_path, steps=2)
    native.load_state_dict(load_file(tmp_path / "student.safetensors"), strict=True)
    assert json.loads((tmp_path / "run.json").read_text())["student"]["image_size"] == 48


def test_the_option_draws_no_random_number_where_a_network_lacks_it() -> None:
    torch.manual_seed(3)
    plain = timm.create_model("test_resnet", num_classes=0).state_dict()
    torch.manual_seed(3)
    ours = create_for_any_size("test_resnet", num_classes=0).state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in plain.items())


@pytest.mark.parametrize(("name", "size", "better"), [("test_vit", 50, 48), ("mixer_s16_224", 96, 224)])
def test_a_size_that_cannot_be_is_refused_before_training(
    name: str, size: int, better: int, data: Path, tmp_path: Path
) -> None:
    recipe = toy_recipe("moco_v2", student__model=name, student__image_size=size)
    with pytest.raises(BadRecipe, match=f"^{name} cannot look at {size} pixels .*student.image_size={better}$"):
        train(recipe, data, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def multi_crop(small_size: int, student: dict[str, Any], teacher: dict[str, Any]) -> Any:
    values = method_values("seed")
    values["student"] |= student
    values["teacher"] |= teacher
    values["views"] |= {"small_views": 2, "small_size": small_size}
    return parse_recipe(values, origin="toy")


VIT, CONV = {"model": "test_vit", "image_size": 96}, {"model": "test_efficientnet", "image_size": 96}
VIT_TEACHER, CONV_TEACHER = ({"source": name, "image_size": 96} for name in ("test_vit", "test_resnet"))
FIXED_TEACHER = {"source": "mixer_s16_224", "image_size": 224}


def parts_of(recipe: Any, data: Path) -> Any:
    return build_parts(recipe, open_data(recipe, str(data)).train)


@pytest.mark.parametrize(
    ("student", "teacher", "small_size", "words"),
    [
        (VIT, CONV_TEACHER, 40, r"test_vit cannot look at small crops of 40 pixels .*small_size=(32|48)$"),
        (
            CONV,
            VIT_TEACHER,
            50,
            r"test_vit \(random weights\) cannot look at small crops of 50 pixels .*small_size=48$",
        ),
        # Drawn in proportion: 64 of the student's 96 pixels are 107 of the teacher's 160.
        (VIT, {**VIT_TEACHER, "image_size": 160}, 107, r"small crops of 107 pixels .*small_size=80$"),
        (CONV, FIXED_TEACHER, 96, r"mixer_s16_224 .* small crops of 96 pixels .*views.small_views=0$"),
    ],
    ids=["student", "teacher", "proportion", "never"],
)
def test_small_crops_that_a_network_cannot_look_at_are_refused_with_a_size_that_it_can(
    student: dict[str, Any], teacher: dict[str, Any], small_size: int, words: str, data: Path
) -> None:
    recipe = multi_crop(small_size, student, teacher)
    with pytest.raises(BadRecipe, match=words) as error:
        parts_of(recipe, data)
    assert "\n" not in str(error.value)
    if found := str(error.value).partition("small_size=")[2]:
        assert parts_of(multi_crop(int(found), student, teacher), data).method.crops is not None


def test_small_crops_of_whole_patches_train(data: Path, tmp_path: Path) -> None:
    state = train(multi_crop(32, VIT, VIT_TEACHER), data, tmp_path, steps=2)
    assert state["position"]["step"] == 2
