"""`disco-zoo plan`: figures that follow from others, what it prints, what it leaves alone, and bad input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from data_makers import encode
from method_runs import method_recipe, method_values
from slow_params import slow_but
from tiny import make_run_folder
from tiny_runs import toy_images, toy_parquet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from disco_zoo.cli import main
from disco_zoo.config.recipe import Recipe
from disco_zoo.core.console import duration
from disco_zoo.core.yaml_io import dump_yaml
from disco_zoo.errors import DiscoZooError
from disco_zoo.methods import METHODS
from disco_zoo.methods.base import Batch
from disco_zoo.plan import calibration, planning, types, words
from disco_zoo.plan.calibration import StepSeconds
from disco_zoo.plan.counters import CORRECTIONS, Flops
from disco_zoo.plan.device_speeds import DEPTHWISE_SLOWDOWN, DEVICE_SPEEDS, device_speed
from disco_zoo.plan.hours import (
    RunHours,
    Work,
    break_even_epochs,
    cache_plan,
    hours,
    speed_of_device,
    speed_of_steps,
)
from disco_zoo.plan.planning import plan_recipe
from disco_zoo.plan.stand_ins import NoiseSource, build_weightless, without_weights
from disco_zoo.plan.step_cost import empty_batch, mean_step_cost
from disco_zoo.plan.types import PlanOptions

pytestmark = pytest.mark.usefixtures("one_thread")

WORK = Work(
    images=1000,
    steps=400,
    epochs=40,
    batch_size=100,
    devices=2,
    flops=Flops(10, 20, 5, 60, 5),
    teacher_in_steps=True,
    teacher_views=2,
    teacher_view_flops=0.3,
    views_before=0,
)


@pytest.fixture(scope="module", autouse=True)
def counted_once() -> Iterator[None]:
    """A step of one recipe is counted, which takes seconds, once for all tests.

    How many images there are matters to a step only where a method has a memory of them all.
    """
    counted: dict[str, Any] = {}

    def once(recipe: Recipe, source: NoiseSource, images: int) -> Any:
        total = None if recipe.method["name"] == "disco" else len(source)
        key = f"{recipe.as_dict()} {total} {images}"
        if key not in counted:
            counted[key] = mean_step_cost(recipe, source, images)
        return counted[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "mean_step_cost", once)
        yield


@pytest.fixture(autouse=True)
def timed_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disco_zoo.plan.data_facts.TIMED_SECONDS", 0.02)


@pytest.fixture
def planned(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Plan a toy recipe of a method; return stdout."""
    monkeypatch.chdir(tmp_path)

    def run(method: str, *arguments: object, **changes: Any) -> str:
        path = tmp_path / f"{method}.yaml"
        path.write_text(dump_yaml(method_values(method, **changes)), encoding="utf-8")
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert main(["plan", str(path), *map(str, arguments)]) == 0
        assert sorted(tmp_path.rglob("*")) == before  # nothing is written
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("method", slow_but(METHODS, ["disco", "crd"]))
def test_every_method_costs_what_its_real_step_costs(method: str) -> None:
    recipe, needs_teacher = method_recipe(method), METHODS[method].needs_teacher
    plan = plan_recipe(recipe, PlanOptions(images=40, calibrate_steps=1))
    bare = without_weights(recipe)
    parts = build_weightless(bare, NoiseSource(40), "cpu")
    parts.method.train()
    empty = empty_batch(bare, parts, recipe.optim.batch_size)
    batch = Batch([torch.randint_like(view, 256) for view in empty.views], empty.index)
    if parts.teacher is not None:
        assert parts.teacher.folded is not None  # folding runs the teacher twice, once in a training
    with FlopCounterMode(display=False, custom_mapping=CORRECTIONS) as counter:
        parts.method(batch)["loss"].backward()
    assert plan.flops.total == counter.get_total_flops()

    flops, timed = plan.flops, plan.calibration
    assert (flops.teacher > 0) == needs_teacher == (plan.work.teacher_views > 0) == (plan.cache is not None)
    assert flops.student_backward > flops.student_forward > 0
    assert (flops.twin > 0) == (plan.parameters.twin > 0)
    assert plan.hours is not None
    assert timed is not None
    assert plan.hours.step_seconds == plan.hours.network_seconds == timed.plain > 0
    if needs_teacher:
        assert plan.cached_hours is not None
        assert plan.cached_hours.step_seconds == timed.replayed


def test_json_holds_what_the_tables_show(planned: Callable[..., str]) -> None:
    plan = json.loads(planned("disco", "--images", 40, "--calibrate", 1, "--json", "--device", "cpu"))
    assert (plan["images"], plan["work"]["steps"]) == (40, 2 * (40 // 8))
    assert plan["flops_total"] == plan["work"]["steps"] * sum(plan["flops"].values())
    assert plan["memory"]["tensors_bytes"] == sum(plan["memory"]["parts_bytes"].values())
    assert plan["loader_cores"] == pytest.approx(
        8 / plan["hours"]["step_seconds"] * plan["view_cost"]["seconds_per_image"]
    )


def test_tables_fit_100_columns_and_name_what_they_assume(planned: Callable[..., str]) -> None:
    shown = planned("disco", "--device-tflops", "a100", "--devices", 2, "--cores", 4, "--utilisation", 0.5)
    assert max(map(len, shown.splitlines())) <= 100
    text = " ".join(shown.split())
    for expected in (
        "50.0 k (the catalog's CIFAR-10)",
        "4 images on each of 2 devices",
        "student, backward",
        "EMA twin",
        "buckets of gradients",
        "19.5 TFLOP/s a device",
        "50%",
        "4 cores draw views",
        "one multiply-add is two",
    ):
        assert expected in text, expected


def test_a_plan_without_speeds_has_no_hours(planned: Callable[..., str]) -> None:
    plan = json.loads(planned("disco", "--json"))
    assert plan["hours"] is plan["cached_hours"] is plan["loader_cores"] is None
    assert any("--calibrate" in sentence for sentence in plan["assumptions"])


def test_data_are_counted_and_sampled(planned: Callable[..., str], tmp_path: Path) -> None:
    data = toy_parquet(tmp_path)
    plan = json.loads(planned("disco", "--data", data, "--json"))
    assert plan["images"] == 26
    assert plan["data_is_real"]
    files = [encode(image) for image in toy_images(26, seed=0)]  # as they are: smaller than a packed image
    assert plan["packed_bytes_per_image"] == pytest.approx(sum(map(len, files)) / 26)
    # As a sample of more.
    assert json.loads(planned("disco", "--data", data, "--images", 5000, "--json"))["images"] == 5000
    limited = json.loads(planned("disco", "--data", data, "--json", data__max_images=10))
    assert limited["images"] == 10


def test_an_extra_image_is_packed_once_however_often_an_epoch_shows_it(
    planned: Callable[..., str], tmp_path: Path
) -> None:
    """26 images and 4 times 12 small ones."""
    data = toy_parquet(tmp_path)
    (tmp_path / "extra").mkdir()
    extra = [encode(image) for image in toy_images(12, seed=2, side=8)]
    for number, content in enumerate(extra):
        (tmp_path / "extra" / f"{number:02}.png").write_bytes(content)
    changes = {"data__extra_source": str(tmp_path / "extra"), "data__extra_repeats": 4}
    plan = json.loads(planned("disco", "--data", data, "--json", **changes))
    assert (plan["images"], plan["distinct_images"]) == (26 + 4 * 12, 26 + 12)
    assert plan["packed_bytes"] == plan["packed_bytes_per_image"] * (26 + 12)
    sample = [*(encode(image) for image in toy_images(26, seed=0)), *extra]
    sizes = [len(sample[number * 38 // 32]) for number in range(32)]
    assert plan["packed_bytes_per_image"] == pytest.approx(sum(sizes) / 32)


def test_cache_of_a_plan_in_closed_form(planned: Callable[..., str]) -> None:
    plan = json.loads(
        planned("disco", "--images", 1000, "--set", "teacher.cache_views=4", "--device-tflops", 1, "--json")
    )
    width, cache = plan["target_width"], plan["cache"]
    assert cache["size_bytes"] == 1000 * 4 * (width * 2 + 4)
    assert cache["even_forwards_epochs"] == 2
    step, teacher = sum(plan["flops"].values()), plan["flops"]["teacher"]
    assert cache["build_flops"] == pytest.approx(1000 * 4 * teacher / 16)  # two views of eight images a step
    # The toy student, an EfficientNet, is slower by its depthwise convolutions; teacher and loss are not.
    loss, per_second = plan["flops"]["loss"], 1e12 * 0.4
    cached_step = (DEPTHWISE_SLOWDOWN * (step - teacher - loss) + loss) / per_second
    assert plan["hours"]["total_seconds"] == pytest.approx(250 * (cached_step + teacher / per_second))
    built = cache["build_flops"] / per_second
    assert plan["cached_hours"]["total_seconds"] == pytest.approx(250 * cached_step + built)
    # Of 125 steps of 8 images an epoch; loaders are taken to keep up, so only forwards count.
    assert plan["break_even_epochs"] == pytest.approx(built / (125 * teacher / per_second)) == pytest.approx(2)


def test_a_method_that_keeps_the_teachers_features_runs_it_once() -> None:
    recipe = method_recipe("compress_1q")
    recipe = recipe.model_copy(update={"method": {**recipe.method, "cached_teacher": True}})
    plan = plan_recipe(recipe, PlanOptions(images=40, device_tflops="1"))
    assert plan.flops.teacher == 0
    assert plan.cache is None
    assert plan.hours is not None
    assert plan.hours.before_seconds == pytest.approx(40 * plan.work.teacher_view_flops / 0.4e12) != 0


def test_a_teacher_that_answers_by_the_batch_cannot_be_cached() -> None:
    plan = plan_recipe(method_recipe("disco", teacher__bn_mode="train"), PlanOptions(images=40))
    assert plan.cache is None
    assert plan.flops.teacher > 0


def test_a_run_folder_and_a_start_from_a_file_need_no_training_data(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run")
    recipe = method_recipe("kd_mse", teacher__source=str(folder), teacher__image_size=32, student__init="inherit")
    plan = plan_recipe(recipe, PlanOptions(images=40))
    assert plan.parameters.teacher == 11_176_512  # ResNet-18 without a classifier
    assert plan.target_width == 512


def test_hours_in_closed_form() -> None:
    speed = speed_of_device(WORK, tflops=1e-12 * 10, utilisation=0.5)  # 10 FLOP/s on two devices
    assert speed.step_seconds == pytest.approx(10)
    assert speed.cached_step_seconds == pytest.approx(4)
    cache = cache_plan(WORK, 4, 128, num_views=2)
    assert (cache.size_bytes, cache.even_forwards_epochs) == (1000 * 4 * (128 * 2 + 4), 2)
    # Two big views, and with them three small crops.
    assert cache_plan(WORK, 4, 128, num_views=2, num_small=3).slots == 4 + 2 * 3
    assert hours(WORK, speed).total_seconds == pytest.approx(4000)
    assert hours(WORK, speed, cache).total_seconds == pytest.approx(400 * 4 + 1000 * 4 * 0.03)
    # Loaders that take 50 ms for an image hold up both, and the cache's build, which draws each view once, too.
    assert hours(WORK, speed, None, 0.05).total_seconds == pytest.approx(4000)
    assert hours(WORK, speed, cache, 0.05).total_seconds == pytest.approx(400 * 5 + 1000 * 4 * 0.03)
    assert hours(WORK, speed, cache, 0.2).total_seconds == pytest.approx(400 * 20 + 1000 * 2 * 0.2)
    # With companions a step's loaders draw two images for each, a cache's build one.
    pairs = replace(WORK, images_drawn=2)
    assert hours(pairs, speed, cache, 0.2).total_seconds == pytest.approx(400 * 20 + 1000 * 2 * 0.1)


def test_a_cache_pays_for_itself_when_it_has_saved_its_build() -> None:
    plain, cached = RunHours(10, 10, 50, 0), RunHours(4, 5, 170, 0)
    # The method's own 50 seconds are spent in both; 10 steps an epoch save 5 seconds each.
    assert break_even_epochs(WORK, plain, cached) == pytest.approx(120 / 50)
    assert break_even_epochs(WORK, plain, RunHours(4, 10, 170, 0)) is None


def test_loaders_put_off_the_day_on_which_a_cache_pays() -> None:
    speed, cache = speed_of_device(WORK, tflops=1e-12 * 10, utilisation=0.5), cache_plan(WORK, 4, 128, num_views=2)

    def epochs(loader_seconds: float) -> float | None:
        return break_even_epochs(
            WORK, hours(WORK, speed, None, loader_seconds), hours(WORK, speed, cache, loader_seconds)
        )

    assert epochs(0.0) == cache.even_forwards_epochs == 2
    assert epochs(0.08) == pytest.approx(1000 * 2 * 0.08 / (10 * (10 - 8)))  # the build waits for views, steps do, too
    assert epochs(0.1) is None  # ten seconds a step for its views: the teacher costs nothing


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "a count of its forwards alone"),
        (["--device-tflops", 1], "It has paid for itself after 2 epochs"),
        (["--device-tflops", 1e6, "--cores", 1], "It never pays for itself in this training"),
        (
            ["--device-tflops", 1, "--set", "optim.epochs=2", "--set", "teacher.cache_views=2"],
            "for itself after 1 epoch:",
        ),
    ],
)
def test_a_plan_says_when_a_cache_pays(planned: Callable[..., str], arguments: list[object], expected: str) -> None:
    cached = ("--images", 1000, "--set", "teacher.cache_views=4")
    plan = json.loads(planned("disco", *cached, *arguments, "--json"))
    assert any(expected in sentence for sentence in plan["assumptions"])
    assert (plan["break_even_epochs"] is None) == ("after" not in expected)
    table = planned("disco", *cached, *arguments)
    assert ("the cache has paid for itself" in table) == (plan["cached_hours"] is not None)
    assert ("never │" in table) == ("never" in expected)


def test_a_cache_that_pays_after_the_last_epoch_does_not_pay(
    planned: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(types, "break_even_epochs", lambda *_: 1234.5)
    arguments = ("--images", 1000, "--set", "teacher.cache_views=4", "--device-tflops", 1)
    assert "not in this run │" in planned("disco", *arguments)
    (sentence,) = (one for one in json.loads(planned("disco", *arguments, "--json"))["assumptions"] if "pay" in one)
    assert "does not pay for itself in this training: its build takes the hours that 1,234 epochs save." in sentence


def test_the_teachers_forward_is_what_a_step_with_it_takes_longer() -> None:
    speed = speed_of_steps(WORK, plain=10.0, replayed=4.0)
    assert (speed.step_seconds, speed.cached_step_seconds) == (10.0, 4.0)
    assert speed.teacher_view_seconds == pytest.approx(6.0 / 200)
    assert speed_of_steps(WORK, plain=10.0, replayed=None).teacher_view_seconds == 0


@pytest.mark.parametrize(
    ("text", "precision", "tflops"), [("400", "fp32", 400), ("A100", "bf16", 312), ("t4", "fp32", 8.1)]
)
def test_speeds_by_number_and_name(text: str, precision: str, tflops: float) -> None:
    assert device_speed(text, precision)[0] == tflops


def test_stated_speeds_name_their_source() -> None:
    assert all(0 < speed.fp32 < speed.half and "datasheet" in speed.source for speed in DEVICE_SPEEDS.values())


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (words.flops(6.64e10), "66.4 GFLOPs"),
        (words.flops(9.996e11), "1.00 TFLOPs"),
        (words.flops(12), "12.0 FLOPs"),
        (words.count(1281167), "1.28 M"),
        (words.count(5004), "5,004"),
        (words.count(2.56e8), "256 M"),
        (words.size(1536), "1.50 KiB"),
        (words.size(3 * 2**30), "3.00 GiB"),
        (words.size(12), "12 bytes"),
        (words.time(0.0381), "38.1 ms"),
        (words.time(40), "40.0 s"),
        (words.time(420), "7 min"),
        (words.time(7500), "2 h 05 min"),
        (words.time(3 * 86400 + 4 * 3600), "3 d 4 h"),
    ],
)
def test_numbers_for_people(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["disco_effb0.disko"], "unknown recipe"),
        (["toy.yaml", "--set", "data.id=custom"], "--images"),
        (["toy.yaml", "--set", "data.id=custom", "--data", "nowhere"], "no data at nowhere"),
        (["toy.yaml", "--images", "5"], "--set optim.batch_size=2"),
        (["toy.yaml", "--devices", "3"], "--set optim.batch_size=6"),
        (["toy.yaml", "--set", "method.temperature=-1"], "method.temperature"),
        (["toy.yaml", "--set", "teacher.source=hf-hub:someone/model"], "downloads nothing"),
        (["toy.yaml", "--set", "teacher.source=resnet5"], "Did you mean"),
        (["toy.yaml", "--set", "teacher.source=gone.pth"], "gone.pth"),
        (["toy.yaml", "--device-tflops", "a10"], "Did you mean 'a100'"),
        (["toy.yaml", "--device-tflops", "-3"], "above 0"),
        (["toy.yaml", "--set", "teacher.cache_views=6"], "teacher.cache_views=4"),
        (["toy.yaml", "--calibrate", "0"], "--calibrate"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(dump_yaml(method_values("disco")), encoding="utf-8")
    assert main(["plan", *arguments]) == 2
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert expected in errors[0]
    assert printed.out == ""
    assert os.listdir() == ["toy.yaml"]


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("disco", {}, "2 steps of 8 images and 3 to warm up, each with the teacher's forward and without it,"),
        ("moco_v2", {"student__image_sizes": {"0": 16, "1": 32}}, "3 to warm up at each of 2 image sizes from random"),
    ],
)
def test_a_calibration_says_what_it_does_and_how_long_before_it_starts(
    method: str, changes: Any, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []

    def starts(*_: Any, **__: Any) -> StepSeconds:
        said.append(capsys.readouterr().err)
        return StepSeconds(2, 1.0, 0.5 if method == "disco" else None)

    monkeypatch.setattr(planning, "time_steps", starts)
    monkeypatch.setattr(calibration, "probe_tflops", lambda device: 1e-6)
    plan = plan_recipe(method_recipe(method, **changes), PlanOptions(images=40, calibrate_steps=2))
    (text,) = said
    assert text.startswith("Calibration on cpu: 2 steps of 8 images and 3 to warm up")
    assert words in text
    speed = speed_of_device(plan.work, 1e-6, 0.4)
    seconds = 5 * (speed.step_seconds + (speed.cached_step_seconds if method == "disco" else speed.step_seconds))
    assert text.endswith(f"very roughly {duration(seconds)}, by FLOPs\n")


def test_a_calibration_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disco_zoo.plan.calibration.available_bytes", lambda: 2**20)
    with pytest.raises(DiscoZooError, match=r"needs .* MiB, 1.00 MiB are free.*--devices \d+"):
        plan_recipe(method_recipe("moco_v2"), PlanOptions(images=40, calibrate_steps=1))


def test_checkpointed_gradients_cost_less_memory_and_more_work(planned: Callable[..., str]) -> None:
    plain, spared = (
        json.loads(
            planned(
                "moco_v2", "--images", 64, "--json", student__model="resnet18", student__gradient_checkpointing=wanted
            )
        )
        for wanted in (False, True)
    )
    parts = [plan["memory"]["parts_bytes"]["activations"] for plan in (plain, spared)]
    assert parts[1] < 0.8 * parts[0]
    again = spared["flops"]["student_backward"] - plain["flops"]["student_backward"]
    assert 0.7 * plain["flops"]["student_forward"] < again <= plain["flops"]["student_forward"]


@pytest.mark.slow
def test_a_frozen_teacher_with_batch_norm_is_there_twice(planned: Callable[..., str]) -> None:
    frozen, training = (
        json.loads(planned("disco", "--images", 64, "--json", teacher__source="resnet18", teacher__bn_mode=mode))
        for mode in ("eval", "train")
    )
    convolutions = sum(
        module.weight.nbytes for module in timm.create_model("resnet18").modules() if isinstance(module, nn.Conv2d)
    )
    once, twice = (plan["memory"]["parts_bytes"]["teacher"] for plan in (training, frozen))
    assert twice - once == convolutions
