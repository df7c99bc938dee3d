"""Where the tests of teacher caches keep them, and toy images for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cache_runs import NUM_IMAGES
from tiny_runs import toy_parquet


@pytest.fixture
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISCO_ZOO_CACHE", str(tmp_path / "caches"))
    return tmp_path / "caches"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("many"), num_train=NUM_IMAGES)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("few"))
