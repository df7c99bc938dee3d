"""What a launcher's environment may not decide, and what a CPU cannot compute."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import toy_recipe

from disco_zoo.errors import BadRecipe
from disco_zoo.training.accelerator import ACCUMULATION_VARIABLE, OTHER_KINDS, make_accelerator


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


@pytest.mark.parametrize(
    ("found", "slow"),
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"architecture": "aarch64"}, False),
    ],
)
def test_bf16_without_instructions_for_it_is_said(
    found: dict[str, object], slow: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    make_accelerator(toy_recipe(optim__precision="bf16"), "cpu")
    line = "optim.precision: bf16: this processor has no instructions for it, and steps may take many times as long."
    assert (line in capsys.readouterr().err) == slow
    make_accelerator(toy_recipe(), "cpu")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "the recipe computes in fp32. To follow it: --set optim.precision=bf16"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "the recipe computes in fp32"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "the recipe does not compile. To compile: --set optim.compile=true"),
    ],
)
def test_the_recipe_decides_precision_and_compiling_too(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    accelerator = make_accelerator(toy_recipe(), "cpu")
    assert accelerator.mixed_precision == "no"
    assert str(accelerator.state.dynamo_plugin.backend.value).lower() == "no"
    assert f"{variable}={value.lower()} is passed over: {words}" in capsys.readouterr().err


@pytest.mark.parametrize("variable", OTHER_KINDS)
def test_an_environment_that_asks_for_another_kind_of_training_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(BadRecipe, match=rf"{variable}=true: .* Type: unset {variable}"):
        make_accelerator(toy_recipe(), "cpu")


def test_an_environment_that_asks_for_another_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cuda:1")
    with pytest.raises(BadRecipe, match=r"asks for cuda, the command for cpu\. Type: --device cuda"):
        make_accelerator(toy_recipe(), "cpu")
    monkeypatch.delenv("ACCELERATE_TORCH_DEVICE")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert make_accelerator(toy_recipe(), "cpu").device.type == "cpu"
    with pytest.raises(BadRecipe, match=r"asks for cpu, the command for cuda"):
        make_accelerator(toy_recipe(), "cuda")
