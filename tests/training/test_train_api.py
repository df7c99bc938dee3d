"""`disco_zoo.train` as programs call it: what was asked is what is trained, and the run folder is the same network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import toy_parquet, toy_recipe, train

import disco_zoo
from disco_zoo.errors import BadRecipe
from disco_zoo.models.load import load_model
from disco_zoo.training.train import load_lines

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


def test_a_seed_given_beside_a_recipe_counts_and_overrides_are_refused(data: Path, tmp_path: Path) -> None:
    recipe = toy_recipe("moco_v2")
    facts = disco_zoo.train(recipe, str(data), tmp_path / "run", seed=3, workers=0, max_steps=1)
    assert facts is not None
    assert facts["seed"] == 3
    assert "seed: 3" in (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(BadRecipe, match=r"Type: load_recipe\(NAME, OVERRIDES\)"):
        disco_zoo.train(recipe, str(data), tmp_path / "other", overrides=["optim.epochs=9"])
    assert not (tmp_path / "other").exists()


def test_a_run_folder_is_the_network_that_was_trained_with_its_options(data: Path, tmp_path: Path) -> None:
    """Another activation has the same tensors, so nothing else would tell."""
    options = {"act_layer": "tanh", "drop_rate": 0.1}
    recipe = toy_recipe("moco_v2", student__options=options)
    train(recipe, data, tmp_path / "run", steps=1)
    student = json.loads((tmp_path / "run" / "run.json").read_text())["student"]
    assert student["options"] == options
    assert "timm.create_model(\"test_efficientnet\", num_classes=0, act_layer='tanh', drop_rate=0.1)" in "".join(
        load_lines(student)
    )
    network = load_model(str(tmp_path / "run")).backbone.eval()
    assert "Tanh" in {type(module).__name__ for module in network.modules()}
