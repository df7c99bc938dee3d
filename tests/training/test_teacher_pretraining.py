"""From a method without a teacher to one with it: a run folder teaches the next run."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from method_runs import method_recipe, method_values
from safetensors.torch import load_file
from slow_params import slow_but
from tiny_runs import toy_parquet, train

from disco_zoo.config.recipe import Recipe, parse_recipe
from disco_zoo.training.build import build_parts
from disco_zoo.training.run_data import open_data

pytestmark = pytest.mark.usefixtures("one_thread")
PRETRAINING, DISTILLING = ("moco_v2", "simclr", "swav"), ("disco", "seed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teachers(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two steps of each method that needs no teacher."""
    folder = tmp_path_factory.mktemp("teachers")
    for method in PRETRAINING:
        train(method_recipe(method, student__model="test_resnet"), data, folder / method, steps=2)
    return {method: folder / method for method in PRETRAINING}


def taught_by(folder: Path, method: str) -> Recipe:
    values = method_values(method)
    values["teacher"] = {"source": str(folder)}  # its image size and head are the defaults
    return parse_recipe(values, origin="toy")


PAIRS = [*itertools.product(PRETRAINING, DISTILLING)]


@pytest.mark.parametrize(("pretraining", "method"), slow_but(PAIRS, PAIRS[:1] + PAIRS[-1:]))
def test_a_pretrained_run_teaches_another(
    pretraining: str, method: str, data: Path, teachers: dict[str, Path], tmp_path: Path
) -> None:
    recipe = taught_by(teachers[pretraining], method)
    teacher = build_parts(recipe, open_data(recipe, str(data)).train).teacher
    assert teacher is not None
    exported = load_file(teachers[pretraining] / "student.safetensors")
    loaded = teacher.backbone.state_dict()
    assert loaded.keys() == exported.keys()
    assert all(torch.equal(loaded[key], value.to(loaded[key].dtype)) for key, value in exported.items())
    state = train(recipe, data, tmp_path, steps=2)
    assert state["position"]["step"] == 2
    assert all(torch.isfinite(value).all() for value in state["method"].values())
    facts = json.loads((tmp_path / "run.json").read_text())["teacher"]
    former = json.loads((teachers[pretraining] / "run.json").read_text())
    assert former["teacher"] is None
    assert facts["sha256"] == former["student"]["sha256"]
    assert facts["supervised"] is False
