"""One published file for the tests of downloads from the Hub."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import TestHub

from disco_zoo.errors import WeightsError
from disco_zoo.weights.hub import cached_file, fetch_from_hub
from disco_zoo.zoo.catalog import CATALOG_PATH

NAME = "disco_effb0.test"
REPO = "org/b0"
FILE = "model.safetensors"


@dataclass
class Published:
    """A file on the test Hub and what the catalog would know of it."""

    data: bytes
    revision: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def fetch(self, cache_dir: Path | None = None) -> Path:
        where = {"repo": REPO, "revision": self.revision, "file": FILE}
        return fetch_from_hub(NAME, **where, sha256=self.sha256, cache_dir=cache_dir)

    def cached(self) -> Path | None:
        return cached_file(repo=REPO, revision=self.revision, file=FILE)

    def flip_a_cached_bit(self) -> Path:
        """Damage the cached file, keeping its length."""
        path = self.cached()
        assert path is not None
        data = bytearray(path.read_bytes())
        data[-10] ^= 1
        path.write_bytes(data)
        return path


def publish(hub: TestHub, size: int = 100_000, **options: bool) -> Published:
    """Put random bytes on the Hub."""
    data = random.Random(size).randbytes(size)
    return Published(data, hub.store.add_repo(REPO, {FILE: data}, **options))


def refused(published: Published, kind: type[WeightsError], *words: str) -> str:
    """The fetch fails with exactly `kind`, in one line that holds `words`; nothing is left in the cache."""
    with pytest.raises(WeightsError) as caught:
        published.fetch()
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert "\n" not in message
    for word in words:
        assert word in message
    assert published.cached() is None
    return message


def catalog_with(published: Published, name: str, path: Path) -> Path:
    """Write a catalog in which the checkpoint `name` has these weights; $DISCO_ZOO_CATALOG may name it."""
    catalog: dict[str, Any] = yaml.safe_load(CATALOG_PATH.read_text(encoding="utf-8"))
    catalog["checkpoints"][name]["weights"] = {
        "source": "hub",
        "repo": REPO,
        "revision": published.revision,
        "file": FILE,
        "sha256": published.sha256,
        "size_bytes": len(published.data),
    }
    path.write_text(yaml.safe_dump(catalog), encoding="utf-8")
    return path
