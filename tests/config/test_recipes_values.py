"""What the papers' recipes resolve to is in the papers; the networks and teachers that they name exist."""

from __future__ import annotations

import json
import re

import pytest
import timm
import torch

from disco_zoo.config.recipe import Recipe, bundled_recipes, load_recipe
from disco_zoo.methods import METHODS
from disco_zoo.models.student import create_backbone
from disco_zoo.zoo.catalog import load_catalog

PAPER = "in1k/disco_effb0.disco_mocov2_r50_in1k"
STUDENTS = ("effb0", "effb1", "mobv3", "r18", "r34")
TEACHERS = ("mocov2_r50", "mocov2_r101", "mocov2_r152", "swav_r50w2")
SEED_EFF = {"bn_momentum": 0.01, "drop_rate": 0.2, "drop_path_rate": 0.2}  # Q14


def test_paper_recipe_has_the_values_of_the_paper() -> None:
    """spec 1.2 to 1.4 and 2.2."""
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
    assert (recipe.teacher.features, recipe.teacher.bn_mode, recipe.teacher.image_size) == (None, "eval", None)
    assert {key: value for key, value in recipe.views.items() if "small" not in key} == {
        "recipe": "moco_v2",
        "size": None,
        "crop_scale": [0.2, 1.0],
        "crop_ratio": [3 / 4, 4 / 3],
        "jitter": [0.4, 0.4, 0.4, 0.1],
        "jitter_probability": 0.8,
        "gray_probability": 0.2,
        "blur_probability": 0.5,
        "blur_sigma": [0.1, 2.0],
        "flip_probability": 0.5,
    }
    assert (recipe.eval.linear, recipe.eval.resize_size) == ("disco", 256)
    assert recipe.data.id == "in1k"


def test_official_preset_of_the_paper_has_the_quirks_of_its_code() -> None:
    recipe = load_recipe(PAPER, ["preset=official"])
    assert recipe.teacher is not None
    assert recipe.teacher.bn_mode == "train"  # Q1
    assert (recipe.method["distill_reduction"], recipe.method["distill_weight"]) == ("sum", 1.0)  # Q2
    assert recipe.method["queue_init"] == "teacher_if_any"  # Q3
    assert recipe.optim == load_recipe(PAPER).optim


def family(*names: str) -> list[Recipe]:
    return [load_recipe(f"in1k/{name}_in1k") for name in names]


def test_all_cells_of_the_tables_are_there() -> None:
    cells = {f"in1k/disco_{s}.{m}_{t}_in1k" for s in STUDENTS for t in TEACHERS for m in ("disco", "seed")}
    assert cells | {f"in1k/disco_{s}.mocov2_in1k" for s in STUDENTS} <= bundled_recipes().keys()
    cifar = [load_recipe(name) for name in bundled_recipes() if name.startswith("cifar10/")]
    trained = {(recipe.student.model, recipe.method["name"]) for recipe in cifar}
    assert trained == {(f"disco_{student}", method) for student in ("r18", "effb0") for method in METHODS}


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_cells_of_disco_differ_from_the_paper_in_student_and_teacher_only(student: str, teacher: str) -> None:
    recipe, paper = family(f"disco_{student}.disco_{teacher}")[0].as_dict(), load_recipe(PAPER).as_dict()
    assert recipe["student"].pop("model") == f"disco_{student}"
    assert recipe["student"].pop("weight_init") == ("torchvision" if student in ("r18", "r34") else "timm")
    paper["student"].pop("weight_init")
    assert recipe["teacher"].pop("source") == {"mocov2_r50": "mocov2_r50_disco"}.get(teacher, teacher)
    paper["student"].pop("model"), paper["teacher"].pop("source")
    for section in ("student", "teacher", "data", "views", "method", "optim", "eval", "seed", "preset"):
        assert recipe[section] == paper[section], section


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_seed_has_the_values_of_its_paper(student: str, teacher: str) -> None:
    """spec 1.2 to 1.4, 2.4, 2.5, Q9, Q10 and Q14."""
    (recipe,), small = family(f"disco_{student}.seed_{teacher}"), teacher.startswith("swav")
    optim, method, views = recipe.optim, recipe.method, recipe.views
    assert recipe.teacher is not None
    network = {"effb0": "disco_effb0_pad224", "effb1": "disco_effb1_pad2", "mobv3": "disco_mobv3_se_first"}
    assert (recipe.student.model, recipe.teacher.source) == (network.get(student, f"disco_{student}"), teacher)
    assert (optim.optimizer, optim.momentum, optim.weight_decay, recipe.lr) == ("sgd", 0.9, 1e-4, 0.03)
    assert (optim.batch_size, optim.epochs, optim.schedule) == (256, 800 if small else 200, "seed_official")
    assert (method["student_temperature"], method["teacher_temperature"], method["queue_size"]) == (0.2, 0.01, 65536)
    assert (recipe.student.head, recipe.student.head_hidden_dim, recipe.student.embed_dim) == ("mlp", None, None)
    assert recipe.student.options == (SEED_EFF if student.startswith("eff") else {})
    assert recipe.student.head_dropout == (0.2 if student == "mobv3" else 0)
    assert (views["recipe"], views["crop_scale"][0], views["small_views"]) == (
        ("moco_v2", 0.14, 6) if small else ("moco_v2", 0.2, 0)
    )
    if small:
        assert (views["small_size"], views["small_crop_scale"]) == (96, [0.05, 0.14])


@pytest.mark.parametrize("student", STUDENTS)
def test_baselines_have_the_values_of_moco(student: str) -> None:
    """spec 1.3, 1.4 and Q5."""
    (recipe,), paper = family(f"disco_{student}.mocov2"), load_recipe(PAPER)
    assert (recipe.optim, recipe.views, recipe.eval) == (paper.optim, paper.views, paper.eval)
    assert recipe.method == {"name": "moco_v2", "temperature": 0.2, "queue_size": 65536, "momentum": 0.999}
    assert (recipe.student.head, recipe.student.head_hidden_dim, recipe.student.embed_dim) == ("mlp", None, 128)
    flag = {"mobv3": 512, "r18": 1280, "r34": 1280}.get(student)
    if flag is not None:
        assert family(f"disco_{student}.mocov2_hidden{flag}")[0].student.head_hidden_dim == flag


def test_bingo_has_the_values_of_its_paper() -> None:
    """spec 1.4 and 2.6."""
    teachers = ("mocov2_r50", "mocov2_r50_800ep", "mocov2_r152", "swav_r50w2")
    resnets = family(*(f"disco_{student}.bingo_{teacher}" for student in ("r18", "r34") for teacher in teachers))
    own = family("disco_effb0.bingo_swav_r50w2", "disco_mobv3.bingo_swav_r50w2")
    for recipe in (*resnets, *own):
        method = recipe.method
        assert (method["queue_size"], method["bag_size"], method["switch_epoch"]) == (65536, 5, 11)
        assert (method["companion_weight"], method["cutmix_alpha"]) == (0.5, 2.0)
        assert recipe.views == load_recipe(PAPER).views
        assert (recipe.lr, recipe.optim.batch_size, recipe.optim.epochs) == (0.03, 256, 200)
        assert (recipe.student.head, recipe.student.head_hidden_dim) == ("mlp", 2048)
        assert (method["temperature"], recipe.optim.weight_decay) == ((0.12, 4e-5) if recipe in own else (0.2, 1e-4))
    assert (own[0].student.model, own[0].student.options) == ("disco_effb0_pad224", SEED_EFF)


def test_compress_has_the_values_of_its_paper() -> None:
    """spec 1.4 and 2.7."""
    one = family(
        "disco_r18.compress_1q_mocov2_r50", "disco_mobv2.compress_1q_mocov2_r50", "disco_r18.compress_swav_r50"
    )
    two = family("disco_r18.compress_mocov2_r50", "disco_mobv2.compress_mocov2_r50")
    for recipe in (*one, *two):
        optim, method = recipe.optim, recipe.method
        assert (recipe.lr, optim.batch_size, optim.epochs, optim.weight_decay) == (0.01, 256, 130, 1e-4)
        assert (optim.schedule, optim.milestones_epochs, optim.gamma) == ("multistep", (90, 120), 0.2)
        assert method["queue_size"] == 128000
        assert method["student_temperature"] == method["teacher_temperature"] == 0.04
        assert (recipe.views["recipe"], recipe.views["crop_scale"]) == ("plain", [0.08, 1.0])
        assert recipe.teacher is not None
        assert recipe.teacher.features == "backbone"
    assert {(recipe.method["name"], recipe.student.head) for recipe in one} == {("compress_1q", "linear")}
    assert {(recipe.method["name"], recipe.student.head) for recipe in two} == {("compress_2q_momentum", "none")}
    assert {recipe.method["momentum"] for recipe in two} == {0.999}


def test_swav_pair_has_the_values_of_the_code() -> None:
    """spec 1.4, 2.9 and 2.10."""
    pair = family("disco_effb0.swav", "disco_effb0.disco_swav_swav_r50")
    for recipe in pair:
        optim, method = recipe.optim, recipe.method
        assert (optim.optimizer, optim.batch_size, optim.epochs, optim.weight_decay) == ("larc", 512, 200, 1e-6)
        assert (recipe.lr, recipe.lr * optim.final_lr_fraction) == pytest.approx((0.6, 6e-4))
        assert (optim.schedule, optim.warmup_epochs, optim.sync_bn) == ("cosine_step", 0, True)
        assert (method["temperature"], method["num_prototypes"], method["epsilon"]) == (0.1, 3000, 0.05)
        assert (method["queue_size"], method["queue_start_epoch"], method["freeze_prototypes_steps"]) == (
            3840,
            15,
            5005,
        )
        assert (recipe.student.head, recipe.student.head_hidden_dim, recipe.student.embed_dim) == ("mlp_bn", 2048, 128)
        views = recipe.views
        assert (views["crop_scale"], views["small_views"], views["small_size"]) == ([0.14, 1.0], 6, 96)
    assert (pair[0].optim, pair[0].views, pair[0].student) == (pair[1].optim, pair[1].views, pair[1].student)


@pytest.mark.parametrize("student", ["r18", "effb0"])
def test_cifar10_recipes_differ_in_method_only(student: str) -> None:
    names = [name for name in bundled_recipes() if name.startswith(f"cifar10/disco_{student}.")]
    recipes = [load_recipe(name) for name in names]
    disco = load_recipe(f"cifar10/disco_{student}.disco_lite0_cifar10")
    for recipe in recipes:
        assert (recipe.optim, recipe.data, recipe.eval) == (disco.optim, disco.data, disco.eval)
        assert recipe.teacher in (disco.teacher, None)
        for field in ("model", "image_size", "mean", "std", "init"):
            assert getattr(recipe.student, field) == getattr(disco.student, field), field


def test_networks_and_teachers_of_all_recipes_exist() -> None:
    recipes = [load_recipe(name) for name in bundled_recipes()]
    for model, options in {(r.student.model, json.dumps(r.student.options)) for r in recipes}:
        with torch.device("meta"):
            create_backbone(model, json.loads(options))
    sources = {recipe.teacher.source for recipe in recipes if recipe.teacher}
    foreign = {source for source in sources if source not in load_catalog().teachers}
    assert foreign == {"vit_small_patch16_224.dino", "xcit_small_12_p16_224.fb_in1k"}
    assert foreign <= set(timm.list_pretrained())


@pytest.mark.parametrize("name", bundled_recipes())
def test_cost_counts_the_steps_that_the_recipe_takes(name: str) -> None:
    recipe = load_recipe(name)
    found = re.search(r"([\d,]+) steps of (\d+) images", recipe.cost)
    if name.startswith("in1k/"):
        assert found is not None
    if found is not None:
        steps = load_catalog().datasets[recipe.data.id].num_train // recipe.optim.batch_size * recipe.optim.epochs
        assert (found[1], int(found[2])) == (f"{steps:,}", recipe.optim.batch_size)


def test_figures_that_nobody_read_are_marked() -> None:
    """Targets repeat the catalog's figures where it has the row, and say the same of whether they were read."""
    for row in load_catalog().checkpoints.values():
        figure = row.reported_figure("linear_top1")
        if row.recipe and row.data == "in1k" and figure is not None:
            target = load_recipe(row.recipe).target
            assert f"linear top-1 {figure.value}" in target, row.name
            assert ("not verified" not in target) == figure.verified, row.name
