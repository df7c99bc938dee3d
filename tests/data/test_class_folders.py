"""Classes from folders: names where they tell folders apart, else paths; and the layouts that data sets come in."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_makers import PIXELS, make_tar, png

from disco_zoo.data.class_folders import ANNOTATIONS, classes_of, label_by_folder
from disco_zoo.data.dataset import ImageSource, require_same_classes
from disco_zoo.data.image_list import open_images
from disco_zoo.data.open_source import open_source
from disco_zoo.errors import BadData

WNIDS = ["n02124075", "n01443537", "n04067472"]  # in no order, as in wnids.txt
VAL_WNIDS = [WNIDS[0], WNIDS[2], WNIDS[0], WNIDS[1]]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        (["animals/cat", "cars/bus"], ["cat", "bus"]),  # names that tell them apart stay what they are
        (["dog", "dog/hard", "cat"], ["dog", "hard", "cat"]),
        (["n1/images", "n2/images"], ["n1", "n2"]),
        (["n1/jpg/images", "n2/jpg/images"], ["n1", "n2"]),
        (["animals/cat/images", "cars/bus/images"], ["cat", "bus"]),
        (["dog/hard", "cat/hard"], ["dog", "cat"]),
        (["dog/hard", "dog/easy", "cat/hard"], ["dog/hard", "dog/easy", "cat/hard"]),
        (["dog/hard", "cat/hard", "bird"], ["dog/hard", "cat/hard", "bird"]),
        (["dog", "dog/new", "cat", "cat/new"], ["dog", "dog/new", "cat", "cat/new"]),
        (["train/cat", "train/dog", "val/cat"], ["cat", "dog", "cat"]),  # as `embed` takes a folder whole
        (["train/n1/images", "val/images", "test/images"], ["n1", "", ""]),
        (["train", "bus"], ["train", "bus"]),
        (["train/images", "bus/images"], ["train", "bus"]),
        (["images"], ["images"]),
        (["", "cat"], ["", "cat"]),
    ],
)
def test_classes_of_folders(folders: list[str], expected: list[str]) -> None:
    assert [classes_of(folders)[folder] for folder in folders] == expected
    assert classes_of(folders[::-1]) == classes_of(folders)


def test_labels_are_numbered_in_natural_order() -> None:
    found = label_by_folder(["c10/a.png", "c2/a.png", "c10/b.png", "c2/b.png"])
    assert found.labels is not None
    assert (found.labels.tolist(), found.names) == ([1, 0, 1, 0], ["c2", "c10"])
    assert found.folders == {"c10": 1, "c2": 0}
    for unlabelled in (["a.png", "cat/b.png", "dog/c.png"], ["images/a.png", "images/b.png"]):
        assert (label_by_folder(unlabelled).labels, label_by_folder(unlabelled).names) == (None, None)


def write(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number % len(PIXELS)))
    return folder


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_folders_of_one_name_are_not_merged_and_a_line_says_so(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["dog/hard/0.png", "dog/easy/1.png", "cat/hard/2.png"]
    path = write(tmp_path / "pets", *names)
    if kind == "tar":
        path = make_tar(tmp_path / "pets.tar", {f"./{name}": png(number) for number, name in enumerate(names)})
    source = open_source(path)
    assert source.class_names == ["cat/hard", "dog/easy", "dog/hard"]
    assert source.labels == [0, 1, 2]
    assert [source.image(i).tobytes() for i in range(3)] == [PIXELS[i].tobytes() for i in (2, 1, 0)]
    said = capsys.readouterr().err
    assert "folders of the same name lie in different ones and are classes of their own, such as cat/hard, " in said
    open_source(path)
    assert capsys.readouterr().err == ""  # once


def test_a_tar_in_a_tar_is_a_folder_too(tmp_path: Path) -> None:
    inner = {
        f"{name}.tar": make_tar(tmp_path / f"{name}.tar", {"images/0.png": png(0)}).read_bytes()
        for name in ("cat", "dog")
    }
    source = open_source(make_tar(tmp_path / "outer.tar", inner))
    assert (source.class_names, source.labels) == (["cat", "dog"], [0, 1])


# --- Imagenette


def test_imagenettes_own_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "imagenette2"
    for wnid in WNIDS:
        write(folder / "train" / wnid, f"{wnid}_1.JPEG", f"{wnid}_2.JPEG")
        write(folder / "val" / wnid, f"{wnid}_3.JPEG")
    (folder / "noisy_imagenette.csv").write_text("path,noisy_labels_0,is_valid\n")
    train, test = open_source(folder), open_source(folder, "test")
    assert (train.labels, test.labels) == ([0, 0, 1, 1, 2, 2], [0, 1, 2])
    assert train.class_names == test.class_names == sorted(WNIDS)
    whole = open_images([str(folder)])
    assert (len(whole), whole.class_names) == (9, sorted(WNIDS))
    assert capsys.readouterr().err == ""


# --- Tiny-ImageNet


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A copy with three classes: two training images each, four validation images, one of the test."""
    folder = tmp_path / "tiny-imagenet-200"
    for wnid in WNIDS:
        write(folder / "train" / wnid / "images", f"{wnid}_0.JPEG", f"{wnid}_1.JPEG")
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    write(folder / "val" / "images", *(f"val_{number}.JPEG" for number in range(4)))
    write(folder / "test" / "images", "test_0.JPEG")
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (folder / "words.txt").write_text("n02124075\tEgyptian cat\n")
    annotate(folder, VAL_WNIDS)
    return folder


def annotate(folder: Path, wnids: list[str], first: int = 0) -> None:
    lines = [f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t62" for number, wnid in enumerate(wnids, first)]
    (folder / "val" / ANNOTATIONS).write_text("\n".join(lines) + "\n")


def by_file(source: ImageSource) -> dict[str, str]:
    assert source.labels is not None
    assert source.class_names is not None
    return {Path(source.path(i)).name: source.class_names[source.labels[i]] for i in range(len(source))}


def test_tiny_imagenets_own_layout(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = open_source(tiny), open_source(tiny, "test")
    assert train.labels == [0, 0, 1, 1, 2, 2]
    assert train.class_names == test.class_names == sorted(WNIDS)
    assert by_file(train) == {f"{wnid}_{number}.JPEG": wnid for wnid in WNIDS for number in (0, 1)}
    assert by_file(test) == {f"val_{number}.JPEG": wnid for number, wnid in enumerate(VAL_WNIDS)}
    require_same_classes(train, test)
    assert capsys.readouterr().err == (
        f"{tiny}: the 4 test images are those of val/, labelled by val_annotations.txt; test/ has no labels\n"
    )


def test_tiny_imagenets_parts_named_one_by_one(tiny: Path) -> None:
    for data, dedicated in ((tiny / "train", False), (tiny / "val", False), (tiny / "val", True)):
        assert list(by_file(open_source(data, "test", dedicated=dedicated)).values()) == VAL_WNIDS
    assert open_source(tiny / "test", "test").labels is None
    assert open_images([str(tiny)]).labels is None  # embedded whole: most of it has no class folder


def test_a_part_of_the_validation_images_keeps_the_numbers_of_the_classes(tiny: Path) -> None:
    for number in (2, 3):
        (tiny / "val" / "images" / f"val_{number}.JPEG").unlink()
    annotate(tiny, VAL_WNIDS[:2])
    assert open_source(tiny, "test").class_names == sorted(WNIDS)


def test_validation_images_sorted_into_class_folders_need_no_list(tiny: Path) -> None:
    """What the scripts that people pass on make of it: folders, and the list that stays behind."""
    for number, wnid in enumerate(VAL_WNIDS):
        target = tiny / "val" / wnid / "images" / f"val_{number}.JPEG"
        target.parent.mkdir(parents=True, exist_ok=True)
        (tiny / "val" / "images" / target.name).rename(target)
    annotate(tiny, WNIDS[:1])
    assert by_file(open_source(tiny, "test")) == {f"val_{i}.JPEG": wnid for i, wnid in enumerate(VAL_WNIDS)}


FAULTS = {
    "no list": (lambda tiny: (tiny / "val" / ANNOTATIONS).unlink(), "is not there, and it labels the validation"),
    "listed, not there": (
        lambda tiny: (tiny / "val" / "images" / "val_1.JPEG").unlink(),
        "lists images that are not there (1, such as images/val_1.JPEG)",
    ),
    "there, not listed": (
        lambda tiny: annotate(tiny, VAL_WNIDS[:2]),
        "does not list images that are there (2, such as images/val_2.JPEG)",
    ),
    "unknown class": (
        lambda tiny: annotate(tiny, [*VAL_WNIDS[:3], "n00000000"]),
        "gives images a class that wnids.txt does not list (1, such as images/val_3.JPEG)",
    ),
    "twice": (
        lambda tiny: (tiny / "val" / ANNOTATIONS).write_text("val_0.JPEG\tn1\t0\nval_0.JPEG\tn2\t0\n"),
        "line 2 lists val_0.JPEG a second time",
    ),
    "no class": (
        lambda tiny: (tiny / "val" / ANNOTATIONS).write_text("val_0.JPEG\n"),
        "line 1 is not a file and its class",
    ),
    "no text": (lambda tiny: (tiny / "val" / ANNOTATIONS).write_bytes(b"\xff\xd8\xff"), "line 1 is not a file and its"),
    "empty": (lambda tiny: annotate(tiny, []), "line 1 is not a file and its class"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_list_are_named_in_one_line(fault: str, tiny: Path) -> None:
    damage, message = FAULTS[fault]
    damage(tiny)
    with pytest.raises(BadData) as error:
        open_source(tiny, "test")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "Unpack tiny-imagenet-200.zip again" in str(error.value)
    assert len(open_source(tiny)) == 6  # training images are none of the list's business
