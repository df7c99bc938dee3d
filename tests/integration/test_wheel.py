"""The wheel holds all that the package reads, and nothing of its workshop. tools/check_wheel.sh runs it elsewhere."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from tiny_runs import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    path = next(iter(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))
    assert Path(path).name.startswith("disco_zoo-")
    assert path.endswith("-py3-none-any.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_every_recipe_and_card(wheel: zipfile.ZipFile) -> None:
    names = {*wheel.namelist()}
    for folder, pattern in (("recipes", "*.yaml"), ("model_cards", "*.md")):
        files = [*(ROOT / folder).rglob(pattern)]
        assert files
        for file in files:
            inside = f"disco_zoo/{file.relative_to(ROOT).as_posix()}"
            assert wheel.read(inside) == file.read_bytes()
            assert inside in names


def test_wheel_holds_the_whole_package_with_its_assets(wheel: zipfile.ZipFile) -> None:
    names = {*wheel.namelist()}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "disco_zoo").rglob("*.py")}
    assert modules <= names
    assert "disco_zoo/zoo/catalog.yaml" in names
    assert wheel.read("disco_zoo/assets/fashion_mnist_sample.parquet")[:4] == b"PAR1"
    assert wheel.getinfo("disco_zoo/assets/fashion_mnist_sample.parquet").file_size <= 6_000_000
    notices = [name for name in names if "NOTICE" in name]
    assert "disco_zoo/assets/FASHION_MNIST_NOTICE.txt" in notices
    assert any(".dist-info/licenses/LICENSE" in name for name in names)


def test_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"disco_zoo"}
    assert not [name for name in wheel.namelist() if "__pycache__" in name or "/test" in name or name.endswith(".pyc")]


def test_wheel_names_command_and_extras(wheel: zipfile.ZipFile) -> None:
    texts = {name.split("/")[-1]: wheel.read(name).decode() for name in wheel.namelist() if ".dist-info/" in name}
    assert "disco-zoo = disco_zoo.cli:main" in texts["entry_points.txt"]
    for extra in ("pocket", "train", "test", "streams", "tensorboard"):
        assert f"Provides-Extra: {extra}\n" in texts["METADATA"]
    assert "License-Expression: Apache-2.0" in texts["METADATA"]
