"""Every recipe on disk starts and takes two steps, teachers and start included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from slow_params import slow_but
from tiny_runs import checkpoint_of, toy_parquet, train
from torch import nn

from disco_zoo.cli import main
from disco_zoo.config.recipe import bundled_recipes, load_recipe, recipes_folder
from disco_zoo.methods import METHODS

pytestmark = pytest.mark.usefixtures("one_thread")

PAPER = "in1k/disco_effb0.disco_mocov2_r50_in1k"
SMALL = [
    "student.image_size=32",
    "student.image_sizes={}",
    "eval.image_size=null",
    "data.extra_source=null",
    "optim.batch_size=4",
    "log.knn_every_epochs=0",
    "optim.accumulation_steps=1",
    "student.recalibration_images=8",
    "eval.resize_size=32",
]
# Of the method's keys that make a run large, those that a recipe has.
SMALL_METHOD = {"queue_size": 16, "num_prototypes": 8, "negatives": 8, "bag_size": 2}
# These take their two steps with their own networks, and inherit their start; the others with tiny ones.
OWN_NETWORKS = (
    "pocket/disco_effb0.disco_lite0_fmnist",
    "pocket/disco_effb0.mocov2_fmnist",
    "pocket/disco_r18.disco_lite0_fmnist",
    "cifar10/disco_effb0.disco_lite0_cifar10",
)
TINY = "test_efficientnet"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def moco_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the layout of MoCo-v2's ResNet-50, with random weights."""
    torch.manual_seed(0)
    model = timm.create_model("resnet50", num_classes=0)
    head = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 128))
    state = {f"module.encoder_q.{key}": value for key, value in model.state_dict().items()}
    state |= {f"module.encoder_q.fc.{key}": value for key, value in head.state_dict().items()}
    state["module.queue"] = nn.functional.normalize(torch.randn(128, 64), dim=0)
    path = tmp_path_factory.mktemp("teacher") / "ResNet50-checkpoint_0199.pth.tar"
    torch.save({"epoch": 200, "arch": "resnet50", "state_dict": state}, path)
    return path


def test_recipes_are_found_recursively() -> None:
    found = bundled_recipes()
    assert {PAPER, "pocket/disco_effb0.disco_lite0_fmnist", "cifar10/disco_effb0.mocov2_cifar10"} <= found.keys()
    files = [path.relative_to(recipes_folder()) for path in recipes_folder().rglob("*.yaml")]
    assert len(found) == len([path for path in files if path.parts[0] != "parts"]) >= 7


def small_overrides(name: str) -> list[str]:
    """What makes two steps of a recipe cheap; its method, head, views, optimiser and schedule stay as they are."""
    recipe = load_recipe(name)
    overrides = [*SMALL, *(f"method.{key}={value}" for key, value in SMALL_METHOD.items() if recipe.method.get(key))]
    overrides.append("optim.precision=fp32")  # the CPU has no fp16
    if recipe.views["small_views"]:  # a tiny network has nothing left to convolve below 32 pixels
        overrides += ["student.image_size=48", "eval.resize_size=48", "views.small_size=32", "views.small_views=2"]
    if recipe.teacher is not None:
        overrides.append(f"teacher.image_size={48 if recipe.views['small_views'] else 32}")
        overrides.append("teacher.cache_engine=torch")
    if name in OWN_NETWORKS:
        return overrides
    overrides += [f"student.model={TINY}", "student.options={}", "student.init=random", "student.init_from=null"]
    if recipe.teacher is not None:
        overrides += [f"teacher.source={TINY}", "teacher.pretrained=false", "student.embed_dim=null"]
    return overrides


# All methods, and one recipe of each other scale and kind of start.
FAST = [
    *(name for name in bundled_recipes() if name.startswith("pocket/disco_r18")),
    "cifar10/disco_r18.disco_lite0_cifar10",
    "in1k/disco_mobv3.seed_mocov2_r50_in1k",
    "in1k/disco_r18.compress_mocov2_r50_in1k",
    "photos/disco_effb0",
    "photos/disco_effb0.feature_lite2_photos224",
]


@pytest.mark.parametrize("name", slow_but(bundled_recipes(), FAST))
def test_recipe_takes_two_steps(name: str, data: Path, tmp_path: Path) -> None:
    """Without the command around it, whose curves would take longer than the steps."""
    recipe = load_recipe(name)
    state = train(load_recipe(name, small_overrides(name)), data, tmp_path, steps=2)
    facts = json.loads((tmp_path / "run.json").read_text())
    assert (facts["steps"], facts["name"]) == (2, recipe.name)
    assert state["position"]["step"] == 2
    if "contrast.queue.position" in state["method"]:
        assert int(state["method"]["contrast.queue.position"]) == 8
    assert all(torch.isfinite(value).all() for value in state["method"].values())
    inherits = recipe.student.init == "inherit" and name in OWN_NETWORKS
    counts = {"copied": 294, "total": 358, "copied_in_part": 0}
    assert facts["student"]["inherited_tensors"] == (counts if inherits else None)


@pytest.mark.slow  # what it asserts of the queue, tests/training/test_official_presets.py does of a small network
def test_official_preset_of_the_paper_takes_two_steps(
    data: Path, moco_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the teacher's own queue as the first negatives."""
    overrides = [*SMALL, "method.queue_size=64", f"teacher.source={moco_file}", "preset=official"]
    arguments = [part for override in overrides for part in ("--set", override)]
    code = main(
        [
            "train",
            PAPER,
            "--data",
            str(data),
            "--out",
            str(tmp_path),
            "--device",
            "cpu",
            "--workers",
            "0",
            "--steps",
            "2",
            *arguments,
        ]
    )
    assert code == 0, capsys.readouterr().err
    rows = checkpoint_of(tmp_path)["method"]["contrast.queue.rows"]
    stored = torch.load(moco_file, weights_only=True)["state_dict"]["module.queue"].T
    assert torch.equal(rows[8:], stored[8:])
    assert not torch.equal(rows[:8], stored[:8])


@pytest.mark.parametrize("name", [name for name in bundled_recipes() if load_recipe(name).reproduce.baseline])
def test_baseline_starts_where_the_student_starts_and_takes_as_many_steps(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.reproduce.baseline is not None
    baseline = load_recipe(recipe.reproduce.baseline)
    assert not METHODS[baseline.method["name"]].needs_teacher
    assert baseline.optim == recipe.optim
    assert (baseline.data, baseline.eval, baseline.seed) == (recipe.data, recipe.eval, recipe.seed)
    # Contrast needs its colours and blurs; a student whose teacher is asked once a view may do without.
    assert baseline.views == recipe.views or baseline.views["recipe"] == baseline.method["name"] == "moco_v2"
    assert recipe.teacher is not None
    for field in ("model", "image_size", "image_sizes", "mean", "std", "init", "recalibration_images"):
        assert getattr(baseline.student, field) == getattr(recipe.student, field), field
    assert (baseline.student.init_from or recipe.teacher.source) == (recipe.student.init_from or recipe.teacher.source)
