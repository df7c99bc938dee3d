"""Keys of `optim` and `student` that need or exclude each other."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import optim_section
from tiny_runs import toy_values

from disco_zoo.config.optim import require_batches
from disco_zoo.config.recipe import load_recipe
from disco_zoo.errors import BadRecipe


def values(section: str, **changes: Any) -> dict[str, Any]:
    """A recipe's values with changed keys of one section."""
    base = toy_values("disco")
    base["optim"]["schedule"] = "cosine_epoch"
    base["student"].pop("head_hidden_dim")
    return {**base, section: {**base[section], **changes}}


def write(tmp_path: Path, content: dict[str, Any] | str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def message(tmp_path: Path, content: dict[str, Any]) -> str:
    with pytest.raises(BadRecipe) as error:
        load_recipe(write(tmp_path, content))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (
            {"momentum": 0.8, "optimizer": "adamw"},
            "optim.momentum: belongs to optimizer sgd or larc or lars, not adamw",
        ),
        (
            {"schedule": "multistep", "gamma": 0.2},
            "missing key 'optim.milestones_epochs' (schedule multistep needs it)",
        ),
        (
            {"schedule": "multistep", "milestones_epochs": [1]},
            "missing key 'optim.gamma' (schedule multistep needs it)",
        ),
        ({"gamma": 0.2}, "optim.gamma: belongs to schedule multistep, not cosine_epoch; leave it out or write null"),
        ({"milestones_epochs": [1]}, "optim.milestones_epochs: belongs to schedule multistep, not cosine_epoch"),
        ({"schedule": "multistep", "gamma": 0.2, "milestones_epochs": [2, 1]}, "must grow, not [2, 1]"),
        ({"schedule": "multistep", "gamma": 0.2, "milestones_epochs": [1, 1]}, "must grow, not [1, 1]"),
        ({"schedule": "multistep", "gamma": 0.2, "milestones_epochs": []}, "optim.milestones_epochs: "),
        ({"schedule": "multistep", "gamma": 0.2, "milestones_epochs": [0]}, "optim.milestones_epochs.0: "),
        (
            {"schedule": "multistep", "gamma": 0, "milestones_epochs": [1]},
            "optim.gamma: input should be greater than 0",
        ),
        (
            {"schedule": "constant", "final_lr_fraction": 0.1},
            "optim.final_lr_fraction: belongs to schedule cosine_epoch or cosine_step, not constant",
        ),
        ({"final_lr_fraction": 1.5}, "optim.final_lr_fraction: input should be less than or equal to 1"),
        ({"warmup_start_fraction": 0.1}, "optim.warmup_start_fraction: needs optim.warmup_epochs above 0"),
        (
            {"schedule": "constant", "restarts": {1: 0.5}},
            "optim.restarts: belongs to schedule cosine_epoch or cosine_step",
        ),
        (
            {"restarts": {2: 0.5}, "epochs": 2},
            "optim.restarts: must lie after 0 epochs of warm-up and before the end, 2",
        ),
        ({"restarts": {1: 0.5}, "warmup_epochs": 1}, "not at 1. Type: --set optim.restarts={}"),
        ({"restarts": {1: 0.1}, "final_lr_fraction": 0.1}, "0.1 at epoch 1 is not above final_lr_fraction 0.1"),
        ({"restarts": {1: 1.5}}, "optim.restarts.1: input should be less than or equal to 1"),
        ({"restarts": {1: "half"}}, "optim.restarts.1: input should be a valid number"),
        ({"restarts": {"one": 0.5}}, "optim.restarts.one"),
        ({"restarts": {"01": 0.5, 1: 0.3}, "epochs": 2}, "optim.restarts: an epoch stands twice"),
        ({"restarts": {0: 0.5}}, "optim.restarts.0"),
        ({"schedule": "seed_official", "warmup_epochs": 5}, "optim.warmup_epochs: belongs to schedule cosine_epoch"),
    ],
)
def test_keys_of_another_optimizer_or_schedule_are_faults(tmp_path: Path, changes: dict[str, Any], part: str) -> None:
    found = message(tmp_path, values("optim", **changes))
    assert part in found
    assert found.count(";") <= 1  # nothing but that fault, and its remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "larc", "schedule": "cosine_step", "final_lr_fraction": 0.001},
        {"optimizer": "lars", "schedule": "cosine_step", "warmup_epochs": 1.0, "warmup_start_fraction": 0.0},
        {"schedule": "multistep", "milestones_epochs": [90, 120], "gamma": 0.2},
        {"schedule": "cosine_step", "epochs": 9, "restarts": {"3": 1.0, "6": 0.5}, "warmup_epochs": 1.0},
        {"schedule": "seed_official"},
        {"optimizer": "adamw"},
    ],
)
def test_every_optimizer_and_schedule_resolves_to_a_recipe_that_loads_again(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    recipe = load_recipe(write(tmp_path, values("optim", **changes)))
    assert {key: recipe.as_dict()["optim"][key] for key in changes} == changes
    assert load_recipe(write(tmp_path, recipe.as_yaml())) == recipe


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"head_hidden_dim": 512, "head_hidden_ratio": 2.0}, "student.head_hidden_ratio: head_hidden_dim is set too"),
        ({"head_hidden_ratio": 0.0}, "student.head_hidden_ratio: input should be greater than 0"),
        ({"head_hidden_ratio": 2.0, "head": "linear"}, "student.head_hidden_ratio: head linear has no hidden layer"),
        ({"head_dropout": 0.2, "head": "none"}, "student.head_dropout: head none has nothing to drop for"),
        ({"head_dropout": 1.0}, "student.head_dropout: input should be less than 1"),
        ({"head_dropout": 0.2, "options": {"drop_rate": 0.2}}, "student.head_dropout: options.drop_rate already drops"),
        ({"options": {"num_classes": 10}}, "student.options.num_classes: a student has no classifier"),
        ({"options": {"pretrained": True}}, "student.options.pretrained: the start is student.init; leave it out"),
        (
            {"options": {"drop_rate": [0.2]}},
            "student.options.drop_rate: must be a finite number, a text, true or false",
        ),
        ({"options": {"drop_rate": 2}}, "student.options.drop_rate: must be a number from 0 to below 1, not 2"),
        ({"options": {"drop_path_rate": "a"}}, "student.options.drop_path_rate: must be a number from 0 to below 1"),
        ({"options": {"bn_momentum": None}}, "student.options.bn_momentum: must be a finite number, a text"),
        ({"options": {"layer_scale": float("inf")}}, "student.options.layer_scale: must be a finite number"),
        ({"options": 5}, "student.options: input should be an object"),
    ],
)
def test_keys_of_the_student_that_exclude_each_other_are_faults(
    tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    assert part in message(tmp_path, values("student", **changes))


def test_ratio_takes_the_place_of_the_hidden_width_also_in_the_resolved_recipe(tmp_path: Path) -> None:
    given = values("student", head="mlp_bn", head_hidden_ratio=2.0, options={"drop_path_rate": 0.2})
    recipe = load_recipe(write(tmp_path, given))
    assert (recipe.student.head_hidden_dim, recipe.student.head_hidden_ratio) == (None, 2.0)
    assert load_recipe(write(tmp_path, recipe.as_yaml())) == recipe
    plain = load_recipe(write(tmp_path, values("student")), ["student.options={drop_path_rate: 0.2}"])
    assert plain.student.options == {"drop_path_rate": 0.2}
    assert plain.digest() != load_recipe(write(tmp_path, values("student"))).digest()


def test_a_key_with_a_line_break_is_named_in_one_line(tmp_path: Path) -> None:
    assert r"unknown key 'student.a\nb\x00'" in message(tmp_path, values("student", **{"a\nb\0": 1}))
    assert r"unknown key 'views.\u2028'" in message(tmp_path, values("views", **{"\u2028": None}))


@pytest.mark.parametrize("method", ["disco", "moco_v2"])
def test_only_methods_whose_memories_take_any_batch_keep_the_last_one(tmp_path: Path, method: str) -> None:
    content = values("optim", last_batch="keep")
    content["method"]["name"] = method
    assert f"optim.last_batch: method {method} needs whole batches; leave it out or write drop" in message(
        tmp_path, content
    )


@pytest.mark.parametrize(
    ("changes", "images", "processes", "why"),
    [
        ({}, 26, 2, "cannot be shared by several forwards"),
        ({"accumulation_steps": 2}, 26, 1, "cannot be shared by several forwards"),
        ({}, 25, 1, "has one image, and BatchNorm needs two"),
    ],
)
def test_a_last_batch_that_cannot_be_kept_is_refused(
    changes: dict[str, Any], images: int, processes: int, why: str
) -> None:
    optim = optim_section(batch_size=8, last_batch="keep", **changes)
    with pytest.raises(BadRecipe, match=rf"the last batch of an epoch {why}\. Type: --set optim\.last_batch=drop"):
        require_batches(optim, images, processes)
    require_batches(optim_section(batch_size=8, last_batch="keep"), 26, 1)


@pytest.mark.parametrize("last_batch", ["drop", "keep"])
@pytest.mark.parametrize(("accumulation", "processes"), [(1, 1), (4, 1), (1, 3), (2, 3)])
def test_a_batch_size_that_is_proposed_is_not_refused(last_batch: str, accumulation: int, processes: int) -> None:
    """All batches up to 40, of up to 100 images; a last batch that several forwards cannot share is another matter."""

    def refusal(size: int, images: int) -> str:
        optim = optim_section(batch_size=size, accumulation_steps=accumulation, last_batch=last_batch)
        try:
            require_batches(optim, images, processes)
        except BadRecipe as error:
            return str(error)
        return ""

    proposals = 0
    for size, images in itertools.product(range(1, 41), range(1, 101)):
        if found := re.search(r"--set optim\.batch_size=(\d+)", refusal(size, images)):
            again = refusal(int(found[1]), images)
            assert not again or (accumulation * processes > 1 and "last_batch=drop" in again), (size, images, again)
            proposals += 1
    assert proposals > 100


def test_too_few_images_for_the_forwards_propose_no_batch() -> None:
    optim = optim_section(batch_size=8, accumulation_steps=4)
    with pytest.raises(BadRecipe, match=r"^7 images cannot give 4 forwards two .*--set optim\.accumulation_steps=1$"):
        require_batches(optim, 7, 1)
    with pytest.raises(BadRecipe, match=r"^1 image cannot give 1 forward two .*: train on more images"):
        require_batches(optim_section(batch_size=8), 1, 1)
