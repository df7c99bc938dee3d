"""What users import: every public name is there, says what it does, and typing tools may look inside."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from torch import Tensor

import disco_zoo
from disco_zoo import losses

# The documented surface; more may be public.
PROMISED = {
    "METHODS",
    "convert_checkpoint",
    "embed",
    "evaluate",
    "export",
    "extract_features",
    "finetune",
    "list_models",
    "load_detector",
    "load_model",
    "load_recipe",
    "publish_weights",
    "reproduce",
    "train",
    "verify_weights",
}


@pytest.mark.parametrize("name", disco_zoo.__all__)
def test_a_public_name_is_what_its_room_defines(name: str) -> None:
    value = getattr(disco_zoo, name)
    if inspect.isfunction(value) or inspect.isclass(value):
        assert value.__name__ == name
        assert (value.__doc__ or "").strip()


def test_no_public_name_is_hidden_by_a_room() -> None:
    rooms = {path.name for path in Path(disco_zoo.__file__).parent.iterdir() if path.is_dir()}
    assert not rooms & set(disco_zoo.__all__)


def test_all_that_is_promised_is_public() -> None:
    assert set(disco_zoo.__all__) >= PROMISED
    assert set(disco_zoo.__all__) <= set(dir(disco_zoo))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = disco_zoo.trian


def test_typing_tools_may_look_inside() -> None:
    assert (Path(disco_zoo.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("name", losses.__all__)
def test_a_loss_gives_shapes_and_takes_tensors(name: str) -> None:
    loss = getattr(losses, name)
    assert "(" in loss.__doc__
    assert "Args:" in loss.__doc__
    assert "Tensor" in str(inspect.signature(loss).return_annotation) or issubclass(
        inspect.get_annotations(loss, eval_str=True)["return"], Tensor
    )
