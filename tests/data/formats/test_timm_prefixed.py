"""Sources with a prefix of timm's: test images are never the training images, and labels are classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_makers import LABELS, make_class_tar, make_folder, png
from PIL import Image

from disco_zoo.data.formats.timm_prefixed import HfdsSource, TorchvisionSource
from disco_zoo.data.open_source import open_source
from disco_zoo.data.pairing import open_labeled_pair
from disco_zoo.data.stream_source import HubShards
from disco_zoo.errors import BadData, NoTestImages, UnreadableImage


@pytest.mark.parametrize("kind", ["image_folder", "folder"])
def test_an_image_folder_without_test_images_has_none(kind: str, tmp_path: Path) -> None:
    name = f"torch/{kind}@{make_folder(tmp_path / 'pets')}"
    assert open_source(name).labels == LABELS
    with pytest.raises(NoTestImages, match=r"has no test images\. Give some with --eval-data"):
        open_source(name, "test")
    make_folder(tmp_path / "set" / "train")
    with pytest.raises(NoTestImages, match="has no test images"):
        open_source(f"torch/{kind}@{tmp_path / 'set'}", "test")


def test_an_image_folder_has_the_splits_of_a_plain_folder(tmp_path: Path) -> None:
    for split in ("train", "val"):
        make_folder(tmp_path / "pets" / split)
    (tmp_path / "pets" / "test").mkdir()
    (tmp_path / "pets" / "test" / "0.png").write_bytes(png(0))  # secret: without class folders
    name = f"torch/image_folder@{tmp_path / 'pets'}"
    train, test = open_labeled_pair(name)
    assert (train.places(), test.places()) == ((tmp_path / "pets" / "train",), (tmp_path / "pets" / "val",))
    assert open_source(name, "test", dedicated=True).places() == test.places()
    assert open_source(f"torch/image_folder@{tmp_path / 'pets' / 'train'}", "test").places() == test.places()


def test_an_overlap_of_image_folders_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pets = make_folder(tmp_path / "pets")
    open_labeled_pair(str(pets), f"torch/image_folder@{pets}")
    assert "the test images are the training images themselves" in capsys.readouterr().err
    make_folder(pets / "cat" / "more")
    with pytest.raises(BadData, match="lie among the training images"):
        open_labeled_pair(f"torch/folder@{pets}", str(pets / "cat" / "more"))


def test_a_pattern_of_shards_is_no_test_set_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    make_class_tar(tmp_path / "x-0000.tar")
    with pytest.raises(NoTestImages, match="has no test images"):
        open_source(f"wds/{tmp_path}/x-{{0000..0000}}.tar|6", "test")
    assert not open_source(f"wds/{tmp_path}/x-{{0000..0000}}.tar|6", "test", dedicated=True).has_index


def test_the_first_of_several_targets_is_the_class() -> None:
    class Digits:  # as torchvision's QMNIST
        targets = torch.tensor([[5, 0, 4, 1, 2, 3, 0, 0], [0, 1, 4, 1, 2, 3, 0, 0]])
        classes = ("0 - zero", "1 - one")

        def __len__(self) -> int:
            return 2

    source = TorchvisionSource("torch/qmnist@data", "train", Digits())
    assert (source.labels, source.class_names) == ([5, 0], ["0 - zero", "1 - one"])


def hub_table(**columns: list[Any]) -> Any:
    """A data set of the Hub in memory, as timm's readers hold it."""
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict(columns)
    declared = {name: datasets.Image(decode=False) for name in table.features if name.endswith("image")}
    if "species" in columns:
        declared["species"] = datasets.ClassLabel(names=["hen", "owl"])
    return table.cast(datasets.Features({**table.features, **declared}))


def test_an_empty_cell_of_the_hub_is_an_unreadable_image() -> None:
    table = hub_table(image=[{"bytes": png(0), "path": None}, None], label=[0, 1])
    source = HfdsSource("hfds/x", "train", table, "image")
    source.fingerprint()
    with pytest.raises(UnreadableImage, match=r"image 1 \(row 1 of hfds/x\) is unreadable: the cell is empty"):
        source.image(1)
    shards = HubShards("hfids/x", table.to_iterable_dataset())
    assert shards.look("hfids/x").unreadable == 1
    with pytest.raises(ValueError, match="the cell is empty"):
        [*shards.images(0)][1].read()


def test_declared_labels_of_the_hub_stand_before_others(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [{"bytes": png(i), "path": None} for i in range(2)]
    table = hub_table(conditioning_image=cells, image=cells, y=[9, 9], species=[1, 0])
    source = HfdsSource("hfds/x", "train", table, "image")
    assert (source.labels, source.class_names, source.origin.labels) == ([1, 0], ["hen", "owl"], "the column species")
    assert "column image, not of conditioning_image" in " ".join(capsys.readouterr().err.split())


def test_images_of_an_image_folder_are_those_of_a_plain_folder(tmp_path: Path) -> None:
    pets = make_folder(tmp_path / "pets")
    Image.new("RGBA", (8, 8)).save(pets / "cat" / "clear.png")
    Image.fromarray(np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16)).save(pets / "dog" / "deep.png")
    plain, torchs = open_source(pets), open_source(f"torch/image_folder@{pets}")
    assert [torchs.image(i).tobytes() for i in range(8)] == [plain.image(i).tobytes() for i in range(8)]
