"""A cache built by ONNX Runtime: PyTorch's rows up to rounding, a cache of its own, refused where the two differ."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache_runs import VIEWS, build, cache_of, cached_recipe
from tiny_runs import toy_parquet, train

from disco_zoo.errors import BadCache, MissingExtra
from disco_zoo.teacher_cache import onnx_rows
from disco_zoo.teacher_cache.onnx_rows import engine_of_cache
from disco_zoo.training.accelerator import make_accelerator
from disco_zoo.training.build import seeded_teacher
from disco_zoo.training.replay import cache_key, replay_for
from disco_zoo.training.run_data import open_training_images

pytest.importorskip("onnxruntime")
pytest_plugins = ("cache_fixtures",)
pytestmark = pytest.mark.usefixtures("one_thread", "own_caches")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


def onnx_recipe(**changes: Any) -> Any:
    return cached_recipe(**{"teacher__cache_engine": "onnxruntime", **changes})


def test_rows_are_pytorchs_up_to_rounding_and_lie_in_a_cache_of_their_own(data: Path) -> None:
    ours, theirs = cache_of(build(onnx_recipe(), data)), cache_of(build(cached_recipe(), data))
    assert ours.path != theirs.path
    assert ours.facts["key"]["engine"].startswith("onnxruntime 1.")
    assert "engine" not in theirs.facts["key"]  # caches built before there were engines are found again
    rows, expected = (np.asarray(cache.rows(), dtype=np.float64) for cache in (ours, theirs))
    assert rows.shape == expected.shape == (VIEWS, 26, 96)
    # Half precision keeps eleven bits; float32 sums in another order move the last of them now and then.
    assert np.abs(rows - expected).max() <= 2**-10 * np.abs(expected).max()


def test_students_of_every_precision_share_a_cache(data: Path, tmp_path: Path) -> None:
    """ONNX Runtime computes in float32, whatever the student's steps take."""
    name = cache_of(build(onnx_recipe(), data)).path.name
    half = onnx_recipe(optim__precision="bf16")
    assert cache_of(build(half, data)).path.name == name
    assert train(half, data, tmp_path / "run")["position"]["step"] == 9


def test_a_student_learns_from_them_and_resumes(data: Path, tmp_path: Path) -> None:
    state = train(onnx_recipe(), data, tmp_path / "run")
    assert state["position"]["step"] == 9
    other = train(cached_recipe(), data, tmp_path / "torch")
    ours, theirs = (run["method"]["student.backbone.conv_stem.weight"] for run in (state, other))
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=2e-3)


def test_seeds_share_a_cache_whose_views_have_a_seed_of_their_own(data: Path) -> None:
    recipes = [cached_recipe(seed=seed, teacher__cache_seed=5) for seed in (0, 1)]
    # The toy teacher has random weights of the run's seed; one that comes from a file is the same for all seeds.
    teacher, source = seeded_teacher(recipes[0], "cpu"), open_training_images(recipes[0], str(data))
    assert teacher is not None
    accelerator = make_accelerator(recipes[0], "cpu")
    one, other = (replay_for(r, teacher, source, accelerator=accelerator, workers=0) for r in recipes)
    assert one is not None
    assert other is not None
    assert cache_of(one).path == cache_of(other).path
    assert cache_of(one).facts["key"]["seed"] == 5
    first = [one.epoch(0, None)[3]["views"], other.epoch(0, None)[3]["views"]]
    assert all(torch.equal(a, b) for a, b in zip(*first, strict=True))
    own = [cache_key(cached_recipe(seed=seed), teacher, source, 0, None, "torch").id for seed in (0, 1)]
    assert own[0] != own[1]
    assert not {"cache_seed", "cache_engine"} & set(cached_recipe().decisive()["teacher"])


def test_rows_that_differ_from_pytorchs_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_rows, "runner", lambda path: lambda images: torch.randn(len(images), 96))
    with pytest.raises(BadCache, match=r"ONNX Runtime and PyTorch differ about .*--set teacher.cache_engine=torch"):
        build(onnx_recipe(), data)


def test_rows_without_a_number_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_rows, "runner", lambda path: lambda images: torch.full((len(images), 96), torch.nan))
    with pytest.raises(BadCache, match=r"differ about .* \(cosine nan\)"):
        build(onnx_recipe(), data)


def test_a_missing_package_names_the_extra(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "onnxruntime":
            raise ModuleNotFoundError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"disco-zoo\[export\]"):
        build(onnx_recipe(), data)


def test_an_accelerator_computes_its_rows_itself() -> None:
    assert engine_of_cache("onnxruntime", torch.device("cuda")) == "torch"
    assert engine_of_cache("torch", torch.device("cpu")) == "torch"
