"""The feature bank: right rows, kept, and never taken for another teacher's, data's or transform's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from preparations import preparation
from tiny import TinySource, tiny_teacher
from torch.nn import functional as F

from disco_zoo.core import console as progress
from disco_zoo.errors import BadCache, BadData
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.teacher import Teacher
from disco_zoo.teacher_cache import builder as build
from disco_zoo.teacher_cache.feature_bank import FeatureBank, teacher_bank
from disco_zoo.transforms.eval import eval_transform


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """First image of each block that was computed."""
    calls: list[int] = []
    former = build._do_block

    def counted(cache: Any, block: Any, *rest: Any) -> Any:
        calls.append(block.first)
        return former(cache, block, *rest)

    monkeypatch.setattr(build, "_do_block", counted)
    return calls


@pytest.mark.parametrize("kind", ["backbone", "embedding"])
def test_rows_are_the_teachers_unit_features_of_each_image_under_eval(tmp_path: Path, kind: Any) -> None:
    teacher, source = tiny_teacher(), TinySource()
    bank = teacher_bank(teacher, preparation(tmp_path, source), kind=kind)
    transform = eval_transform(16)
    images = torch.stack([transform(source.image(index)) for index in range(12)])
    expected = teacher.encoder.features(images) if kind == "backbone" else teacher(images)
    assert bank.rows.shape == (12, expected.shape[1])
    assert torch.allclose(torch.from_numpy(np.array(bank.rows)).float(), F.normalize(expected, dim=1), atol=5e-4)
    assert bank.targets(torch.tensor([7, 2, 2])).dtype == torch.float32
    assert torch.allclose(bank.targets(torch.tensor([7, 2, 2])), F.normalize(expected, dim=1)[[7, 2, 2]], atol=5e-4)


def test_bank_of_several_blocks_joins_without_a_seam(tmp_path: Path, computed: list[int]) -> None:
    source = TinySource(150)
    bank = teacher_bank(tiny_teacher(), preparation(tmp_path, source), kind="backbone")
    assert computed == [0, 64, 128]
    images = torch.stack([eval_transform(16)(source.image(index)) for index in range(150)])
    expected = F.normalize(tiny_teacher().encoder.features(images), dim=1)
    assert torch.allclose(torch.from_numpy(np.array(bank.rows)).float(), expected, atol=5e-4)


def test_bank_is_found_again_and_not_computed_twice(tmp_path: Path, computed: list[int]) -> None:
    first = teacher_bank(tiny_teacher(), preparation(tmp_path), kind="backbone")
    again = teacher_bank(tiny_teacher(), preparation(tmp_path), kind="backbone")
    assert computed == [0]
    assert again.path == first.path
    assert np.array_equal(first.rows, again.rows)
    assert [path.name for path in (tmp_path / "teacher_features").iterdir()] == [first.path.name]


def test_extraction_says_how_far_it_is_and_how_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    teacher_bank(tiny_teacher(), preparation(tmp_path, TinySource(150)), kind="backbone")
    lines = capsys.readouterr().err.splitlines()
    said = [f"teacher's features: {n} of 150 images" for n in (64, 128, 150)]
    assert [line.partition(",")[0] for line in lines] == said
    assert all(line.endswith(" left") for line in lines[:-1])


def other_weights() -> Teacher:
    return tiny_teacher(seed=101)


def other_statistics() -> Teacher:
    teacher = tiny_teacher()
    teacher.backbone.bn.running_mean[0] += 0.01
    return teacher


def other_file() -> Teacher:
    teacher = tiny_teacher()
    teacher.loaded = dataclasses.replace(teacher.loaded, sha256="0" * 64)
    return teacher


def other_size() -> Teacher:
    return tiny_teacher(image_size=18)


@pytest.mark.parametrize("make", [other_weights, other_statistics, other_file, other_size])
def test_another_teacher_or_input_size_has_another_bank(tmp_path: Path, computed: list[int], make: Any) -> None:
    first = teacher_bank(tiny_teacher(), preparation(tmp_path), kind="backbone")
    other = teacher_bank(make(), preparation(tmp_path), kind="backbone")
    assert other.path != first.path
    assert computed == [0, 0]


def test_other_images_another_resize_or_kind_have_another_bank(tmp_path: Path) -> None:
    def path(source: TinySource, kind: Any, resize_size: int | None) -> Path:
        return teacher_bank(tiny_teacher(), preparation(tmp_path, source), kind=kind, resize_size=resize_size).path

    changes = [
        (TinySource(12), "backbone", None),
        (TinySource(13), "backbone", None),
        (TinySource(12), "backbone", 20),
        (TinySource(12), "embedding", None),
    ]
    assert len({path(*change) for change in changes}) == 4
    assert path(TinySource(12), "backbone", 18) == path(TinySource(12), "backbone", None)  # 256/224 of 16 pixels


@pytest.mark.parametrize("damage", ["cut", "no facts", "cut facts", "other key", "no rows", "other width"])
def test_a_damaged_or_renamed_bank_is_computed_again(tmp_path: Path, computed: list[int], damage: str) -> None:
    bank = teacher_bank(tiny_teacher(), preparation(tmp_path), kind="backbone")
    expected, facts, rows = np.array(bank.rows), bank.path / "cache.json", bank.path / "rows.f16"
    if damage == "cut":
        rows.write_bytes(rows.read_bytes()[:-7])
    elif damage == "no facts":
        facts.unlink()
    elif damage == "cut facts":
        facts.write_text(facts.read_text()[:-30])
    elif damage == "other width":
        facts.write_text(facts.read_text().replace('"width": 8', '"width": 5'))
    elif damage == "other key":
        facts.write_text(facts.read_text().replace(bank.key["data"], "0" * 64))
    else:
        rows.unlink()
    again = teacher_bank(tiny_teacher(), preparation(tmp_path), kind="backbone")
    assert computed == [0, 0]
    assert np.array_equal(again.rows, expected)


def test_row_i_stays_row_i_around_images_that_cannot_be_read(tmp_path: Path) -> None:
    whole = teacher_bank(tiny_teacher(), preparation(tmp_path / "a"), kind="backbone")
    bank = teacher_bank(tiny_teacher(), preparation(tmp_path / "b", TinySource(unreadable=(3, 4, 8))), kind="backbone")
    assert list(bank.readable()) == [0, 1, 2, 5, 6, 7, 9, 10, 11]
    assert np.allclose(bank.rows[bank.readable()], whole.rows[bank.readable()], atol=1e-3)
    assert not np.array(bank.rows[[3, 4, 8]]).any()
    assert {index: text.split(" is")[0] for index, text in bank.unreadable.items()} == {
        index: f"image {index} ({index}.png)" for index in (3, 4, 8)
    }


def test_targets_of_an_image_without_features_are_refused_in_words(tmp_path: Path) -> None:
    bank = teacher_bank(tiny_teacher(), preparation(tmp_path, TinySource(unreadable=(3,))), kind="backbone")
    with pytest.raises(BadData, match=r"no cached features: image 3 \(3.png\) is unreadable.*delete .* and resume"):
        bank.targets(torch.tensor([1, 3]))


def test_too_many_unreadable_images_stop_the_run_over_all_blocks(tmp_path: Path) -> None:
    source = TinySource(90, unreadable=(*range(6), *range(70, 76)))
    with pytest.raises(BadData, match="12 images are unreadable, 10 are tolerated"):
        teacher_bank(tiny_teacher(), preparation(tmp_path, source), kind="backbone")


def test_computing_leaves_a_train_mode_teacher_as_it_was(tmp_path: Path) -> None:
    teacher = tiny_teacher(bn_mode="train")
    before = backbone_fingerprint(teacher.encoder)
    bank = teacher_bank(teacher, preparation(tmp_path), kind="backbone")
    assert teacher.backbone.bn.training
    assert backbone_fingerprint(teacher.encoder) == before
    assert bank.path.name == teacher_bank(tiny_teacher(), preparation(tmp_path), kind="backbone").path.name


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "teacher_features").write_text("a file in the way")
    with pytest.raises(BadCache, match=r"cannot write the teacher cache in .*choose another --out"):
        teacher_bank(tiny_teacher(), preparation(tmp_path), kind="backbone")


def test_bank_of_a_headless_teacher_is_one_for_both_kinds(tmp_path: Path) -> None:
    teacher = tiny_teacher()
    teacher.encoder.head = torch.nn.Identity()
    banks = [teacher_bank(teacher, preparation(tmp_path), kind=kind) for kind in ("backbone", "embedding")]
    assert banks[0].path == banks[1].path
    assert isinstance(banks[0], FeatureBank)
    assert banks[0].width == 8
