"""Settings that change a step's cost: the same numbers with gradient checkpointing, the same names when compiled."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from slow_params import slow_but
from tiny_runs import differences, toy_parquet, toy_recipe, train
from torch import nn

from disco_zoo.errors import BadRecipe
from disco_zoo.networks.cpu_convolutions import ProductConv2d
from disco_zoo.training.build import build_parts
from disco_zoo.training.run_data import open_data
from disco_zoo.training.step_settings import apply_step_settings, checkpoint_gradients

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


def saved_numbers(network: nn.Module) -> int:
    """How many numbers one forward keeps for the backward pass, parameters aside."""
    parameters = {parameter.data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(IMAGES)
    return sum(kept.values())


@pytest.mark.parametrize(
    "name",
    slow_but(
        ["resnet18", "efficientnet_b0", "mobilenetv3_large_100", "xcit_nano_12_p16_224"],
        ["resnet18", "mobilenetv3_large_100"],
    ),
)
def test_checkpointed_networks_take_the_same_steps_to_the_bit(name: str) -> None:
    """Gradients, parameters and BatchNorm's buffers over three steps; stochastic depth draws the same masks."""
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=0, drop_path_rate=0.2).train()
    checkpointed = copy.deepcopy(plain)
    checkpoint_gradients(checkpointed, name)
    for step in range(3):
        for network in (plain, checkpointed):
            torch.manual_seed(step)
            network(IMAGES + step).square().mean().backward()
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter -= 0.01 * parameter.grad
                    parameter.grad = None
    assert differences(plain.state_dict(), checkpointed.state_dict()) == []
    counted = [value for key, value in checkpointed.state_dict().items() if key.endswith("num_batches_tracked")]
    assert counted
    assert all(value == 3 for value in counted)
    assert saved_numbers(checkpointed) < 0.6 * saved_numbers(plain)


def test_evaluation_after_a_checkpointed_step_uses_the_statistics() -> None:
    network = timm.create_model("resnet18", num_classes=0).train()
    checkpoint_gradients(network, "resnet18")
    network(IMAGES).mean().backward()
    reference = timm.create_model("resnet18", num_classes=0)
    reference.load_state_dict(network.state_dict())
    with torch.inference_mode():
        assert torch.equal(network.eval()(IMAGES), reference.eval()(IMAGES))


def test_students_and_twins_use_cpu_convolutions_on_a_cpu(data: Path) -> None:
    recipe = toy_recipe("moco_v2", student__model="resnet18")
    parts = build_parts(recipe, open_data(recipe, str(data)).train)
    apply_step_settings(recipe, parts)
    twin = parts.method.get_submodule("contrast.twin")
    for network in (parts.student, twin):
        assert type(network.get_submodule("backbone.layer4.1.conv2")) is ProductConv2d
        assert type(network.get_submodule("backbone.layer1.0.conv1")) is nn.Conv2d


def test_a_checkpointed_run_is_the_plain_run_and_can_take_it_over(data: Path, tmp_path: Path) -> None:
    """What runs out of memory is resumed with less; the recipe's identity stays."""
    changes: dict[str, Any] = {"student__model": "dropping_student"}
    plain, saving = toy_recipe(**changes), toy_recipe(**changes, student__gradient_checkpointing=True)
    assert plain.digest() == saving.digest()
    expected = train(plain, data, tmp_path / "plain")
    assert differences(train(saving, data, tmp_path / "saving"), expected) == []
    train(plain, data, tmp_path / "both", steps=2)
    assert differences(train(saving, data, tmp_path / "both", resume=True), expected) == []


def test_the_settings_are_read_and_other_keys_still_decide() -> None:
    compiled = toy_recipe(optim__compile=True)
    assert compiled.optim.compile
    assert compiled.digest() == toy_recipe().digest() != toy_recipe(optim__base_lr=0.5).digest()
    with pytest.raises(BadRecipe, match=r"student.gradient_checkpointing: not together with optim.compile"):
        toy_recipe(optim__compile=True, student__gradient_checkpointing=True)


@pytest.mark.parametrize("name", ["selecsls42", "no_method"])
def test_an_architecture_that_cannot_checkpoint_says_so_in_one_line(name: str) -> None:
    network = nn.Linear(3, 3) if name == "no_method" else timm.create_model(name, num_classes=0)
    with pytest.raises(BadRecipe) as caught:
        checkpoint_gradients(network, name)
    assert str(caught.value) == (
        f"{name} cannot checkpoint gradients. Type: --set student.gradient_checkpointing=false"
    )


@pytest.fixture
def eager_compiler(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torch.compile without code generation, which takes minutes; what was compiled."""
    compiled: list[str] = []
    former = nn.Module.compile

    def compile_eagerly(module: nn.Module) -> None:
        compiled.append(type(module).__name__)
        former(module, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    monkeypatch.setattr("disco_zoo.training.step_settings._require_compiler", lambda device: None)
    return compiled


def test_a_compiled_run_keeps_its_names_and_goes_on_uncompiled(
    data: Path, tmp_path: Path, eager_compiler: list[str]
) -> None:
    expected = train(toy_recipe(), data, tmp_path / "plain")
    assert eager_compiler == []
    train(toy_recipe(optim__compile=True), data, tmp_path / "both", steps=2)
    assert eager_compiler == ["EfficientNet", "ResNet"]
    found = train(toy_recipe(), data, tmp_path / "both", resume=True)
    assert [*found["method"]] == [*expected["method"]]
    for key, value in expected["method"].items():
        torch.testing.assert_close(found["method"][key], value, atol=1e-5, rtol=1e-4, msg=key)


def test_without_a_compiler_the_run_does_not_begin(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Any) -> Any:
        raise RuntimeError("Failed to find\n C compiler")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(BadRecipe) as caught:
        train(toy_recipe(optim__compile=True), data, tmp_path)
    assert str(caught.value) == (
        "optim.compile: nothing can be compiled here (Failed to find C compiler). Type: --set optim.compile=false"
    )
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.slow
def test_really_compiled_networks_train_as_plain_ones(data: Path, tmp_path: Path) -> None:
    expected = train(toy_recipe(), data, tmp_path / "plain", steps=1)
    found = train(toy_recipe(optim__compile=True), data, tmp_path / "compiled", steps=1)
    for key, value in expected["method"].items():
        torch.testing.assert_close(found["method"][key], value, atol=1e-4, rtol=1e-3, msg=key)
