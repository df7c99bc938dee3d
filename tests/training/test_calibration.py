"""The time of a step, said before a run begins: what it costs to find out."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tiny_runs import toy_parquet, toy_recipe

from disco_zoo.data.open_source import open_source
from disco_zoo.errors import BadRecipe
from disco_zoo.methods import METHODS
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


def test_the_steps_that_are_timed_are_those_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its precision, and in its micro-batches: a step to warm up and two more, of two halves each."""
    method = METHODS["moco_v2"]
    seen: list[tuple[int, bool]] = []
    former = method.forward

    def forward(self: Any, batch: Any) -> Any:
        seen.append((len(batch.index), torch.is_autocast_enabled("cpu")))
        return former(self, batch)

    monkeypatch.setattr(method, "forward", forward)
    recipe = toy_recipe("moco_v2", optim__accumulation_steps=2, optim__precision="bf16")
    assert seconds_per_step(recipe, open_source(toy_parquet(tmp_path)), "cpu", timed_steps=2) > 0
    assert seen == [(4, True)] * 3 * 2


@pytest.mark.parametrize(
    ("images", "changes", "message"),
    [
        (26, {"optim__precision": "fp16"}, r"optim\.precision: fp16 needs a GPU"),
        (7, {}, r"optim\.batch_size 8 is larger than the data \(7 images\)"),
        (26, {"optim__accumulation_steps": 8}, "leaves a forward fewer than two images"),
    ],
)
def test_steps_that_no_run_takes_are_refused_before_they_are_timed(
    tmp_path: Path, images: int, changes: dict[str, Any], message: str
) -> None:
    source = open_source(toy_parquet(tmp_path, num_train=images))
    with pytest.raises(BadRecipe, match=message):
        seconds_per_step(toy_recipe("moco_v2", **changes), source, "cpu")
