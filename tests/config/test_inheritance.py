"""`extends`: what is common lies in one file, and the resolved recipe is as if all had been written in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from disco_zoo.cli import main
from disco_zoo.config.recipe import bundled_recipes, find_recipe, load_recipe, recipes_folder
from disco_zoo.errors import BadRecipe, UnknownName

BASE: dict[str, Any] = {
    "name": "base",
    "target": "a test",
    "cost": "seconds",
    "reference": "none",
    "student": {"model": "disco_r18", "image_size": 32, "head_hidden_dim": 512},
    "teacher": {"source": "lite0", "image_size": 64},
    "data": {"id": "cifar10"},
    "views": {"recipe": "moco_v2", "blur_probability": 0.1},
    "method": {"name": "disco", "queue_size": 64, "distill_weight": 3.0},
    "optim": {
        "optimizer": "sgd",
        "batch_size": 64,
        "base_lr": 0.03,
        "weight_decay": 1e-4,
        "schedule": "cosine_epoch",
        "epochs": 2,
    },
    "log": {"log_every_steps": 3},
}


def write(path: Path, content: dict[str, Any] | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


@pytest.fixture
def base(tmp_path: Path) -> str:
    return write(tmp_path / "parts" / "base.yaml", BASE)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundled recipes with one part and one recipe."""
    folder = tmp_path / "recipes"
    write(folder / "parts" / "base.yaml", BASE)
    write(folder / "pocket" / "short.yaml", {"extends": "parts/base", "name": "short"})
    monkeypatch.setattr("disco_zoo.config.recipe.recipes_folder", lambda: folder)
    return folder


def child(tmp_path: Path, **changes: Any) -> str:
    return write(tmp_path / "child.yaml", {"extends": "parts/base", "name": "child", **changes})


def message(path: str, *overrides: str) -> str:
    with pytest.raises(BadRecipe) as error:
        load_recipe(path, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_sections_are_merged_key_by_key_and_the_files_own_values_win(tmp_path: Path, base: str) -> None:
    path = child(tmp_path, optim={"epochs": 7}, views={"blur_probability": 0.9, "recipe": "moco_v2"}, seed=3)
    written = {
        **BASE,
        "name": "child",
        "seed": 3,
        "optim": {**BASE["optim"], "epochs": 7},
        "views": {"recipe": "moco_v2", "blur_probability": 0.9},
    }
    recipe, same = load_recipe(path), load_recipe(write(tmp_path / "written.yaml", written))
    assert recipe == same
    assert recipe.digest() == same.digest()
    assert recipe.as_yaml() == same.as_yaml()
    assert "extends" not in yaml.safe_load(recipe.as_yaml())
    assert (recipe.method["distill_weight"], recipe.log.log_every_steps) == (3.0, 3)


def test_the_printed_recipe_is_the_whole_one(tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = child(tmp_path, optim={"epochs": 7})
    assert main(["train", path, "--print"]) == 0
    printed = capsys.readouterr().out
    assert load_recipe(write(tmp_path / "alone" / "printed.yaml", printed)) == load_recipe(path)
    assert yaml.safe_load(printed)["optim"] == load_recipe(path).as_dict()["optim"]
    assert "extends" not in printed


def test_over_several_levels_the_nearest_file_wins(tmp_path: Path, base: str) -> None:
    write(
        tmp_path / "parts" / "middle.yaml",
        {"extends": "base", "optim": {"epochs": 5, "base_lr": 0.5}, "log": {"knn_every_epochs": 0.5}},
    )
    recipe = load_recipe(child(tmp_path, extends="parts/middle.yaml", optim={"epochs": 7}))
    assert (recipe.optim.epochs, recipe.optim.base_lr, recipe.optim.weight_decay) == (7, 0.5, 1e-4)
    assert (recipe.log.log_every_steps, recipe.log.knn_every_epochs) == (3, 0.5)


def test_null_takes_a_section_away_and_a_key_back_to_none(tmp_path: Path, base: str) -> None:
    recipe = load_recipe(
        child(tmp_path, teacher=None, log=None, method={"name": "moco_v2"}, student={"head_hidden_dim": None})
    )
    assert recipe.teacher is None
    assert recipe.log.log_every_steps == 10
    assert recipe.student.head_hidden_dim is None
    assert "missing key 'student'" in message(child(tmp_path, student=None))


def test_a_section_taken_away_does_not_come_back_with_its_old_keys(tmp_path: Path, base: str) -> None:
    write(tmp_path / "parts" / "bare.yaml", {"extends": "base", "log": None})
    recipe = load_recipe(child(tmp_path, extends="parts/bare", log={"knn_every_epochs": 0.5}))
    assert (recipe.log.log_every_steps, recipe.log.knn_every_epochs) == (10, 0.5)


def test_another_method_or_view_recipe_drops_the_parents_options(tmp_path: Path, base: str) -> None:
    recipe = load_recipe(child(tmp_path, teacher=None, method={"name": "moco_v2"}, views={"recipe": "plain"}))
    assert recipe.method["queue_size"] == 65536
    assert "distill_weight" not in recipe.method
    assert "blur_probability" not in recipe.views
    same = load_recipe(child(tmp_path, method={"name": "disco", "momentum": 0.5}))
    assert (same.method["queue_size"], same.method["momentum"]) == (64, 0.5)


def test_incomplete_parts_can_leave_the_choice_to_the_child(tmp_path: Path, base: str) -> None:
    write(tmp_path / "parts" / "queue.yaml", {"extends": "base", "method": None})
    write(tmp_path / "parts" / "small.yaml", {"extends": "queue", "method": {"queue_size": 128}})
    assert load_recipe(child(tmp_path, extends="parts/small", method={"name": "disco"})).method["queue_size"] == 128


def test_overrides_come_last(tmp_path: Path, base: str) -> None:
    recipe = load_recipe(child(tmp_path, optim={"epochs": 7}), ["optim.epochs=9", "teacher.image_size=32"])
    assert recipe.teacher is not None
    assert (recipe.optim.epochs, recipe.teacher.image_size) == (9, 32)


def test_official_preset_fills_in_only_what_no_file_says(tmp_path: Path, base: str) -> None:
    recipe = load_recipe(child(tmp_path, preset="official"))
    assert recipe.method["distill_weight"] == 3.0  # of the part
    assert recipe.method["distill_reduction"] == "sum"
    chosen_again = load_recipe(child(tmp_path, preset="official", method=None), ["method.name=disco"])
    assert chosen_again.method["distill_weight"] == 1.0


def test_a_users_recipe_finds_what_lies_beside_it_first_and_the_bundled_ones_then(bundle: Path, tmp_path: Path) -> None:
    mine = write(tmp_path / "mine" / "my.yaml", {"extends": "parts/base", "name": "my"})
    assert load_recipe(mine).optim.epochs == 2
    assert load_recipe(write(tmp_path / "mine" / "of.yaml", {"extends": "pocket/short", "name": "of"})).name == "of"
    write(tmp_path / "mine" / "parts" / "base.yaml", {**BASE, "optim": {**BASE["optim"], "epochs": 5}})
    assert load_recipe(mine).optim.epochs == 5
    elsewhere = write(tmp_path / "far" / "away.yaml", {"extends": str(tmp_path / "mine" / "my.yaml")})
    assert load_recipe(elsewhere).optim.epochs == 5


def test_parts_are_no_recipes(bundle: Path) -> None:
    assert [*bundled_recipes()] == ["pocket/short"]
    assert load_recipe("short").optim.epochs == 2
    with pytest.raises(UnknownName):
        find_recipe("parts/base")


def test_every_bundled_part_is_used() -> None:
    """A part that no recipe extends would be a recipe that no test has seen."""
    folder = recipes_folder()
    files = [*folder.rglob("*.yaml")]
    extended = {yaml.safe_load(path.read_text(encoding="utf-8")).get("extends") for path in files}
    parts = {path.relative_to(folder).as_posix().removesuffix(".yaml") for path in (folder / "parts").rglob("*.yaml")}
    assert parts <= extended


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("- a\n- b\n", "parts/base.yaml holds no keys"),
        ("", "parts/base.yaml holds no keys"),
        ("a: [", "parts/base.yaml is no YAML"),
        ({**BASE, "extends": "../child"}, "child.yaml: extends goes round in a circle: "),
        ({**BASE, "extends": "base"}, "extends goes round in a circle: "),
        ({**BASE, "extends": "gone"}, "parts/base.yaml: extends: 'gone' is neither beside that file nor among"),
        ({**BASE, "extends": ["a", "b"]}, "parts/base.yaml: extends: must be the path of one recipe, not ['a', 'b']"),
        ({**BASE, "extends": ""}, "parts/base.yaml: extends: must be the path of one recipe, not ''"),
    ],
)
def test_a_file_that_cannot_be_extended_is_named(tmp_path: Path, content: dict[str, Any] | str, part: str) -> None:
    write(tmp_path / "parts" / "base.yaml", content)
    assert part in message(child(tmp_path))


def test_a_circle_is_shown(tmp_path: Path) -> None:
    write(tmp_path / "parts" / "base.yaml", {"extends": "../child"})
    path = child(tmp_path)
    base = tmp_path / "parts" / "base.yaml"
    assert message(path).endswith(f"{path} extends {base} extends {tmp_path / 'parts' / '..' / 'child.yaml'}")


def test_a_missing_part_suggests_the_nearest(bundle: Path, tmp_path: Path) -> None:
    assert "Did you mean 'parts/base'?" in message(child(tmp_path, extends="parts/bsae"))
    assert "'~nobody/base' is neither" in message(child(tmp_path, extends="~nobody/base"))


def test_faults_name_the_file_that_holds_them_and_come_all_together(bundle: Path, tmp_path: Path) -> None:
    part = {
        **BASE,
        "optim": {**BASE["optim"], "epochs": "many"},
        "studnet": 1,
        "data": {"id": "cifar11"},
        "views": {"recipe": "moco_v2", "blur_sgima": [0.1, 2.0]},
        "student": {**BASE["student"], "std": [0.5, 0.5, 0]},
    }
    write(bundle / "parts" / "base.yaml", yaml.safe_dump(part) + "seed: 1\nseed: 2\n")
    found = message(child(tmp_path, method={"queue_size": 0}, log={"knn_every_epochs": -1}), "optim.base_lr=0")
    for fault in (
        "unknown key 'studnet'. Did you mean 'student'? (in parts/base.yaml)",
        'optim.epochs: input should be a valid integer, not "many" (in parts/base.yaml)',
        "data.id: unknown 'cifar11'. Did you mean 'cifar10'? (one of",
        "unknown key 'views.blur_sgima'. Did you mean 'blur_sigma'? (in parts/base.yaml)",
        "student.std.2: input should be greater than 0, not 0 (in parts/base.yaml)",
        "appears twice (line",
    ):
        assert fault in found, fault
    faults = found.removeprefix("child.yaml: ").split("; ")
    own = [fault for fault in faults if not fault.endswith("(in parts/base.yaml)")]
    assert [fault.split(":")[0] for fault in own] == ["optim.base_lr", "log.knn_every_epochs", "method.queue_size"]


def test_a_fault_that_the_child_repairs_is_none(tmp_path: Path) -> None:
    write(tmp_path / "parts" / "base.yaml", {**BASE, "seed": "x", "optim": {**BASE["optim"], "epochs": "many"}})
    assert load_recipe(child(tmp_path, seed=1, optim={"epochs": 3})).optim.epochs == 3
    assert load_recipe(child(tmp_path), ["seed=1", "optim.epochs=3"]).seed == 1


def test_extends_is_no_override(tmp_path: Path, base: str) -> None:
    assert "unknown key 'extends'" in message(base, "extends=parts/other")
