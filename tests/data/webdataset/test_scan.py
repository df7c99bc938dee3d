"""Samples are put together by name whatever their order; a label that is missing is named, never replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_makers import make_tar, png

from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.open_source import open_source
from disco_zoo.data.webdataset.index_build import build_index
from disco_zoo.errors import BadData

ROWS = range(6)


def indexed(folder: Path, members: dict[str, bytes]) -> ImageSource:
    make_tar(folder / "train-0.tar", members)
    build_index(folder)
    return open_source(folder)


@pytest.mark.parametrize("order", ["beside", "after", "before", "backwards"])
@pytest.mark.parametrize("name", ["cam{p}/{n:04d}", "cam{p}/v1.{n:04d}", "v1.2.{n}.final", "./a.b/{n}"])
def test_labels_lie_anywhere_in_the_shard(name: str, order: str, tmp_path: Path) -> None:
    keys = [name.format(p=n % 2, n=n) for n in ROWS]
    images = {f"{key}.png": png(n) for n, key in enumerate(keys)}
    labels = {f"{key}.cls": str(n % 3).encode() for n, key in enumerate(keys)}
    if order == "beside":
        members = dict(pair for both in zip(images.items(), labels.items(), strict=True) for pair in both)
    elif order == "backwards":
        members = {**images, **dict(reversed(labels.items()))}
    else:
        members = {**images, **labels} if order == "after" else {**labels, **images}
    source = indexed(tmp_path, members)
    assert (source.labels, source.class_names) == ([n % 3 for n in ROWS], None)
    assert [source.encoded(n) for n in ROWS] == [png(n) for n in ROWS]


@pytest.mark.parametrize("kind", ["cls", "json"])
@pytest.mark.parametrize("missing", [0, 3, 5])
def test_a_missing_label_is_named_and_folders_do_not_take_its_place(missing: int, kind: str, tmp_path: Path) -> None:
    members = {}
    for n in ROWS:
        members[f"cam{n % 2}/{n}.png"] = png(n)
        if n != missing:
            members[f"cam{n % 2}/{n}.{kind}"] = b"1" if kind == "cls" else b'{"label": 1}'
    with pytest.raises(BadData, match=rf"1 of its 6 images lack a label, first cam{missing % 2}/{missing}\.png"):
        indexed(tmp_path, members)


@pytest.mark.parametrize(
    ("ending", "none"),
    [("cls", "-1"), ("cls", ""), ("json", '{"label": null}'), ("json", '{"label": -1}'), ("json", '{"label": NaN}')],
)
def test_minus_one_and_null_mean_no_label(ending: str, none: str, tmp_path: Path) -> None:
    members = {}
    for n in ROWS:
        some = "2" if ending == "cls" else '{"label": 2.0}'
        members |= {f"cam{n % 2}/{n}.png": png(n), f"cam{n % 2}/{n}.{ending}": (none if n == 1 else some).encode()}
    source = indexed(tmp_path, members)
    assert (source.labels, source.num_unlabeled) == ([2, -1, 2, 2, 2, 2], 1)


def test_an_unlabelled_shard_beside_labelled_ones_stays_unlabelled(tmp_path: Path) -> None:
    make_tar(tmp_path / "train-1.tar", {f"cam{n % 2}/{n}.png": png(n) for n in ROWS})
    source = indexed(tmp_path, {name: data for n in ROWS for name, data in ((f"{n}.png", png(n)), (f"{n}.cls", b"4"))})
    assert source.labels == [4] * 6 + [-1] * 6


def test_classes_by_path_where_last_folders_repeat(tmp_path: Path) -> None:
    members = {f"{name}/0.png": png(0) for name in ("a/flat/outdoor", "h/hotel/outdoor", "h/hospital")}
    assert indexed(tmp_path, members).class_names == ["a/flat/outdoor", "h/hospital", "h/hotel/outdoor"]


def test_further_images_of_a_sample_are_no_samples(tmp_path: Path) -> None:
    members = {"x.jpg": png(0), "x.cls": b"1", "x.seg.png": png(1), "y.left.png": png(2), "y.cls": b"2"}
    source = indexed(tmp_path, members)
    assert [source.path(n).split(" ")[0] for n in range(len(source))] == ["x.jpg", "y.left.png"]
    assert source.labels == [1, 2]


def test_an_index_of_a_former_kind_is_made_again(tmp_path: Path) -> None:
    source = indexed(tmp_path, {"a.png": png(0)})
    assert len(source) == 1
    facts = tmp_path / "disco_index" / "index.json"
    facts.write_text(facts.read_text("utf-8").replace("shard index 3", "shard index 2"), "utf-8")
    with pytest.raises(BadData, match=r"made by another version\. Type: disco-zoo data index"):
        open_source(tmp_path)
    assert build_index(tmp_path)[1]


def test_words_that_look_like_numbers_stay_words(tmp_path: Path) -> None:
    words = ["01", "1e3", "inf", "infinity", "1_0", "0x1"]
    members = {name: data for n in ROWS for name, data in ((f"{n}.png", png(n)), (f"{n}.cls", words[n].encode()))}
    assert indexed(tmp_path, members).class_names == sorted(words)


def test_numbers_and_words_that_look_like_them_are_not_one_kind(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"labels are numbers here and words \(01\) there"):
        indexed(tmp_path, {"0.png": png(0), "0.cls": b"01", "1.png": png(1), "1.cls": b"1"})
