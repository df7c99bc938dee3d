"""Image sources: every kind gives the same (RGB image, index, label or None) and a stable fingerprint."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_makers import (
    LABELS,
    MAKERS,
    PIXELS,
    encode,
    make_class_tar,
    make_folder,
    make_parquet,
    make_tar,
    png,
)
from PIL import Image
from torch.utils.data import DataLoader

from disco_zoo.data.dataset import ImageSource, require_labels
from disco_zoo.data.open_source import open_source
from disco_zoo.errors import BadData


@pytest.fixture(params=MAKERS)
def pets(request: pytest.FixtureRequest, tmp_path: Path) -> ImageSource:
    path = MAKERS[request.param](tmp_path)
    return open_source(f"torch/image_folder@{path}" if request.param == "torchvision" else path)


# --- what every source does


def test_sources_agree_on_pixels_order_and_labels(pets: ImageSource) -> None:
    assert len(pets) == 6
    assert pets.labels == LABELS
    assert pets.has_index
    for number in range(6):
        image, index, label = pets[number]
        assert (type(image), image.mode, index, label) == (Image.Image, "RGB", number, LABELS[number])
        np.testing.assert_array_equal(np.asarray(image), PIXELS[number])


def collate(rows: list[tuple[Image.Image, int, int | None]]) -> list[tuple[bytes, int, int | None]]:
    return [(image.tobytes(), index, label) for image, index, label in rows]


def worker_rows(source: ImageSource, context: str) -> list[tuple[bytes, int, int | None]]:
    loader = DataLoader(
        source,  # type: ignore[arg-type]
        batch_size=3,
        num_workers=1,
        collate_fn=collate,
        multiprocessing_context=context,
    )
    return [row for batch in loader for row in batch]


# Python 3.12 warns of any fork beside threads; ours read without threads.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_worker_reads_the_same_rows(pets: ImageSource) -> None:
    pets.image(0)  # an open handle in the parent must not disturb the worker
    assert worker_rows(pets, "fork") == [(PIXELS[i].tobytes(), i, LABELS[i]) for i in range(6)]


def test_spawned_worker_reads_the_same_rows(tmp_path: Path) -> None:
    source = open_source(make_parquet(tmp_path / "pets.parquet"))
    source.image(0)
    assert worker_rows(source, "spawn") == [(PIXELS[i].tobytes(), i, LABELS[i]) for i in range(6)]


def test_pickled_copy_reads_again(pets: ImageSource) -> None:
    pets.image(5)
    copy = pickle.loads(pickle.dumps(pets))
    assert copy.image(5).tobytes() == pets.image(5).tobytes()
    assert copy.fingerprint() == pets.fingerprint()


def test_index_outside_is_refused(pets: ImageSource) -> None:
    with pytest.raises(IndexError):
        pets.image(6)
    with pytest.raises(IndexError):
        pets.image(-1)


# --- folders and tars


def test_folder_splits_are_found(tmp_path: Path) -> None:
    make_folder(tmp_path / "train")
    val = make_folder(tmp_path / "val")
    (val / "dog" / "5.png").unlink()
    train, test = open_source(tmp_path, "train"), open_source(tmp_path, "test")
    assert (len(train), len(test)) == (6, 5)
    assert train.class_names == test.class_names == ["cat", "dog"]


def test_folder_named_train_has_its_test_set_beside_it(tmp_path: Path) -> None:
    make_folder(tmp_path / "train")
    (make_folder(tmp_path / "val") / "dog" / "5.png").unlink()
    assert len(open_source(tmp_path / "train", "test")) == 5
    assert len(open_source(tmp_path / "val", "test")) == 5


def test_unlabelled_test_folder_gives_way_to_val(tmp_path: Path) -> None:
    make_folder(tmp_path / "val")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.png").write_bytes(png(0))
    assert open_source(tmp_path, "test").labels == LABELS


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.webp").write_bytes(encode(Image.fromarray(PIXELS[number]), "WEBP"))
    source = open_source(tmp_path)
    assert (len(source), source.labels, source.class_names, source[2][2]) == (3, None, None, None)
    with pytest.raises(BadData, match="kNN needs labels"):
        require_labels(source, "kNN")


def test_tar_inside_tar_and_flat_tar(tmp_path: Path) -> None:
    inner = {
        name: make_tar(tmp_path / f"{name}.tar", {f"{i}.png": png(i) for i in rows}).read_bytes()
        for name, rows in {"cat": (0, 1, 2), "dog": (3, 4, 5)}.items()
    }
    outer = open_source(make_tar(tmp_path / "outer.tar", {f"{name}.tar": b for name, b in inner.items()}))
    assert outer.labels == LABELS
    assert [outer.image(i).tobytes() for i in range(6)] == [PIXELS[i].tobytes() for i in range(6)]
    assert open_source(tmp_path / "cat.tar").labels is None


def test_train_images_never_stand_in_for_test_images(tmp_path: Path) -> None:
    flat = make_folder(tmp_path / "pets")
    for data in (flat, make_parquet(tmp_path / "photos.parquet"), make_class_tar(tmp_path / "set.tar")):
        with pytest.raises(BadData, match="--eval-data"):
            open_source(data, "test")
        assert len(open_source(data, "test", dedicated=True)) == 6


# --- fingerprint


def test_fingerprint_survives_a_move(tmp_path: Path) -> None:
    for kind, make in MAKERS.items():
        here, there = tmp_path / kind / "a", tmp_path / kind / "b"
        here.mkdir(parents=True)
        path = make(here)
        before = open_source(path).fingerprint()
        assert len(before) == 64
        shutil.move(here, there)
        assert open_source(there / path.name).fingerprint() == before


def test_fingerprint_sees_one_byte_one_label_and_one_name(tmp_path: Path) -> None:
    cells = [png(i) for i in range(6)]
    altered = [*cells[:4], cells[4][:-1] + b"\x00", cells[5]]
    prints = {
        open_source(make_parquet(tmp_path / "a.parquet", LABELS, cells)).fingerprint(),
        open_source(make_parquet(tmp_path / "b.parquet", LABELS, altered)).fingerprint(),
        open_source(make_parquet(tmp_path / "c.parquet", [0, 0, 0, 1, 1, 0], cells)).fingerprint(),
        open_source(make_parquet(tmp_path / "d.parquet", None, cells)).fingerprint(),
    }
    assert len(prints) == 4
    folder = make_folder(tmp_path / "pets")
    before = open_source(folder).fingerprint()
    (folder / "cat" / "0.png").rename(folder / "cat" / "00.png")
    renamed = open_source(folder).fingerprint()
    with (folder / "cat" / "00.png").open("ab") as file:
        file.write(b"\x00")
    assert len({before, renamed, open_source(folder).fingerprint()}) == 3


def test_fingerprint_of_a_huge_source_reads_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_parquet(tmp_path / "a.parquet")
    full = open_source(path).fingerprint()
    monkeypatch.setattr("disco_zoo.data.formats.parquet.FINGERPRINT_BYTES", 1)
    assert open_source(path).fingerprint() != full
