"""The folder to publish: exact bytes, loadable by timm alone, and nothing in it that can run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from publish_helpers import NAME, WITHOUT_DISCO_ZOO, random_weights, run_python, zoo_row
from safetensors.torch import load_file, save_file
from timm.models import PretrainedCfg
from torch import nn

from disco_zoo.core.files import sha256_of
from disco_zoo.errors import BadCheckpoint, Damaged, PublishError, WrongNetwork
from disco_zoo.weights.publish.folder import FILES, WeightsFile, build_folder, config, files_of
from disco_zoo.weights.resolve import local_weights
from disco_zoo.zoo.catalog import load_catalog

pytestmark = pytest.mark.usefixtures("one_thread")

REPO = f"org/{NAME}"
SE_FIRST = "disco_mobv3.seed_mocov2_r50_in1k"  # needs a network of ours
LOAD_A_FOLDER = (
    WITHOUT_DISCO_ZOO
    + """
import json, sys, timm
from safetensors.torch import load_file
folder, variant = sys.argv[1:]
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
golden = load_file(f"{folder}/golden.safetensors")
difference = (model(golden["input"]) - golden["features"]).abs().max().item()
try:
    timm.create_model(f"local-dir:{variant}", pretrained=True)
    refused = ""
except RuntimeError as error:
    refused = str(error)
print(json.dumps({"difference": difference, "refused": refused, "ours": "disco_zoo" in sys.modules}))
"""
)


@pytest.fixture(scope="module")
def weights() -> WeightsFile:
    """The bundled weights."""
    found = local_weights(NAME)
    assert found is not None
    return WeightsFile(found.path, found.sha256, found.source, found.facts)


@pytest.fixture(scope="module")
def folder(weights: WeightsFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    catalog, row = zoo_row(NAME)
    path = tmp_path_factory.mktemp("built") / "folder"
    build_folder(path, row, catalog, weights, REPO)
    return path


@pytest.fixture(scope="module")
def variant_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a network that timm does not have."""
    catalog, row = zoo_row(SE_FIRST)
    root = tmp_path_factory.mktemp("variant")
    file = random_weights(root / "w.safetensors", "disco_mobv3_se_first")
    facts = {"layout": "seed", "source_file": "mob.pth.tar", "source_sha256": "a" * 64, "source_url": None}
    build_folder(root / "folder", row, catalog, replace(file, facts=facts), f"org/{SE_FIRST}")
    return root / "folder"


def rows_with_a_network() -> list[str]:
    catalog = load_catalog()
    natives = {name for name, architecture in catalog.architectures.items() if architecture.native}
    return [name for name, row in catalog.checkpoints.items() if row.architecture in natives or row.variant]


def read_config(folder: Path) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads((folder / "config.json").read_text(encoding="utf-8")))


def test_the_bytes_are_the_local_ones(folder: Path, weights: WeightsFile) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert (folder / "model.safetensors").read_bytes() == weights.path.read_bytes()
    assert {file.name: file.sha256 for file in files_of(folder)}["model.safetensors"] == weights.sha256


def test_config_is_timms_with_our_provenance_beside(folder: Path, weights: WeightsFile) -> None:
    values, row = read_config(folder), load_catalog().checkpoints[NAME]
    assert (values["architecture"], values["num_classes"], values["num_features"]) == ("efficientnet_b0", 0, 1280)
    cfg = PretrainedCfg(**values["pretrained_cfg"])  # an unknown key would be a TypeError
    assert (cfg.tag, cfg.num_classes, list(cfg.input_size)) == (row.tag, 0, [3, 64, 64])
    assert (list(cfg.mean), list(cfg.std), cfg.crop_pct) == (row.input.mean, row.input.std, row.input.crop_pct)
    assert (cfg.interpolation, cfg.first_conv, cfg.classifier) == ("bilinear", "conv_stem", "classifier")
    assert (cfg.license, list(cfg.pool_size or ())) == ("Apache-2.0", [2, 2])
    ours = values["disco_zoo"]
    assert ours["teacher"]["supervision"] == "supervised"
    assert ours["weights"] == {
        "file": "model.safetensors",
        "sha256": weights.sha256,
        "size_bytes": weights.path.stat().st_size,
    }
    assert (ours["name"], ours["recipe"], ours["data"]["title"]) == (NAME, row.recipe, "CIFAR-10")


def test_the_card_speaks_of_the_repository(folder: Path, variant_folder: Path) -> None:
    card = ModelCard((folder / "README.md").read_text(encoding="utf-8"))
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "timm")
    assert card.data.eval_results is not None
    assert REPO in card.content
    assert "None" not in card.content
    assert f"hf-hub:{REPO}" in card.content
    variant = (variant_folder / "README.md").read_text(encoding="utf-8")
    assert "import disco_zoo" in variant
    assert "hf-hub:" not in variant  # timm alone has no such network
    assert "There are no weights" not in variant


@pytest.mark.slow
def test_timm_alone_loads_it_and_computes_the_golden_features(
    folder: Path, variant_folder: Path, tmp_path: Path
) -> None:
    found = run_python(LOAD_A_FOLDER, tmp_path, None, str(folder), str(variant_folder))
    assert found["difference"] <= 1e-5
    assert not found["ours"]
    # timm must not load these weights into a network of its own that has the same keys.
    assert "disco_mobv3_se_first" in found["refused"]


def test_networks_of_ours_load_after_an_import(variant_folder: Path) -> None:
    golden = load_file(variant_folder / "golden.safetensors")
    with torch.no_grad():
        model = timm.create_model(f"local-dir:{variant_folder}", pretrained=True).eval()
        assert torch.equal(model(golden["input"]), golden["features"])
        wrong = timm.create_model("mobilenetv3_large_100", num_classes=0).eval()
        wrong.load_state_dict(load_file(variant_folder / "model.safetensors"))
        assert not torch.allclose(wrong(golden["input"]), golden["features"], atol=1e-2)
    values = read_config(variant_folder)
    assert values["disco_zoo"]["source"] == {
        "layout": "seed",
        "source_file": "mob.pth.tar",
        "source_sha256": "a" * 64,
    }


def test_built_again_it_is_the_same(folder: Path, weights: WeightsFile, tmp_path: Path) -> None:
    catalog, row = zoo_row(NAME)
    target = tmp_path / "deep" / "folder"
    first = build_folder(target, row, catalog, weights, REPO)
    assert first == files_of(folder)
    assert build_folder(target, row, catalog, weights, REPO) == first  # over the former
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", rows_with_a_network())
def test_every_row_with_a_network_gives_a_config_that_timm_takes(name: str, tmp_path: Path) -> None:
    catalog, row = zoo_row(name)
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"x")
    model = cast("nn.Module", SimpleNamespace(num_features=8))
    values = config(row, catalog, WeightsFile(file, "0" * 64, "file"), model)
    assert values["architecture"] == catalog.network_of(row)
    assert PretrainedCfg(**values["pretrained_cfg"]).tag == row.tag
    json.dumps(values)


def pickle_file(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


def truncated(path: Path) -> None:
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-1])


def huge_header(path: Path) -> None:
    path.write_bytes((2 << 30).to_bytes(8, "little") + b"{}")


def other_network(path: Path) -> None:
    random_weights(path, "resnet18")


def changed(key: str, value: torch.Tensor) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        found = local_weights(NAME)
        assert found is not None
        save_file(load_file(found.path) | {key: value}, path)

    return write


@pytest.mark.parametrize(
    ("write", "error", "words"),
    [
        (pickle_file, BadCheckpoint, "no safetensors file, and nothing else is published"),
        (truncated, BadCheckpoint, "no safetensors file"),
        (huge_header, BadCheckpoint, "no safetensors file"),
        (Path.mkdir, BadCheckpoint, "no safetensors file"),
        (other_network, WrongNetwork, "does not fit efficientnet_b0"),
        (changed("bn1.running_var", torch.full((32,), torch.nan)), BadCheckpoint, "bn1.running_var holds NaN"),
        (changed("bn1.weight", torch.full((32,), torch.inf)), BadCheckpoint, "bn1.weight holds NaN or infinity"),
        (changed("bn1.weight", torch.ones(32, dtype=torch.int64)), BadCheckpoint, "bn1.weight is torch.int64"),
        (changed("classifier.weight", torch.ones(2, 1280)), WrongNetwork, "unknown"),
    ],
)
def test_bad_weights_are_refused(
    write: Callable[[Path], None], error: type[Exception], words: str, tmp_path: Path
) -> None:
    catalog, row = zoo_row(NAME)
    path = tmp_path / "w"
    write(path)
    sha256 = sha256_of(path) if path.is_file() else ""
    with pytest.raises(error, match=words) as caught:
        build_folder(tmp_path / "out", row, catalog, WeightsFile(path, sha256, "file"), REPO)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["w"]  # nothing half-written


def test_a_file_that_changes_meanwhile_is_noticed(weights: WeightsFile, tmp_path: Path) -> None:
    catalog, row = zoo_row(NAME)
    with pytest.raises(Damaged, match="damaged, or was changed"):
        build_folder(tmp_path / "out", row, catalog, replace(weights, sha256="0" * 64), REPO)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["a file of mine", "a file", "a link"])
def test_what_is_not_ours_is_not_replaced(kind: str, weights: WeightsFile, tmp_path: Path) -> None:
    catalog, row = zoo_row(NAME)
    target, mine = tmp_path / "out", tmp_path / "mine"
    mine.mkdir()
    if kind == "a file":
        target.write_text("mine")
    elif kind == "a link":
        target.symlink_to(mine)
    else:
        target.mkdir()
        (target / "thesis.tex").write_text("mine")
    with pytest.raises(PublishError, match=r"not ours to replace\. Choose another folder: --out"):
        build_folder(target, row, catalog, weights, REPO)
    assert kind != "a file of mine" or (target / "thesis.tex").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_one_line(weights: WeightsFile, tmp_path: Path) -> None:
    catalog, row = zoo_row(NAME)
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="Cannot write") as caught:
        build_folder(tmp_path / "file" / "out", row, catalog, weights, REPO)
    assert os.linesep not in str(caught.value)
