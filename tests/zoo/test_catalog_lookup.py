"""Which catalog is in use, how names resolve, and what filters leave."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from catalog_makers import small_catalog

from disco_zoo.errors import BadCatalog, UnknownName
from disco_zoo.zoo.catalog import CATALOG_PATH, CATALOG_VARIABLE, Teacher, list_models, load_catalog


def test_load_catalog_is_cached_and_reads_a_path() -> None:
    assert load_catalog() is load_catalog()
    assert load_catalog(CATALOG_PATH) == load_catalog()


def test_a_catalog_of_the_users_own_replaces_the_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "zoo.yaml"
    own.write_text(yaml.safe_dump(small_catalog()))
    monkeypatch.setenv(CATALOG_VARIABLE, str(own))
    assert [*load_catalog().checkpoints] == ["disco_a.one"]
    assert load_catalog() is load_catalog()
    changed = small_catalog()
    changed["checkpoints"]["disco_a.two"] = changed["checkpoints"]["disco_a.one"]
    own.write_text(yaml.safe_dump(changed))
    os.utime(own, ns=(0, 0))  # a file system with coarse times must not hide the change
    assert [*load_catalog().checkpoints] == ["disco_a.one", "disco_a.two"]
    monkeypatch.setenv(CATALOG_VARIABLE, "")
    assert load_catalog() == load_catalog(CATALOG_PATH)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00z"), "not UTF-8 text"),
    ],
)
def test_an_own_catalog_that_cannot_be_read_is_one_line(
    make: Callable[[Path], None], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "zoo.yaml"
    make(path)
    monkeypatch.setenv(CATALOG_VARIABLE, str(path))
    with pytest.raises(BadCatalog) as caught:
        load_catalog()
    assert str(caught.value) == (
        f"DISCO_ZOO_CATALOG names {path}, which cannot be read: {why}. "
        "Correct it, or for the packaged zoo type: unset DISCO_ZOO_CATALOG"
    )


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("effb0", "disco_effb0.feature_lite2_photos"),
        ("disco_effb0", "disco_effb0.feature_lite2_photos"),
        ("effb0.disco_lite0_cifar10", "disco_effb0.disco_lite0_cifar10"),
    ],
)
def test_resolve_short_and_full_names(name: str, full: str) -> None:
    assert load_catalog().resolve(name).name == full


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("efb0", "effb0"),
        ("disco_efb0", "disco_effb0"),
        ("disco_r18.disco_mocov2_r5_in1k", "disco_r18.disco_mocov2_r50_in1k"),
    ],
)
def test_resolve_names_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(UnknownName, match=f"'{name}'.*Did you mean '{meant}'") as caught:
        load_catalog().resolve(name)
    assert "\n" not in str(caught.value)


def test_entry_finds_teachers_and_checkpoints() -> None:
    catalog = load_catalog()
    assert catalog.entry("mocov2_r50") is catalog.teachers["mocov2_r50"]
    assert catalog.entry("effb0") is catalog.checkpoints["disco_effb0.feature_lite2_photos"]
    assert isinstance(catalog.entry("swav_r50w2"), Teacher)
    assert len(catalog.entries) == len(catalog.checkpoints) + len(catalog.teachers)
    for wrong, meant in (("mocov2_r5", "mocov2_r50"), ("efb0", "effb0")):
        with pytest.raises(UnknownName, match=f"'{wrong}'.*Did you mean '{meant}'"):
            catalog.entry(wrong)
    with pytest.raises(UnknownName):
        catalog.resolve("mocov2_r50")  # a teacher is no student


def test_filters_add_up() -> None:
    catalog = load_catalog()
    names = lambda **wanted: {row.name for row in catalog.matching(**wanted)}  # noqa: E731
    assert names(method="compress", architecture="r18") == {
        "disco_r18.compress_mocov2_r50_in1k",
        "disco_r18.compress_swav_r50_in1k",
    }
    assert names(architecture="r18") == names(architecture="disco_r18") == names(pattern="disco_r18.*")
    bundled = ("disco_lite0_cifar10", "feature_lite2_photos", "feature_lite2_photos224")
    others = {f"disco_{short}.feature_lite2_photos" for short in ("mobv3", "r18")}
    assert names(weights="bundled") == {f"disco_effb0.{tag}" for tag in bundled} | others
    assert len(names(weights="official")) == 35
    assert names(data="cifar10", pattern="effb0") == {
        "disco_effb0.disco_lite0_cifar10",
        "disco_effb0.mocov2_cifar10",
    }
    assert names(teacher="swav_r50") == {"disco_effb1.seed_swav_r50_in1k", "disco_r18.compress_swav_r50_in1k"}
    installed = {"disco_r18.seed_mocov2_r50_in1k", "swav_r50"}
    assert names(weights="installed", installed=installed) == {"disco_r18.seed_mocov2_r50_in1k"}
    assert [row.name for row in catalog.matching_teachers(weights="installed", installed=installed)] == ["swav_r50"]
    assert {row.name for row in catalog.matching_teachers("swav", weights="none")} == {"swav_r152"}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"method": "sed"}, "There is no method 'sed' in the zoo. Did you mean 'seed'? Type: disco-zoo list"),
        ({"teacher": "zzz"}, "There is no teacher 'zzz' in the zoo. There are: lite0, lite1, lite2, mocov2_r50,"),
        ({"architecture": "r19"}, "There is no architecture 'r19' in the zoo. Did you mean 'r18'?"),
        ({"weights": "installed"}, "No model has weights installed. Type: disco-zoo list"),
        (
            {"pattern": "r34", "method": "seed"},
            "No model matches 'r34' and has method seed. Type: disco-zoo list r34",
        ),
        ({"pattern": "efb0"}, "No model matches 'efb0'. Did you mean 'effb0'? Type: disco-zoo list"),
    ],
)
def test_a_filter_that_leaves_nothing_says_why(wanted: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownName) as caught:
        load_catalog().matching(**wanted)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_list_models_takes_parts_and_wildcards() -> None:
    assert all("effb1" in name for name in list_models("effb1"))
    assert list_models("disco_r34.*r50_in1k") == ["disco_r34.disco_mocov2_r50_in1k"]
    assert list_models() == list(load_catalog().checkpoints)
    with pytest.raises(UnknownName):
        list_models("nothing_like_it")
