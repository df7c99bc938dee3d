"""The time of a step, said before a run begins: what it costs to find out."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from tiny_runs import toy_parquet, toy_recipe

from disco_zoo.data.open_source import open_source
from disco_zoo.training import build
from disco_zoo.training.calibration import RECALIBRATION_IMAGES, seconds_per_step


def test_an_inherited_start_is_prepared_on_few_images(tmp_path: Path) -> None:
    inherits = {"student__model": "disco_effb0", "student__init": "inherit", "student__init_from": "lite0"}
    recipe = toy_recipe("moco_v2", **inherits)
    source = open_source(toy_parquet(tmp_path, num_train=40))
    assert recipe.student.recalibration_images > len(source) > RECALIBRATION_IMAGES
    with mock.patch.object(build, "load_or_replace", wraps=build.load_or_replace) as load:
        assert seconds_per_step(recipe, source, "cpu") > 0
    assert load.call_count == RECALIBRATION_IMAGES
