"""What a launcher's environment may not decide, and what a CPU cannot compute."""

from __future__ import annotations

import pytest
from tiny_runs import toy_recipe

from disco_zoo.errors import BadRecipe
from disco_zoo.training.accelerator import ACCUMULATION_VARIABLE, make_accelerator


@pytest.mark.parametrize("steps", [1, 2])
def test_the_recipe_accumulates_whatever_the_environment_says(
    steps: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ACCUMULATION_VARIABLE, "4")
    accelerator = make_accelerator(toy_recipe(optim__accumulation_steps=steps), "cpu")
    assert accelerator.gradient_accumulation_steps == steps
    error = capsys.readouterr().err
    assert f"{ACCUMULATION_VARIABLE}=4 is passed over: the recipe accumulates over {steps}." in error
    assert "--set optim.accumulation_steps=4" in error


def test_nothing_is_said_where_the_environment_agrees(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ACCUMULATION_VARIABLE, "2")
    assert make_accelerator(toy_recipe(optim__accumulation_steps=2), "cpu").gradient_accumulation_steps == 2
    assert capsys.readouterr().err == ""


def test_fp16_on_a_cpu_is_refused_before_anything_is_computed() -> None:
    with pytest.raises(BadRecipe, match=r"optim.precision: fp16 needs a GPU. Type: --set optim.precision=fp32"):
        make_accelerator(toy_recipe(optim__precision="fp16"), "cpu")
    assert make_accelerator(toy_recipe(optim__precision="bf16"), "cpu").mixed_precision == "bf16"
