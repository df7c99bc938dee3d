"""Which images keep their labels: balanced draws and lists of names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from data_makers import MAKERS, make_folder, make_parquet
from tiny import TinySource

from disco_zoo.data.open_source import open_source
from disco_zoo.errors import BadData
from disco_zoo.evaluation.few_labels import balanced_indices, few_labels, listed

LABELS = [0] * 50 + [1] * 30 + [2] * 20


@pytest.mark.parametrize("number", [3, 7, 30, 59])
def test_classes_differ_by_one_at_most(number):
    chosen = balanced_indices(LABELS, number, seed=0)
    assert len(set(chosen)) == number
    assert chosen == sorted(chosen)
    counts = Counter(LABELS[index] for index in chosen)
    assert len(counts) == 3
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_small_class_gives_all_it_has():
    assert Counter(LABELS[index] for index in balanced_indices(LABELS, 80, seed=0)) == {0: 30, 1: 30, 2: 20}
    assert balanced_indices(LABELS, 100, seed=0) == list(range(100))


def test_the_seed_decides_and_smaller_draws_are_part_of_larger_ones():
    first = balanced_indices(LABELS, 12, seed=1)
    assert first == balanced_indices(LABELS, 12, seed=1)
    assert first != balanced_indices(LABELS, 12, seed=2)
    assert set(first) < set(balanced_indices(LABELS, 40, seed=1))


def test_every_image_of_a_class_has_its_turn():
    seen = Counter(index for seed in range(400) for index in balanced_indices(LABELS, 3, seed))
    assert set(seen) == set(range(100))
    assert min(seen[index] for index in range(50)) > 400 * 0.02 * 0.2
    assert max(seen[index] for index in range(50)) < 400 * 0.02 * 3


def test_imagenets_one_percent_has_twelve_or_thirteen_of_each_class():
    labels = [number % 1000 for number in range(1_281_167)]
    counts = Counter(labels[index] for index in balanced_indices(labels, 12_811, seed=0))
    assert sorted(Counter(counts.values()).items()) == [(12, 189), (13, 811)]


def test_a_fraction_of_a_source_keeps_labels_and_names():
    part = few_labels(TinySource(30), 0.2, seed=0)
    assert len(part) == 6
    assert Counter(part.labels) == {0: 2, 1: 2, 2: 2}
    assert part.class_names == ["a", "b", "c"]


def test_fractions_that_cannot_be():
    with pytest.raises(BadData, match="2 images are fewer than the 3 classes"):
        few_labels(TinySource(30), 0.05, seed=0)
    for fraction in (0.0, -1.0, 1.5):
        with pytest.raises(BadData, match=r"Type e\.g\. --fraction 0\.01"):
            few_labels(TinySource(30), fraction, seed=0)


# --- lists of names ---


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_names_find_their_images_in_every_kind_of_source(tmp_path: Path, kind: str):
    source = open_source(MAKERS[kind](tmp_path))
    names = write(tmp_path / "list.txt", "4.png", "0.png", "", "  2.png  ", "4.png")
    part = listed(source, names)
    assert [path.rpartition(" in ")[0] or path for path in map(part.path, range(3))] == [
        path.rpartition(" in ")[0] or path for path in map(source.path, (0, 2, 4))
    ]
    assert part.labels == [0, 0, 1]


def test_the_first_line_counts(tmp_path: Path):
    """DisCo's reader takes it for a header (Q17)."""
    source = open_source(make_folder(tmp_path / "pets"))
    assert len(listed(source, write(tmp_path / "list.txt", *(f"{i}.png" for i in range(6))))) == 6


def test_a_folder_named_in_is_no_suffix(tmp_path: Path):
    source = open_source(make_folder(tmp_path / "pets in rome"))
    assert listed(source, write(tmp_path / "list.txt", "cat/1.png", "dog/4.png")).labels == [0, 1]


def test_unknown_names_are_counted_and_shown(tmp_path: Path):
    source = open_source(make_folder(tmp_path / "pets"))
    names = write(tmp_path / "list.txt", "0.png", "x.png", "y.png")
    with pytest.raises(BadData, match=r"2 of the 3 names in .*list.txt are no training images .*\(x.png, y.png\)"):
        listed(source, names)


def test_a_name_that_fits_two_images_asks_for_the_folder(tmp_path: Path):
    source = open_source(make_folder(tmp_path / "pets"))
    (tmp_path / "pets" / "dog" / "0.png").write_bytes((tmp_path / "pets" / "dog" / "3.png").read_bytes())
    source = open_source(tmp_path / "pets")
    with pytest.raises(BadData, match=r"'0.png' .* fits 2 images .* Write the folder, too: cat/0.png"):
        listed(source, write(tmp_path / "list.txt", "0.png"))
    assert listed(source, write(tmp_path / "list.txt", "dog/0.png")).labels == [1]


def test_lists_that_cannot_be_read(tmp_path: Path):
    source = open_source(make_parquet(tmp_path / "pets.parquet"))
    with pytest.raises(BadData, match="cannot be read: No such file"):
        listed(source, tmp_path / "none.txt")
    with pytest.raises(BadData, match="is empty"):
        listed(source, write(tmp_path / "list.txt", "", " "))
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadData, match="it is no text"):
        listed(source, tmp_path / "list.txt")


def test_labels_are_needed(tmp_path: Path):
    source = open_source(make_parquet(tmp_path / "pets.parquet", labels=None))
    with pytest.raises(BadData, match="needs labels"):
        listed(source, write(tmp_path / "list.txt", "0.png"))
