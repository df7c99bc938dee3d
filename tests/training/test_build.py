"""The networks of a run: a teacher that a command has loaded once serves all its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import toy_parquet, toy_recipe

from disco_zoo.config.recipe import Recipe
from disco_zoo.data.open_source import open_source
from disco_zoo.errors import UnknownName
from disco_zoo.models.teacher_source import load_teacher_source
from disco_zoo.training import build
from disco_zoo.training.build import build_parts, seeded_teacher
from disco_zoo.transforms.eval import eval_transform

INHERITS = {"student__model": "disco_effb0", "student__init": "inherit", "student__init_from": "lite0"}
FEW = {"student__recalibration_images": 4}


def distilled(**changes: Any) -> Recipe:
    teacher = {"source": "lite0", "image_size": 32}
    return toy_recipe(**{"teacher": teacher, **INHERITS, **FEW, **changes})


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that are loaded while a test runs."""
    loaded: list[str] = []

    def load(source: str, **options: Any) -> Any:
        loaded.append(source)
        return load_teacher_source(source, **options)

    monkeypatch.setattr(build, "load_teacher_source", load)
    return loaded


def test_student_and_baseline_take_the_loaded_teacher(tmp_path: Path, loads: list[str]) -> None:
    source = open_source(toy_parquet(tmp_path))
    recipe, baseline = distilled(), toy_recipe("moco_v2", **INHERITS, **FEW)
    alone = [build_parts(one, source).method.state_dict() for one in (recipe, baseline)]
    assert loads == ["lite0"] * 2  # the student's teacher, its donor too, and the baseline's donor
    loads.clear()
    teacher = seeded_teacher(recipe, "cpu")
    shared = [build_parts(one, source, at_hand=teacher) for one in (recipe, baseline)]
    assert loads == ["lite0"]
    assert shared[0].teacher is teacher
    assert shared[1].teacher is None
    for before, parts in zip(alone, shared, strict=True):
        after = parts.method.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": {"source": "lite0", "image_size": 64}},
        {"teacher": {"source": "lite0", "image_size": 32, "bn_mode": "train"}},
        {"teacher": {"source": "test_resnet", "image_size": 32, "pretrained": False}},
    ],
    ids=["another size", "statistics that move", "another network"],
)
def test_a_teacher_that_is_not_the_recipes_is_not_taken(tmp_path: Path, changes: dict[str, Any]) -> None:
    source = open_source(toy_parquet(tmp_path))
    teacher = seeded_teacher(distilled(), "cpu")
    assert build_parts(distilled(**changes), source, at_hand=teacher).teacher is not teacher


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("student.init_from", {"student__init_from": "lite-0"}),
        ("teacher.source", {"teacher": {"source": "lite-0", "image_size": 32}}),
    ],
)
def test_a_misspelt_name_is_said_with_its_key(key: str, changes: dict[str, Any], tmp_path: Path) -> None:
    source = open_source(toy_parquet(tmp_path))
    with pytest.raises(UnknownName, match=rf"^{key}: 'lite-0' is no file.* Did you mean 'lite0'"):
        build_parts(distilled(**changes), source)


@pytest.mark.parametrize(
    ("student", "evaluated", "resize", "expected"),
    [(32, None, None, 32), (32, 32, 40, 40), (96, 64, 64, 96), (32, 64, 80, 40)],
)
def test_batch_norm_is_calibrated_on_evals_share_of_each_image(
    student: int, evaluated: int | None, resize: int | None, expected: int, tmp_path: Path
) -> None:
    """Whatever size the student trains at: not the middle, magnified, nor a frame of black."""
    source = open_source(toy_parquet(tmp_path))
    sizes = {"student__image_size": student, "eval__image_size": evaluated, "eval__resize_size": resize}
    recipe = distilled(**sizes, student__recalibration_images=len(source))
    (batch,) = build._calibration_batches(recipe, source, "cpu")
    shown = [eval_transform(student, expected)(source.image(index)) for index in range(len(source))]
    assert torch.equal(batch.double().mean(), torch.stack(shown).double().mean())
