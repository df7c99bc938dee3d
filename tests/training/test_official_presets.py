"""`preset: official`, key by key: each quirk of the authors' code in numbers, and the default that it replaces.

One check a key of every OFFICIAL, on networks that were built from a recipe file with the preset in it.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from method_runs import method_values
from slow_params import slow_but
from tiny import write_moco_checkpoint
from tiny_runs import BATCH_SIZE, differences, toy_parquet, train
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.config.recipe import Recipe, load_recipe
from disco_zoo.core.yaml_io import dump_yaml
from disco_zoo.errors import BadRecipe
from disco_zoo.methods import METHODS, bingo, rkd
from disco_zoo.methods.base import Batch
from disco_zoo.methods.rkd import distance_loss
from disco_zoo.models.teacher_source import load_teacher_source
from disco_zoo.modules.momentum_contrast import FeatureQueue
from disco_zoo.training import build
from disco_zoo.training.build import Parts, build_parts
from disco_zoo.training.pretraining import Pretraining
from disco_zoo.training.run_data import open_data

pytestmark = pytest.mark.usefixtures("one_thread")

OFFICIAL_METHODS = [name for name, method in METHODS.items() if method.OFFICIAL]
WITH_TEACHER = [name for name in OFFICIAL_METHODS if METHODS[name].needs_teacher]
QUEUE_SIZE = 32  # of the teacher's file


class Case:
    """A method under both presets, and what it makes of the same views."""

    def __init__(self, method: str, folder: Path, data: Path, moco_file: Path) -> None:
        self.method, self.folder, self.data, self.moco_file = method, folder, data, moco_file
        generator = torch.Generator().manual_seed(5)
        self.index = torch.arange(BATCH_SIZE)
        recipe, sides = self.recipe("official"), [48 if method in ("disco_swav", "swav") else 32] * 4
        count = METHODS[method].num_views * (2 if METHODS[method].takes_companions else 1)
        sides = sides[:count] + [32] * recipe.views["small_views"]
        shapes = [(BATCH_SIZE, 3, side, side) for side in sides]
        self.views = [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes]

    def recipe(self, preset: str, *overrides: str) -> Recipe:
        values = method_values(self.method)
        values["preset"] = preset
        if METHODS[self.method].needs_teacher:
            values["teacher"] |= {"source": str(self.moco_file)}
        if self.method == "rkd":
            values["method"] |= {"distill_weight": 1.0}
        if self.method == "seed":
            values["views"] = {"recipe": "moco_v2"}
            values["student"]["image_size"] = values["teacher"]["image_size"] = 32
        if "queue_size" in values["method"] and self.method not in ("swav", "disco_swav"):
            # Memories of CompRess hold no more than the images that there are.
            values["method"]["queue_size"] = 20 if self.method.startswith("compress") else QUEUE_SIZE
        values["method"].pop("centre_teacher", None)
        path = self.folder / f"{preset}.yaml"
        path.write_text(dump_yaml(values))
        return load_recipe(str(path), overrides)

    def parts(self, preset: str, *overrides: str) -> Parts:
        recipe = self.recipe(preset, *overrides)
        return build_parts(recipe, open_data(recipe, str(self.data)).train)

    def losses(self, parts: Parts) -> dict[str, float]:
        found = parts.method.train()(Batch([view.clone() for view in self.views], self.index))
        return {name: value.item() for name, value in found.items()}


def check_train_mode_teacher(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q1: targets follow the batch, and running statistics move towards it by BatchNorm's momentum of 0.1."""
    for preset, drifts in (("official", True), ("fixed", False)):
        teacher = case.parts(preset).teacher
        assert teacher is not None
        norm, seen = teacher.backbone.bn1, []
        before, encoder = norm.running_mean.clone(), copy.deepcopy(teacher.encoder).train(drifts)
        norm.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].detach()))
        targets = teacher(case.views[0])
        assert torch.allclose(targets, encoder.head(encoder.features(case.views[0])), atol=1e-5)
        assert torch.allclose(targets[:4], teacher(case.views[0][:4]), atol=1e-4) != drifts
        mean = seen[0].mean(dim=(0, 2, 3))
        second = seen[1].mean(dim=(0, 2, 3)) if drifts else mean
        expected = 0.9 * (0.9 * before + 0.1 * mean) + 0.1 * second if drifts else before
        assert torch.allclose(norm.running_mean, expected, atol=1e-5)
        assert torch.equal(norm.running_mean, before) != drifts


def check_sum(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q2: a sum over the process's images, so its weight grows with their number."""
    official, mean = (
        case.losses(case.parts("official", "teacher.bn_mode=eval", f"method.distill_reduction={reduction}"))
        for reduction in ("sum", "mean")
    )
    assert official["distill"] == pytest.approx(BATCH_SIZE * mean["distill"], rel=1e-5)
    assert case.recipe("fixed").method["distill_reduction"] == "mean"


def check_disco_weight(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q2: the sum with a weight of 1; the default of 32 stands for 32 images a process."""
    official, fixed = (case.losses(case.parts(preset)) for preset in ("official", "fixed"))
    assert official["loss"] == pytest.approx(official["contrast"] + official["distill"], rel=1e-5)
    assert fixed["loss"] == pytest.approx(fixed["contrast"] + 32 * fixed["distill"], rel=1e-5)


def check_teachers_queue(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q3: the first negatives are the teacher's."""
    stored = torch.load(case.moco_file, weights_only=True)["state_dict"]["module.queue"].T
    official, fixed = (case.parts(preset).method.contrast.queue.rows for preset in ("official", "fixed"))
    assert torch.equal(official, stored)
    assert not torch.isclose(fixed, stored).any(dim=1).all()


def check_local_relations(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q2: pairs inside the process's share; as if another process had the same number of other images."""
    others = F.normalize(torch.randn(BATCH_SIZE, 128, generator=torch.Generator().manual_seed(1)), dim=1)
    for name in ("gather_rows", "gather_rows_with_grad"):
        monkeypatch.setattr(rkd, name, lambda rows: torch.cat([rows, others.to(rows.dtype)]))
    for preset, joint in (("official", False), ("fixed", True)):
        parts = case.parts(preset, "teacher.bn_mode=eval")
        assert parts.teacher is not None
        rows = [F.normalize(parts.teacher(case.views[0]), dim=1), parts.student.train()(case.views[0])]
        rows = [torch.cat([own, others]) for own in rows] if joint else rows
        expected = distance_loss(rows[1], rows[0]).item()
        parts = case.parts(preset, "teacher.bn_mode=eval")  # BatchNorm as it was
        assert case.losses(parts)["distance"] == pytest.approx(expected, abs=1e-6)


def check_one_hot_teacher(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q9: at 1e-4 the teacher's distribution is its own column, and SEED is InfoNCE against the teacher's key."""
    found = []
    for preset in ("official", "fixed"):
        parts = case.parts(preset)
        assert parts.teacher is not None
        own = F.normalize(parts.teacher(case.views[0]), dim=1)
        queue = parts.method.big.queue.rows.clone()
        rows = case.parts(preset).student.train()(case.views[0])
        logits = torch.cat([(rows * own).sum(dim=1, keepdim=True), rows @ queue.T], dim=1) / 0.2
        info_nce = F.cross_entropy(logits, torch.zeros(BATCH_SIZE, dtype=torch.long)).item()
        found.append((case.losses(parts)["loss"], info_nce, case.recipe(preset).method["teacher_temperature"]))
    assert found[0][2] == 1e-4
    assert found[0][0] == pytest.approx(found[0][1], abs=1e-5)
    assert found[1][2] == 0.01


def check_box_of_each_process(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """spec 2.6: one box and one λ for each process's batch."""
    kept = {}
    for preset in ("official", "fixed"):
        for process in (0, 1):
            monkeypatch.setattr(bingo, "rank", lambda process=process: process)
            parts = case.parts(preset)
            kept[preset, process] = [case.losses(parts)["kept"] for _ in range(3)]
    assert kept["official", 0] != kept["official", 1]
    assert kept["fixed", 0] == kept["fixed", 1]


def check_crd_weight(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """β of the CRD row."""
    official, fixed = (case.losses(case.parts(preset)) for preset in ("official", "fixed"))
    assert official["loss"] == pytest.approx(0.8 * (official["student"] + official["teacher"]), rel=1e-6)
    assert official["loss"] == pytest.approx(0.8 * fixed["loss"], rel=1e-6)


def check_red_deviation(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q24: pixels of the red channel are divided by .228; the others' by .224 and .225 in both presets."""
    ratios = []
    for preset in ("official", "fixed"):
        student, seen = case.parts(preset).student, []
        student.backbone.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        student.eval()(case.views[0])
        shifted = case.views[0].double() / 255 - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        ratios.append((shifted / seen[0].double()).transpose(0, 1).flatten(1).nanmedian(dim=1).values)
    for found, red in zip(ratios, (0.228, 0.229), strict=True):
        assert torch.allclose(found, torch.tensor([red, 0.224, 0.225], dtype=torch.float64), atol=1e-5)


def check_teachers_red_deviation(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q24: the teacher sees the student's pixels; by default those that its own file is fed with."""
    for preset, red in (("official", 0.228), ("fixed", 0.229)):
        teacher, seen = case.parts(preset).teacher, []
        hook = teacher.backbone.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].double()))
        teacher.encoder.features(case.views[0])
        hook.remove()
        shifted = case.views[0].double() / 255 - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        assert torch.allclose(shifted[:, 0], seen[0][:, 0] * red, atol=1e-5)


def check_second_forward(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The running mean of the first BatchNorm after one step: moved once by each view that the student has seen."""
    for preset, views in (("official", 2), ("fixed", 1)):
        parts = case.parts(preset, "method.distill_weight=0")
        method = parts.method
        norm, means = next(m for m in method.student.modules() if isinstance(m, nn.BatchNorm2d)), []
        hook = norm.register_forward_pre_hook(lambda _, given, means=means: means.append(given[0].mean((0, 2, 3))))
        expected = norm.running_mean.clone()
        assert set(case.losses(parts)) == {"loss", "contrast", "distance", "angle"}
        hook.remove()
        assert len(means) == views
        for mean in means:
            expected = 0.9 * expected + 0.1 * mean
        assert torch.allclose(norm.running_mean, expected, atol=1e-6)


def swav_targets(case: Case, preset: str) -> tuple[dict[str, float], Tensor, Tensor]:
    """Losses, and the student's and the teacher's rows of all views under BatchNorm in eval."""
    parts = case.parts(preset)
    assert parts.teacher is not None
    small = parts.method.crops.teacher_size
    sizes = [None, None, *[small] * (len(case.views) - 2)]
    teacher = torch.cat([parts.teacher(view, size) for view, size in zip(case.views, sizes, strict=True)])
    student = torch.cat([parts.student.eval()(view, size) for view, size in zip(case.views, sizes, strict=True)])
    found = parts.method.eval()(Batch([view.clone() for view in case.views], case.index))
    return {name: value.item() for name, value in found.items()}, student, teacher


def check_swav_distillation(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q7: raw teacher rows, a mean over all numbers, halved; by default unit rows, and the sum over each row."""
    losses, student, teacher = swav_targets(case, "official")
    assert losses["distill"] == pytest.approx((teacher - student).pow(2).mean().item(), rel=1e-5)
    assert losses["loss"] == pytest.approx(losses["swapped"] + 0.5 * losses["distill"], rel=1e-6)
    assert not torch.allclose(teacher.norm(dim=1), torch.ones(len(teacher)), atol=0.01)
    losses, student, teacher = swav_targets(case, "fixed")
    expected = (F.normalize(teacher, dim=1) - student).pow(2).sum(dim=1).mean().item()
    assert losses["distill"] == pytest.approx(expected, rel=1e-5)
    assert losses["loss"] == pytest.approx(losses["swapped"] + losses["distill"], rel=1e-6)


def check_last_batch(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """spec 2.7: the 26 images of two epochs are 3 batches of 8 and one of 2, and the memories take them all."""
    for preset, steps, left_over in (("official", 4, 2), ("fixed", 3, 0)):
        recipe = case.recipe(preset, "method.queue_size=20", "teacher.bn_mode=eval")
        written = []
        monkeypatch.setattr(FeatureQueue, "write", lambda _, keys, written=written: written.append(len(keys)))
        saved = train(recipe, case.data, case.folder / f"{preset}_run")
        assert saved["position"]["step"] == 2 * steps
        memories = 1 if case.method == "compress_1q" else 2
        sizes = [8, 8, 8] + [left_over] * bool(left_over)
        assert written == [size for size in sizes * 2 for _ in range(memories)]
        in1k = load_recipe("in1k/disco_r18.compress_mocov2_r50_in1k", [f"preset={preset}"])
        assert in1k.optim.steps_per_epoch(1_281_167) == (5005 if left_over else 5004)


CHECKS: dict[tuple[str, str], Callable[[Case, pytest.MonkeyPatch], None]] = {
    ("bingo", "method.cutmix_box"): check_box_of_each_process,
    ("bingo", "teacher.bn_mode"): check_train_mode_teacher,
    ("compress_1q", "optim.last_batch"): check_last_batch,
    ("compress_2q", "optim.last_batch"): check_last_batch,
    ("compress_2q_momentum", "optim.last_batch"): check_last_batch,
    ("crd", "method.distill_weight"): check_crd_weight,
    ("disco", "method.distill_reduction"): check_sum,
    ("disco", "method.distill_weight"): check_disco_weight,
    ("disco", "method.queue_init"): check_teachers_queue,
    ("disco", "teacher.bn_mode"): check_train_mode_teacher,
    ("disco_swav", "method.distill_reduction"): check_swav_distillation,
    ("disco_swav", "method.distill_weight"): check_swav_distillation,
    ("disco_swav", "method.normalise_teacher"): check_swav_distillation,
    ("disco_swav", "student.std"): check_red_deviation,
    ("disco_swav", "teacher.std"): check_teachers_red_deviation,
    ("rkd", "method.both_views"): check_second_forward,
    ("rkd", "method.distill_reduction"): check_sum,
    ("rkd", "method.queue_init"): check_teachers_queue,
    ("rkd", "method.relations"): check_local_relations,
    ("rkd", "teacher.bn_mode"): check_train_mode_teacher,
    ("seed", "method.teacher_temperature"): check_one_hot_teacher,
    ("swav", "student.std"): check_red_deviation,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def moco_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 teacher with a head of 128 numbers and a queue of its own."""
    return write_moco_checkpoint(tmp_path_factory.mktemp("teacher") / "moco.pth.tar")


@pytest.fixture(autouse=True)
def one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher's file is read once; each network gets a copy."""
    monkeypatch.setattr(build, "load_teacher_source", lambda source, pretrained: copy.deepcopy(_read(source)))


@functools.cache
def _read(source: str) -> Any:
    return load_teacher_source(source)


def test_every_official_key_has_a_check() -> None:
    assert set(CHECKS) == {(name, path) for name in OFFICIAL_METHODS for path in METHODS[name].OFFICIAL}


# One check proves all three keys of DisCo-SwAV, and one method the last batch of all memories.
SAME_AGAIN = [
    ("disco_swav", "method.distill_weight"),
    ("disco_swav", "method.normalise_teacher"),
    ("compress_1q", "optim.last_batch"),
    ("compress_2q_momentum", "optim.last_batch"),
]


@pytest.mark.parametrize(("method", "path"), slow_but(CHECKS, CHECKS.keys() - SAME_AGAIN))
def test_official_repeats_the_quirk_and_fixed_does_not(
    method: str, path: str, data: Path, moco_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(method, tmp_path, data, moco_file)
    section, key = path.split(".")
    official, fixed = (case.recipe(preset).as_dict()[section][key] for preset in ("official", "fixed"))
    assert official == METHODS[method].OFFICIAL[path]
    assert official != fixed
    CHECKS[method, path](case, monkeypatch)


# That nothing drifts in the fixed preset, all methods prove in tests/methods/test_every_method.py.
STATISTICS = itertools.product(WITH_TEACHER, ("official", "fixed"))
DRIFTING = [(name, "official") for name in WITH_TEACHER if "teacher.bn_mode" in METHODS[name].OFFICIAL]


@pytest.mark.parametrize(
    ("method", "preset"), slow_but(STATISTICS, [*DRIFTING, ("disco", "fixed"), ("seed", "official")])
)
def test_teachers_statistics_drift_in_training_only_where_the_official_code_lets_them(
    method: str, preset: str, data: Path, moco_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    former = Pretraining.__init__

    def look(task: Pretraining, recipe: Any, parts: Any, *rest: Any, **options: Any) -> None:
        state = parts.teacher.encoder.state_dict()
        kept.append(({key: value.clone() for key, value in state.items()}, parts.teacher.encoder))
        former(task, recipe, parts, *rest, **options)

    monkeypatch.setattr(Pretraining, "__init__", look)
    train(Case(method, tmp_path, data, moco_file).recipe(preset), data, tmp_path / "run", steps=2)
    ((before, encoder),) = kept
    changed = differences(before, encoder.state_dict())
    buffers = {f"/{name}" for name, _ in encoder.named_buffers()}
    drifts = preset == "official" and METHODS[method].OFFICIAL.get("teacher.bn_mode") == "train"
    assert set(changed) == (buffers if drifts else set())
    assert encoder.training == drifts


def test_the_weight_of_32_on_top_of_the_sum_over_32_is_refused(data: Path, moco_file: Path, tmp_path: Path) -> None:
    case = Case("rkd", tmp_path, data, moco_file)
    text = (tmp_path / "official.yaml").read_text()
    (tmp_path / "official.yaml").write_text(text.replace("distill_weight: 1.0", "distill_weight: 32.0"))
    with pytest.raises(BadRecipe, match=r"at a weight of 1, not 32\.0\. Type: --set method\.distill_weight=1"):
        load_recipe(str(tmp_path / "official.yaml"))
    kept = load_recipe(str(tmp_path / "official.yaml"), ["method.distill_reduction=mean"])
    assert kept.method["distill_weight"] == 32.0
    assert case.recipe("official").method["distill_weight"] == 1.0
