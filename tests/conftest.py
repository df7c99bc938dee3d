"""Settings for all tests: no network, few threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Read when huggingface_hub is imported, hence before anything that imports timm.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.pop("HF_TOKEN", None)

import pytest
import torch

torch.set_num_threads(1)  # the networks of tests are tiny: threads would only wait for each other


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files of slow tests alone are not even imported where no slow test is wanted: each process would pay for it."""
    return True if collection_path.name == "slow" and config.getoption("markexpr") == "not slow" else None


@pytest.fixture(autouse=True, scope="session")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the user of this machine installed is none of the tests' business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISCO_ZOO_HOME", str(tmp_path_factory.mktemp("home") / "zoo"))
        patch.setenv("DISCO_ZOO_CACHE", str(tmp_path_factory.mktemp("caches")))
        patch.delenv("DISCO_ZOO_CATALOG", raising=False)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute as another process with OMP_NUM_THREADS=1 does, to the bit; on toy networks also faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
