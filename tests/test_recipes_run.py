"""Every recipe on disk starts and takes two steps, teachers and start included; the paper's recipe has its values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from tiny_runs import checkpoint_of, toy_parquet
from torch import nn

from disco_zoo.cli import main
from disco_zoo.methods import METHODS
from disco_zoo.recipe import bundled_recipes, load_recipe, recipes_folder

pytestmark = pytest.mark.usefixtures("one_thread")

PAPER = "in1k/disco_effb0.disco_mocov2_r50_in1k"
SMALL = ["student.image_size=32", "optim.batch_size=4", "method.queue_size=64", "log.knn_every_epochs=0",
         "optim.accumulation_steps=1", "student.recalibration_images=8"]  # fmt: skip


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
    assert len(found) == len([*recipes_folder().rglob("*.yaml")]) >= 7


@pytest.mark.parametrize("name", bundled_recipes())
def test_recipe_takes_two_steps(
    name: str, data: Path, moco_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(name)
    overrides = [*SMALL, "eval.resize_size=32"]
    if recipe.teacher is not None:
        overrides.append("teacher.image_size=32")
        if recipe.teacher.source != "lite0":
            overrides.append(f"teacher.source={moco_file}")
    arguments = [part for override in overrides for part in ("--set", override)]
    code = main(["train", name, "--data", str(data), "--out", str(tmp_path), "--device", "cpu", "--workers", "0",
                 "--steps", "2", *arguments])  # fmt: skip
    assert code == 0, capsys.readouterr().err
    facts = json.loads((tmp_path / "run.json").read_text())
    assert (facts["steps"], facts["name"]) == (2, recipe.name)
    state = checkpoint_of(tmp_path)
    assert int(state["method"]["contrast.queue.position"]) == 8
    assert all(torch.isfinite(value).all() for value in state["method"].values())
    inherited = facts["student"]["inherited_tensors"]
    assert inherited == ({"copied": 294, "total": 358} if recipe.student.init == "inherit" else None)


def test_official_preset_of_the_paper_takes_two_steps(
    data: Path, moco_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the teacher's own queue as the first negatives."""
    overrides = [*SMALL, "eval.resize_size=32", f"teacher.source={moco_file}", "preset=official"]
    arguments = [part for override in overrides for part in ("--set", override)]
    code = main(["train", PAPER, "--data", str(data), "--out", str(tmp_path), "--device", "cpu", "--workers", "0",
                 "--steps", "2", *arguments])  # fmt: skip
    assert code == 0, capsys.readouterr().err
    rows = checkpoint_of(tmp_path)["method"]["contrast.queue.rows"]
    stored = torch.load(moco_file, weights_only=True)["state_dict"]["module.queue"].T
    assert torch.equal(rows[8:], stored[8:])
    assert not torch.equal(rows[:8], stored[:8])


def test_paper_recipe_has_the_values_of_the_paper() -> None:
    """methods.md, 1.2 to 1.4 and 2.2."""
    recipe = load_recipe(PAPER)
    optim, method = recipe.optim, recipe.method
    assert (optim.optimizer, optim.momentum, optim.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (optim.batch_size, optim.epochs, optim.schedule, optim.warmup_epochs) == (256, 200, "cosine_epoch", 0.0)
    assert recipe.lr == 0.03
    assert (optim.precision, optim.sync_bn, optim.accumulation_steps) == ("fp32", False, 1)
    assert (method["temperature"], method["queue_size"], method["momentum"]) == (0.2, 65536, 0.999)
    assert (method["contrast_weight"], method["distill_weight"], method["distill_reduction"]) == (1.0, 32.0, "mean")
    assert (method["centre_teacher"], method["queue_init"]) == (False, "random")
    assert (recipe.student.image_size, recipe.student.head, recipe.student.head_hidden_dim) == (224, "mlp", 2048)
    assert (recipe.student.model, recipe.student.init, recipe.student.embed_dim) == ("disco_effb0", "random", None)
    assert (recipe.student.mean, recipe.student.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert recipe.teacher is not None
    assert (recipe.teacher.features, recipe.teacher.bn_mode, recipe.teacher.image_size) == ("head", "eval", None)
    assert recipe.views == {
        "recipe": "moco_v2", "crop_scale": [0.2, 1.0], "crop_ratio": [3 / 4, 4 / 3], "jitter": [0.4, 0.4, 0.4, 0.1],
        "jitter_probability": 0.8, "gray_probability": 0.2, "blur_probability": 0.5, "blur_sigma": [0.1, 2.0],
        "flip_probability": 0.5,
    }  # fmt: skip
    assert (recipe.eval.linear, recipe.eval.resize_size) == ("disco", 256)
    assert recipe.data.id == "in1k"


def test_official_preset_of_the_paper_has_the_quirks_of_its_code() -> None:
    recipe = load_recipe(PAPER, ["preset=official"])
    assert recipe.teacher is not None
    assert recipe.teacher.bn_mode == "train"  # Q1
    assert (recipe.method["distill_reduction"], recipe.method["distill_weight"]) == ("sum", 1.0)  # Q2
    assert recipe.method["queue_init"] == "teacher"  # Q3
    assert recipe.optim == load_recipe(PAPER).optim


@pytest.mark.parametrize("name", [name for name in bundled_recipes() if load_recipe(name).reproduce.baseline])
def test_baseline_starts_where_the_student_starts_and_takes_as_many_steps(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.reproduce.baseline is not None
    baseline = load_recipe(recipe.reproduce.baseline)
    assert not METHODS[baseline.method["name"]].needs_teacher
    assert baseline.optim == recipe.optim
    assert (baseline.views, baseline.data, baseline.eval, baseline.seed) == (
        recipe.views, recipe.data, recipe.eval, recipe.seed
    )  # fmt: skip
    assert recipe.teacher is not None
    for field in ("model", "image_size", "mean", "std", "init", "recalibration_images"):
        assert getattr(baseline.student, field) == getattr(recipe.student, field), field
    assert (baseline.student.init_from or recipe.teacher.source) == (
        recipe.student.init_from or recipe.teacher.source
    )  # fmt: skip
