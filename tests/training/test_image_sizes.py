"""Progressive resizing: which step sees which size, the same bits after a resume, and one cache for all sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cache_runs import build, cache_of, cached_recipe
from slow_params import slow_but
from tiny_runs import (
    STEPS_PER_EPOCH,
    checkpoint_of,
    differences,
    toy_parquet,
    toy_recipe,
    toy_recipe_file,
    toy_values,
    train,
)
from torch import nn

from disco_zoo.cli import main
from disco_zoo.config.recipe import load_recipe, parse_recipe
from disco_zoo.errors import BadRecipe
from disco_zoo.models.encoder import Encoder, resized
from disco_zoo.plan.stand_ins import NoiseSource, without_weights
from disco_zoo.plan.step_cost import mean_step_cost, step_cost
from disco_zoo.training.build import seeded_teacher
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.step_settings import ImageSizes, recipes_by_size

pytest_plugins = ("cache_fixtures",)
pytestmark = pytest.mark.usefixtures("one_thread", "own_caches")

SCHEDULE = {"0": 16, "1": [16, 32]}


def sized_recipe(method: str = "disco", **changes: Any) -> Any:
    return toy_recipe(method, **{"student__image_sizes": SCHEDULE, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def straight(one_thread: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Undisturbed runs: `sized` by the schedule, and `plain`."""
    folder = tmp_path_factory.mktemp("straight")
    train(sized_recipe(), data, folder / "sized")
    train(toy_recipe(), data, folder / "plain")
    return folder


def test_steps_take_the_sizes_of_their_phase_in_turn() -> None:
    sizes = ImageSizes(toy_recipe(student__image_sizes={"0": 16, "0.5": [24, 32]}), steps_per_epoch=5)
    # Phase two begins at step round(2.5) = 2, half to even; turns count from step 0.
    assert [sizes.at(step) for step in range(10)] == [16, 16, 24, 32, 24, 32, 24, 32, 24, 32]
    assert sizes.shares() == pytest.approx({16: 0.2, 24: 0.4, 32: 0.4})


def test_without_a_schedule_each_step_has_the_one_size() -> None:
    sizes = ImageSizes(toy_recipe(), steps_per_epoch=3)
    assert {sizes.at(step) for step in range(6)} == {32}
    assert sizes.shares() == {32: 1.0}
    assert toy_recipe().digest() == parse_recipe(toy_values(), origin="again").digest()
    assert "image_sizes" not in toy_recipe().decisive()["student"]  # runs begun before go on


def test_student_and_its_ema_copy_look_at_the_size_of_the_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []
    plain = Encoder.features

    def noting(self: Encoder, views: torch.Tensor, size: int | None = None) -> torch.Tensor:
        if self.backbone.training:  # student and EMA copy train, the teacher does not
            seen.append((next(self.parameters()).requires_grad, size or self.image_size))
        return plain(self, views, size)

    monkeypatch.setattr(Encoder, "features", noting)
    train(sized_recipe(), data, tmp_path / "run")
    assert STEPS_PER_EPOCH == 3
    steps = [16, 16, 16, 32, 16, 32]
    for trained in (True, False):
        per_step = len([size for flag, size in seen if flag is trained]) // len(steps)
        assert [size for flag, size in seen if flag is trained] == [size for size in steps for _ in range(per_step)]


def test_a_smaller_size_is_the_reduced_view(data: Path) -> None:
    """What the student gets at 16 px is the 32-px view, reduced with antialiasing."""
    got: list[torch.Tensor] = []

    class Keep(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            got.append(images)
            return images.mean(dim=(2, 3))

    encoder = Encoder(Keep(), nn.Identity(), image_size=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    views = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    encoder.image_size = 16
    encoder.features(views)
    torch.testing.assert_close(got[0], resized(views, 16) / 255)


@pytest.mark.parametrize("stop", slow_but([2, 3, 4, 5], [4]), ids=lambda step: f"at_step_{step}")
def test_a_resumed_run_equals_a_straight_one(stop: int, data: Path, straight: Path, tmp_path: Path) -> None:
    train(sized_recipe(), data, tmp_path / "run", steps=stop)
    resumed = train(sized_recipe(), data, tmp_path / "run", resume=True)
    assert differences(resumed, checkpoint_of(straight / "sized")) == []


def test_the_schedule_changes_what_is_learned(straight: Path) -> None:
    sized, plain = (checkpoint_of(straight / name)["method"] for name in ("sized", "plain"))
    assert differences(sized, plain)


def test_views_and_teacher_cache_do_not_depend_on_the_schedule(data: Path) -> None:
    plain, sized = cached_recipe(), cached_recipe(student__image_sizes={"0": 16, "2": 32})
    assert plain.view_size == sized.view_size == 32
    assert cache_of(build(plain, data)).path == cache_of(build(sized, data)).path


def test_a_record_says_at_which_size_it_trained(straight: Path) -> None:
    sizes = [row.get("image_size") for row in read_metrics(straight / "sized") if "loss" in row]
    assert sizes == [16, 16, 16, 32, 16, 32]
    assert all("image_size" not in row for row in read_metrics(straight / "plain"))


def test_a_plan_counts_each_size_by_its_share() -> None:
    bare = without_weights(toy_recipe("moco_v2", student__image_sizes={"0": 16, "1": [16, 32]}))
    source = NoiseSource(80)  # 10 steps an epoch: 15 of 20 at 16 px
    assert [(one.student.image_size, share) for one, share in recipes_by_size(bare, 80)] == [(16, 0.75), (32, 0.25)]
    small, large = (
        step_cost(without_weights(toy_recipe("moco_v2", student__image_size=size)), source, 8) for size in (16, 32)
    )
    mean = mean_step_cost(bare, source, 8)
    assert large.flops.student_forward > 3 * small.flops.student_forward
    for kind in ("student_forward", "student_backward", "twin"):
        expected = 0.75 * getattr(small.flops, kind) + 0.25 * getattr(large.flops, kind)
        assert getattr(mean.flops, kind) == pytest.approx(expected, rel=1e-6)
    assert sum(mean.peak_bytes.values()) >= sum(large.peak_bytes.values())


FAULTS = {
    "an epoch twice": ({"0": 32, "0.0": 64}, {}, "student.image_sizes: an epoch stands twice"),
    "no epoch 0": ({"1": 32}, {}, "student.image_sizes: must begin at epoch 0, not 1"),
    "too late": ({"0": 16, "2": 32}, {}, "student.image_sizes: epoch 2 never comes: there are 2, counted from 0"),
    "another end": ({"0": 32, "1": 24}, {}, "ends at 24 px, but student.image_size is 32. Type: --set student.image_"),
    "too small": ({"0": 8, "1": 32}, {}, r"student.image_sizes.0.0: input should be greater than or equal to 16"),
    "no size": ({"0": [], "1": 32}, {}, "student.image_sizes.0: list should have at least 1 item"),
    "no epoch": ({"0": 16, "later": 32}, {}, "unable to parse string as a number"),
    "not a map": ([16, 32], {}, "student.image_sizes: input should be an object"),
    "small crops": (
        {"0": 16, "1": 32},
        {
            "method": {"name": "seed", "queue_size": 20},
            "views__small_views": 2,
            "teacher": {"source": "test_resnet", "pretrained": False},
        },
        "student.image_sizes: not together with views.small_views",
    ),
}


@pytest.mark.parametrize(("schedule", "changes", "message"), FAULTS.values(), ids=FAULTS)
def test_a_schedule_that_does_not_fit_is_refused_in_one_line(schedule: Any, changes: Any, message: str) -> None:
    values = toy_values("moco_v2", student__image_sizes=schedule)
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            values[section][key] = value
        else:
            values[section] = value
    with pytest.raises(BadRecipe, match=message) as error:
        parse_recipe(values, origin="toy")
    assert "\n" not in str(error.value)


def test_too_few_steps_for_a_size_are_said_before_the_first_step(data: Path, tmp_path: Path) -> None:
    recipe = toy_recipe(student__image_sizes={"0": 16, "0.1": 24, "0.2": [24, 32]})
    with pytest.raises(BadRecipe, match=r"student.image_sizes: 0 steps are left for 16 px in 2 epochs of 3\. Give"):
        train(recipe, data, tmp_path / "run")


def test_the_schedule_may_be_typed_on_the_command_line(data: Path, tmp_path: Path) -> None:
    recipe = toy_recipe_file(tmp_path, "moco_v2")
    typed = ["train", str(recipe), "--data", str(data), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*typed, "--workers", "0", "--set", "student.image_sizes={0: 16, 1.5: [16, 32]}"]) == 0
    written = load_recipe(str(tmp_path / "run" / "recipe.yaml"))
    assert written.student.image_sizes == {0.0: [16], 1.5: [16, 32]}


def test_a_size_that_a_network_cannot_take_is_refused_before_the_first_step(data: Path, tmp_path: Path) -> None:
    recipe = toy_recipe("moco_v2", student__model="test_vit", student__image_sizes={"0": 20, "1": 32})
    with pytest.raises(BadRecipe, match="test_vit cannot look at 20 pixels"):
        train(recipe, data, tmp_path / "run")


def test_views_may_be_drawn_smaller_than_the_teacher_looks_at_them(data: Path, tmp_path: Path) -> None:
    """At the images' own 16 px, for a student of 16: nothing is enlarged and then reduced."""
    changes = {"student__image_size": 16, "views__size": 16, "optim__epochs": 3}
    recipe = cached_recipe(**changes)
    assert recipe.view_size == 16
    assert recipe.teacher_size == 32
    replay = build(recipe, data)
    item = replay.epoch(0, None)[3]
    assert [tuple(view.shape) for view in item["views"]] == [(3, 16, 16)] * 2
    teacher = seeded_teacher(recipe, "cpu")
    assert teacher is not None
    enlarged = resized(item["views"][0][None], 32)
    torch.testing.assert_close(teacher(enlarged).half()[0], item["targets"][0], rtol=2**-9, atol=2e-3)
    assert train(recipe, data, tmp_path / "run")["position"]["step"] == 9


def test_without_a_size_of_their_own_recipes_are_what_they_were() -> None:
    assert "size" not in toy_recipe().decisive()["views"]
    assert toy_recipe(views__size=16).digest() != toy_recipe().digest()
    values = toy_values("seed", views__size=32, views__small_views=2, method__momentum=None)
    del values["method"]["momentum"]
    values["teacher"] = {"source": "test_resnet", "pretrained": False}
    with pytest.raises(BadRecipe, match=r"views.size: not together with views.small_views"):
        parse_recipe(values, origin="toy")


def test_a_view_drawn_larger_than_its_image_reaches_a_small_student_blurred() -> None:
    """Why `views.size` is there: 64 px drawn at 160 and reduced lose the finest detail that measuring shows."""
    stripes = (torch.arange(64) % 2 * 255).to(torch.uint8).expand(1, 3, 64, 64)
    blurred = resized(resized(stripes, 160).round().to(torch.uint8), 64)
    contrast = [float(part[..., 8:-8].float().std()) for part in (stripes, blurred)]
    assert contrast[1] < 0.6 * contrast[0]
