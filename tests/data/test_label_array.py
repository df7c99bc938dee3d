"""Labels and names as blocks of memory: the same numbers, names and orders as lists have, without the objects."""

from __future__ import annotations

import copy
import hashlib
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from data_makers import make_class_tar, make_folder, make_parquet, make_tar, png

from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.formats.timm_readers import PackedNames
from disco_zoo.data.label_array import CHUNK, Labels, map_labels
from disco_zoo.data.open_source import open_source


def test_labels_are_a_sequence_of_python_ints() -> None:
    labels = Labels([3, 0, 2])
    assert [3, 0, 2] == labels == (3, 0, 2)
    assert labels != [3, 0]
    assert labels[1:] == [0, 2]
    assert [type(label) for label in labels] == [int] * 3
    assert type(labels[-1]) is int
    assert torch.equal(torch.tensor(labels), torch.tensor([3, 0, 2]))
    assert np.asarray(labels).tolist() == [3, 0, 2]
    assert copy.deepcopy(labels) == pickle.loads(pickle.dumps(labels)) == labels
    assert Labels([2**40, 1]) == [2**40, 1]
    assert Labels(np.arange(5)).array.itemsize == 4
    assert (len(Labels([])), Labels([]).largest) == (0, -1)


def test_the_bytes_to_hash_are_those_of_one_int64_array() -> None:
    values = np.random.default_rng(0).integers(-1, 1000, 2 * CHUNK + 5)
    assert b"".join(Labels(values).chunks()) == values.astype("<i8").tobytes()
    assert list(Labels(values)) == values.tolist()


def test_a_part_of_a_file_is_pickled_as_its_place(tmp_path: Path) -> None:
    np.arange(100_000, dtype="<i4").tofile(tmp_path / "labels.bin")
    labels = map_labels(str(tmp_path / "labels.bin"), 20, 90_000)
    pickled = pickle.dumps(labels)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert (again[0], again[89_999], len(again)) == (20, 90_019, 90_000)
    assert pickle.loads(pickle.dumps(labels[5:8])) == [25, 26, 27]


def test_names_come_back_whole_and_sorted_as_strings_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disco_zoo.data.formats.timm_readers.SORTED_AT_ONCE", 7)
    names = [f"{folder}/{number}.png" for folder in ("b", "a", "é", "日本", "𝒳", "\udcff") for number in range(9)]
    random.Random(0).shuffle(names)
    names += [names[0], ""]
    packed = PackedNames(names)
    assert list(packed) == names
    assert packed[-1] == ""
    with pytest.raises(IndexError):
        packed[len(names)]
    assert list(packed.sorted_positions()) == sorted(range(len(names)), key=names.__getitem__)
    assert list(PackedNames([])) == list(PackedNames([]).sorted_positions()) == []


def fingerprint_of_lists(source: ImageSource, content: list[bytes]) -> str:
    digest = hashlib.sha256(f"{len(source)} images".encode())
    if source.labels is not None:
        digest.update(np.asarray(list(source.labels), dtype="<i8").tobytes())
    for piece in content:
        digest.update(piece)
    return digest.hexdigest()


def test_fingerprints_of_folders_and_tars_are_those_of_sorted_lists(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    for number in (10, 9):  # timm's order, by number, is another than that of strings
        (folder / "cat" / f"{number}.png").write_bytes(png(0))
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    content = [f"{name}\0{(folder / name).stat().st_size}\n".encode() for name in files]
    source = open_source(folder)
    assert source.fingerprint() == fingerprint_of_lists(source, content)
    members = {f"{'ab'[n % 2]}/{n}.png": png(n % 6)[: -n or None] for n in range(12)}
    tar = open_source(make_tar(tmp_path / "pets.tar", members))
    content = [f"{name}\0{len(members[name])}\n".encode() for name in sorted(members)]
    assert tar.fingerprint() == fingerprint_of_lists(tar, content)
    assert [tar.encoded(row) for row in range(12)] == [members[tar.path(row).split(" ")[0]] for row in range(12)]


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_no_source_keeps_a_python_object_for_each_image(kind: str, tmp_path: Path) -> None:
    makers = {"folder": make_folder, "tar": make_class_tar, "parquet": make_parquet}
    source = open_source(makers[kind](tmp_path / f"pets.{kind}" if kind != "folder" else tmp_path / "pets"))
    per_row = [
        name
        for name, value in vars(source).items()
        if isinstance(value, (list, tuple, dict)) and len(value) == len(source)
    ]
    assert per_row == []
