"""Recipes: strict, every fault at once, and a resolved form that is the same recipe again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from disco_zoo.config.recipe import (
    Recipe,
    bundled_recipes,
    find_recipe,
    load_recipe,
    method_options,
    parse_recipe,
)
from disco_zoo.errors import BadRecipe, UnknownName
from disco_zoo.methods import METHODS
from disco_zoo.transforms.view_dataset import view_plan
from disco_zoo.transforms.view_recipes import VIEW_RECIPES

POCKET = "pocket/disco_effb0.disco_lite0_fmnist"


def values(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": "tiny",
        "target": "a test",
        "cost": "seconds",
        "reference": "none",
        "student": {"model": "disco_r18", "image_size": 32},
        "teacher": {"source": "lite0"},
        "data": {"id": "cifar10"},
        "views": {"recipe": "moco_v2"},
        "method": {"name": "disco"},
        "optim": {
            "optimizer": "sgd",
            "batch_size": 64,
            "base_lr": 0.03,
            "weight_decay": 1e-4,
            "schedule": "cosine_epoch",
            "epochs": 20,
        },
    }
    return {**base, **changes}


def write(tmp_path: Path, content: dict[str, Any] | str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def message(tmp_path: Path, content: dict[str, Any] | str, *overrides: str) -> str:
    with pytest.raises(BadRecipe) as error:
        load_recipe(write(tmp_path, content), overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_fault_is_in_one_message_with_path_and_nearest_name(tmp_path: Path) -> None:
    broken = values(
        studnet={"model": "x"},
        student={"model": "disco_r18", "image_size": "32", "heda": "mlp"},
        views={"recipe": "moco_v2", "blur_sgima": [0.1, 2.0]},
        method={"name": "dicso"},
        data={"id": "cifar"},
    )
    broken["optim"] = {**broken["optim"], "optimizer": "sdg", "epochs": True}
    del broken["optim"]["base_lr"], broken["cost"]
    found = message(tmp_path, broken)
    for part in (
        "mine.yaml: ",
        "missing key 'cost'",
        "unknown key 'studnet'. Did you mean 'student'?",
        'student.image_size: input should be a valid integer, not "32"',
        "unknown key 'student.heda'. Did you mean 'head'?",
        "unknown key 'views.blur_sgima'. Did you mean 'blur_sigma'?",
        "method.name: unknown 'dicso'. Did you mean 'disco'? (one of ",
        "data.id: unknown 'cifar'. Did you mean 'cifar10'?",
        "optim.optimizer: input should be 'sgd', 'adamw', 'larc' or 'lars', not \"sdg\". Did you mean 'sgd'?",
        "optim.epochs: input should be a valid integer, not true",
        "missing key 'optim.base_lr'",
    ):
        assert part in found, part


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"views": {}}, "missing key 'views.recipe' (one of moco_v"),
        ({"views": {"recipe": ["moco_v2"]}}, "views.recipe: unknown '['moco_v2']'"),
        ({"views": {"recipe": "plain", "blur_sigma": [0.1, 2.0]}}, "unknown key 'views.blur_sigma'"),
        ({"views": {"recipe": "plain", "flip_probability": 1.5}}, "views.flip_probability: "),
        ({"views": {"recipe": "plain", "crop_scale": [0.1]}}, "missing key 'views.crop_scale.1'"),
        ({"views": "plain"}, "views: input should be an object"),
        ({"method": {"name": "disco", "queue_size": 0}}, "method.queue_size: input should be greater than 0, not 0"),
        ({"method": {"name": "disco", "temperature": "warm"}}, "method.temperature: "),
        ({"method": {"name": "moco_v2", "distill_weight": 1.0}}, "unknown key 'method.distill_weight'"),
        ({"teacher": None}, "missing key 'teacher.source' (method disco needs a teacher)"),
        ({"student": {"model": "x", "image_size": 32, "init": "checkpoint"}}, "missing key 'student.init_from'"),
        ({"eval": {"linear": "dicso"}}, "eval.linear: unknown 'dicso'. Did you mean 'disco'?"),
        ({"eval": {"image_size": 64, "resize_size": 32}}, "eval.resize_size: must be at least the crop's 64 pixels"),
        ({"method": {"name": "disco", "queue_size": 4}}, "method.queue_size: must hold a batch of"),
        ({"views": {"recipe": "moco_v2", "small_views": 2}}, "views.small_views: method disco takes no small crops"),
        (
            {"method": {"name": "seed"}, "views": {"recipe": "moco_v2", "small_views": 2, "small_size": 32}},
            "views.small_size: must be smaller than the views'",
        ),
        ({"views": {"recipe": "moco_v2", "small_size": 0}}, "views.small_size: "),
        ({"seed": -1}, "seed: input should be greater than or equal to 0, not -1"),
        ({"preset": "offical"}, "Did you mean 'official'?"),
        ({"student": {"model": "x", "image_size": 32, "std": [0.5, 0.5, 0]}}, "student.std.2: "),
    ],
)
def test_faults_one_by_one(tmp_path: Path, changes: dict[str, Any], part: str) -> None:
    assert part in message(tmp_path, values(**changes))


def test_inheriting_without_a_source_is_a_fault(tmp_path: Path) -> None:
    student = {"model": "disco_r18", "image_size": 32, "init": "inherit"}
    changed = values(student=student, teacher=None, method={"name": "moco_v2"})
    assert "missing key 'student.init_from' (whose tensors to inherit)" in message(tmp_path, changed)


@pytest.mark.parametrize("name", [name for name in bundled_recipes() if name.startswith("in1k/")])
def test_no_recipe_of_a_paper_silences_a_quirk_of_its_method(name: str) -> None:
    """What a file says wins over `preset: official`; a run called official must have all of the code's quirks."""
    official = load_recipe(name, ["preset=official"]).as_dict()
    for path, value in METHODS[official["method"]["name"]].OFFICIAL.items():
        section, key = path.split(".")
        assert official[section] is None or official[section][key] == value, path


def test_a_whole_section_can_be_set_at_once(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, values(log={"log_every_steps": 3})),
        ["log={knn_every_epochs: 0.5}", "method={name: disco, distill_weight: 2.0}", "preset=official"],
    )
    assert (recipe.log.log_every_steps, recipe.log.knn_every_epochs) == (10, 0.5)
    assert (recipe.method["distill_weight"], recipe.method["distill_reduction"]) == (2.0, "sum")


def test_accumulation_must_divide_the_batch(tmp_path: Path) -> None:
    changed = values(optim={**values()["optim"], "batch_size": 64, "accumulation_steps": 3})
    words = "optim.accumulation_steps: 3 does not divide optim.batch_size 64. Type: --set optim.batch_size=63"
    assert words in message(tmp_path, changed)


def test_a_key_given_twice_is_a_fault_and_not_silently_the_last(tmp_path: Path) -> None:
    text = yaml.safe_dump(values()) + "seed: 1\nseed: 2\n"
    lines = text.count("\n")
    assert f"key 'seed' appears twice (line {lines})" in message(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "part"),
    [("name: [", "is no YAML"), ("- a\n- b", "holds no keys"), ("", "holds no keys"), ("a: *b", "is no YAML")],
)
def test_what_is_no_recipe_at_all_is_refused_in_words(tmp_path: Path, text: str, part: str) -> None:
    assert part in message(tmp_path, text)


def test_a_file_that_is_no_text_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(BadRecipe, match="is no YAML"):
        load_recipe(str(path))


def test_values_that_yaml_makes_of_text_stay_text(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, values()), ["target=2026-01-02"]).target == "2026-01-02"
    assert "student.model" in message(tmp_path, values(), "student.model=5")


def test_infinite_numbers_are_refused(tmp_path: Path) -> None:
    assert "optim.weight_decay: input should be a finite number" in message(
        tmp_path, values(), "optim.weight_decay=.inf"
    )


def test_small_numbers_are_numbers_however_they_are_written(tmp_path: Path) -> None:
    text = yaml.safe_dump(values()).replace("weight_decay: 0.0001", "weight_decay: 1e-4")
    assert "1e-4" in text
    recipe = load_recipe(write(tmp_path, text), ["optim.base_lr=3e-2"])
    assert (recipe.optim.weight_decay, recipe.optim.base_lr) == (1e-4, 0.03)


def test_overrides_set_values_and_create_sections(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, values()),
        [
            "seed=3",
            "student.image_size=64",
            "views.crop_scale=[0.5, 1]",
            "log.log_every_steps=1",
            "teacher.image_size=null",
        ],
    )
    assert (recipe.seed, recipe.student.image_size, recipe.log.log_every_steps) == (3, 64, 1)
    assert recipe.views["crop_scale"] == [0.5, 1.0]
    assert recipe.teacher is not None
    assert recipe.teacher.image_size is None


def test_overrides_are_checked_like_the_file_and_together_with_it(tmp_path: Path) -> None:
    broken = values(seed="x")
    found = message(
        tmp_path, broken, "optim.epoch=3", "studnet.model=x", "nonsense", "a.b.c=1", "name.x=1", "method.momentum=two"
    )
    for part in (
        'seed: input should be a valid integer, not "x"',
        "unknown key 'optim.epoch'. Did you mean 'epochs'?",
        "unknown key 'studnet'. Did you mean 'student'?",
        "--set nonsense: write --set section.key=value",
        "--set a.b.c=1: write --set 'a.b={c: 1}'",
        "--set name.x=1: 'name' has no keys below it",
        'method.momentum: input should be a valid number, not "two"',
    ):
        assert part in found, part


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("seed=010", 'seed: input should be a valid integer, not "010"'),
        ("seed=1:30", 'seed: input should be a valid integer, not "1:30"'),
        ("student.options.drop_path_rate=0.1", "write --set 'student.options={drop_path_rate: 0.1}'"),
        ("a.b.c.d=1", "write --set 'a.b={c: {d: 1}}'"),
        ("data.source=/photos/\udcff", "data.source: is not UTF-8. Rename it"),
    ],
)
def test_overrides_that_would_be_read_as_something_else_are_refused(tmp_path: Path, override: str, fault: str) -> None:
    assert fault in message(tmp_path, values(), override)


@pytest.mark.parametrize("text", ["2024-13-45", "0b_", "/photos #2"])
def test_names_that_yaml_reads_otherwise_are_kept(tmp_path: Path, text: str) -> None:
    assert load_recipe(write(tmp_path, values()), [f"data.source={text}"]).data.source == text


@pytest.mark.parametrize("name", ["~nosuchuser/x.yaml", "x" * 300 + ".yaml", "x" * 300])
def test_a_recipe_that_cannot_be_there_is_refused_in_words(name: str) -> None:
    with pytest.raises((BadRecipe, UnknownName), match=r"does not exist|unknown recipe"):
        load_recipe(name)


def test_digest_changes_with_what_decides_the_weights_and_not_with_words_or_logs() -> None:
    digest = load_recipe(POCKET).digest()
    for silent in ("log.log_every_steps=7", "target=other", "cost=other", "reference=other", "log.knn_every_epochs=0"):
        assert load_recipe(POCKET, [silent]).digest() == digest, silent
    for decisive in (
        "seed=1",
        "optim.base_lr=1e-3",
        "views.crop_scale=[0.3, 1.0]",
        "method.temperature=0.1",
        "teacher.image_size=64",
        "student.init=random",
        "optim.batch_size=32",
    ):
        assert load_recipe(POCKET, [decisive]).digest() != digest, decisive


def test_defaults_written_out_are_the_same_recipe() -> None:
    digest = load_recipe(POCKET).digest()
    assert load_recipe(POCKET, ["views.crop_scale=[0.2, 1]", "method.distill_weight=32", "seed=0"]).digest() == digest


@pytest.mark.parametrize("name", bundled_recipes())
def test_bundled_recipe_loads_is_named_like_its_file_and_resolves_to_itself(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name.split("/")[1]
    resolved = parse_recipe(yaml.safe_load(recipe.as_yaml()), origin="resolved")
    assert resolved == recipe
    assert resolved.digest() == recipe.digest()
    assert set(recipe.as_dict()) == set(Recipe.model_fields)
    view_plan(recipe.views, recipe.view_size, 2)
    assert recipe.method["name"] in METHODS
    if recipe.reproduce.baseline:
        baseline = load_recipe(recipe.reproduce.baseline)
        assert baseline.optim == recipe.optim
        assert baseline.data == recipe.data


def test_resolved_recipe_is_complete_and_readable_again_from_a_file(tmp_path: Path) -> None:
    recipe = load_recipe(POCKET, ["preset=official", "target='1e-4'", "optim.base_lr=1e-5"])
    assert load_recipe(write(tmp_path, recipe.as_yaml())) == recipe
    assert recipe.target == "1e-4"
    assert set(method_options(recipe)) == {
        "temperature",
        "queue_size",
        "momentum",
        "contrast_weight",
        "distill_weight",
        "distill_reduction",
        "centre_teacher",
        "centre_momentum",
        "queue_init",
    }


def test_view_size_is_the_larger_of_what_student_and_teacher_look_at() -> None:
    assert load_recipe(POCKET, ["student.image_size=64", "teacher.image_size=96"]).view_size == 96
    assert load_recipe(POCKET, ["student.image_size=64", "teacher.image_size=32"]).view_size == 64
    assert load_recipe(POCKET, ["teacher.image_size=null"]).view_size == 64


def test_rate_grows_with_the_batch() -> None:
    assert load_recipe(POCKET, ["optim.base_lr=0.03", "optim.batch_size=64"]).lr == pytest.approx(0.0075)


def test_recipes_are_found_by_path_scale_or_name(tmp_path: Path) -> None:
    path = find_recipe(POCKET)
    assert find_recipe(POCKET.split("/")[1]) == path
    assert find_recipe(str(path)) == path
    with pytest.raises(UnknownName, match=r"Did you mean '(pocket/)?disco_effb0.disco_lite0_fmnist'"):
        find_recipe("disco_effb0.disco_lite0_fmnits")
    with pytest.raises(UnknownName, match="are bundled: disco-zoo train --list"):
        find_recipe("zzz")
    with pytest.raises(BadRecipe, match="does not exist"):
        find_recipe(str(tmp_path / "gone.yaml"))


def test_a_name_in_two_scales_must_be_given_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for scale in ("a", "b"):
        (tmp_path / scale).mkdir()
        (tmp_path / scale / "x.yaml").write_text("")
    monkeypatch.setattr("disco_zoo.config.recipe.recipes_folder", lambda: tmp_path)
    with pytest.raises(UnknownName, match=r"several recipes are called 'x'. Type one of: a/x, b/x"):
        find_recipe("x")
    assert find_recipe("b/x") == tmp_path / "b" / "x.yaml"


def test_each_signature_documents_defaults_that_pass_its_own_check(tmp_path: Path) -> None:
    for name in METHODS:
        changed = values(method={"name": name})
        if not METHODS[name].needs_teacher:
            del changed["teacher"]
        assert load_recipe(write(tmp_path, changed)).method["name"] == name
    for name in VIEW_RECIPES:
        assert load_recipe(write(tmp_path, values(views={"recipe": name}))).views["recipe"] == name
