"""BINGO's bags: neighbours by features, drawn by a counter, checked before they serve another run."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from preparations import preparation
from tiny import TinySource, tiny_teacher

from disco_zoo.data.subsets import JoinedSource
from disco_zoo.errors import BadRecipe
from disco_zoo.methods import bingo_bags as bags_module
from disco_zoo.methods.bingo_bags import BagCompanions, bags_from_file, teacher_bags
from disco_zoo.teacher_cache.feature_bank import teacher_bank


class Shifted(TinySource):
    """Other images than TinySource's."""

    def encoded(self, index: int) -> Any:
        return super().encoded(index).transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def test_bags_hold_the_nearest_other_images_by_the_teachers_backbone(tmp_path: Path) -> None:
    teacher = tiny_teacher()
    bags = teacher_bags(teacher, preparation(tmp_path), bag_size=3)
    rows = np.array(teacher_bank(teacher, preparation(tmp_path), kind="backbone").rows, np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distances = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    assert bags.dtype == np.int32
    assert np.array_equal(bags, np.argsort(distances, axis=1)[:, :3])


def test_bags_are_built_once_and_anew_for_another_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = teacher_bags(tiny_teacher(), preparation(tmp_path), bag_size=3)
    searches = []
    former = bags_module.nearest_neighbors
    monkeypatch.setattr(bags_module, "nearest_neighbors", lambda *a, **o: searches.append(a[1]) or former(*a, **o))
    assert np.array_equal(teacher_bags(tiny_teacher(), preparation(tmp_path), bag_size=3), first)
    assert searches == []
    assert teacher_bags(tiny_teacher(), preparation(tmp_path), bag_size=2).tolist() == first[:, :2].tolist()
    teacher_bags(tiny_teacher(seed=101), preparation(tmp_path), bag_size=3)
    assert searches == [2, 3]


def test_an_image_that_cannot_be_read_is_in_no_bag_but_its_own(tmp_path: Path) -> None:
    bags = teacher_bags(tiny_teacher(), preparation(tmp_path, TinySource(unreadable=(0, 5))), bag_size=4)
    readable = [n for n in range(12) if n not in (0, 5)]
    assert not np.isin(bags[readable], [0, 5]).any()
    assert bags[[0, 5]].tolist() == [[0] * 4, [5] * 4]


def test_repeated_extra_images_are_one_image_in_all_bags(tmp_path: Path) -> None:
    source, repeats = JoinedSource(TinySource(5), Shifted(4), 3), 3
    bags = teacher_bags(tiny_teacher(), preparation(tmp_path, source), bag_size=4)
    once = teacher_bags(
        tiny_teacher(), preparation(tmp_path / "once", JoinedSource(source.first, source.extra, 1)), bag_size=4
    )
    assert bags.tolist() == [*once[:5].tolist(), *repeats * once[5:].tolist()]
    assert all(len({*row, number}) == 5 for number, row in enumerate(once.tolist()))


def test_an_extra_image_that_cannot_be_read_is_in_no_bag_but_those_of_its_copies(tmp_path: Path) -> None:
    source = JoinedSource(TinySource(6), Shifted(3, unreadable=(1,)), 2)
    bags = teacher_bags(tiny_teacher(), preparation(tmp_path, source), bag_size=3)
    assert [number for number, row in enumerate(bags.tolist()) if 7 in row] == [7, 10]


def test_companions_are_drawn_uniformly_by_seed_epoch_and_index_alone() -> None:
    bags = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]], np.int32)
    draw = BagCompanions(bags, seed=5)
    assert isinstance(draw(0, 0), int)
    found = [[draw(epoch, index) for index in range(4)] for epoch in range(900)]
    assert all(row[index] in bags[index] for row in found for index in range(4))
    assert all(abs(count - 300) < 75 for index in range(4) for count in Counter(row[index] for row in found).values())
    again = pickle.loads(pickle.dumps(draw))
    assert [again(899, index) for index in (3, 1)] == [found[899][3], found[899][1]]
    other = BagCompanions(bags, seed=6)
    assert [[other(epoch, index) for index in range(4)] for epoch in range(20)] != found[:20]


def test_bags_of_before_with_copies_in_them_are_built_anew_and_refused_as_a_file(tmp_path: Path) -> None:
    source = JoinedSource(TinySource(5), Shifted(3), 2)
    ready = preparation(tmp_path, source)
    bags = teacher_bags(tiny_teacher(), ready, bag_size=3)
    (path,) = (tmp_path / "teacher_features").glob("bags_*.npy")
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["key"].pop("distinct") == 8
    path.with_suffix(".json").write_text(json.dumps(facts))
    with pytest.raises(BadRecipe, match="may hold copies of an image in its own bag"):
        bags_from_file(path, tiny_teacher(), ready, bag_size=3)
    assert np.array_equal(teacher_bags(tiny_teacher(), ready, bag_size=3), bags)


def kept_bags(folder: Path) -> Path:
    teacher_bags(tiny_teacher(), preparation(folder), bag_size=3)
    (path,) = (folder / "teacher_features").glob("bags_*.npy")
    return path


def test_bags_of_an_earlier_run_serve_another_one(tmp_path: Path) -> None:
    path = kept_bags(tmp_path / "former")
    found = bags_from_file(path, tiny_teacher(), preparation(tmp_path / "new"), bag_size=3)
    assert np.array_equal(found, np.load(path))
    assert not (tmp_path / "new").exists()


def narrow_teacher() -> Any:
    teacher = tiny_teacher()
    teacher.backbone.num_features = 5
    return teacher


@pytest.mark.parametrize(
    ("make", "source", "bag_size", "words"),
    [
        (narrow_teacher, TinySource(), 3, "was built from features of width 8, this teacher's have 5"),
        (lambda: tiny_teacher(101), TinySource(), 3, "was built by another teacher than tiny"),
        (tiny_teacher, TinySource(13), 3, "was built from other images than tiny"),
        (tiny_teacher, TinySource(), 4, "holds 12 x 3 neighbours, this run needs 12 x 4"),
    ],
)
def test_bags_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, make: Any, source: TinySource, bag_size: int, words: str
) -> None:
    path = kept_bags(tmp_path)
    with pytest.raises(BadRecipe) as caught:
        bags_from_file(path, make(), preparation(tmp_path, source), bag_size=bag_size)
    assert words in str(caught.value)
    assert "--set method.bags=null" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_bag_file_is_refused_in_one_line(tmp_path: Path) -> None:
    stray = tmp_path / "bags.npy"
    for content in (None, b"no array"):
        if content:
            stray.write_bytes(content)
        with pytest.raises(BadRecipe, match=r"is no bag file of ours, or damaged\. Without it: --set"):
            bags_from_file(stray, tiny_teacher(), preparation(tmp_path), bag_size=3)
