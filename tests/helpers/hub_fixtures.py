"""Fixtures that point huggingface_hub at the test Hub; a test module has them by `pytest_plugins = ("hub_fixtures",)`.

huggingface_hub reads its environment when it is imported; the values below are looked up at call time, so
replacing them per test is enough, also for a timm that was imported long ago.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from hub_server import TestHub
from huggingface_hub import constants, hf_api

from disco_zoo.weights import hub as hub_module


@pytest.fixture(scope="session")
def hub_process() -> Iterator[TestHub]:
    """One server for the whole session."""
    with TestHub() as server:
        yield server


@pytest.fixture
def hub(hub_process: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestHub]:
    """An empty Hub that huggingface_hub talks to, with a fresh cache (`tmp_path/"hub"`) and no token."""
    hub_process.reset()
    url = hub_process.url
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hf_api.api, "endpoint", url)  # what huggingface_hub.create_repo and its like are bound to
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "stored_tokens"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    # huggingface_hub 2.4.0 uploads in a way that its own HTTP client calls deprecated.
    warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
    huggingface_hub.close_session()
    yield hub_process
    huggingface_hub.close_session()
    hub_process.reset()


@pytest.fixture
def hub_environment(hub: TestHub, tmp_path: Path) -> dict[str, str]:
    """The same settings as environment variables, for other processes."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "0",
    }


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Back-off takes no time; the list collects the seconds that would have been slept."""
    slept: list[float] = []
    instant = SimpleNamespace(sleep=slept.append, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr("huggingface_hub.utils._http.time", instant)
    monkeypatch.setattr("huggingface_hub.file_download.time", instant)
    return slept


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, no_waiting: list[float]) -> None:
    """Our own pauses take no time either; test_hub_seconds.py measures the real ones."""
    monkeypatch.setattr(hub_module, "time", SimpleNamespace(sleep=no_waiting.append, monotonic=time.monotonic))


@pytest.fixture
def shorten_limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give HEAD or GET up soon. For a server that says nothing, and for no other: any is late on a busy machine."""
    limits = {"HEAD": ("HEAD_SECONDS", "SLOW_HEAD_SECONDS"), "GET": ("ANSWER_SECONDS",)}

    def shorten(method: str) -> None:
        for limit in limits[method]:
            monkeypatch.setattr(hub_module, limit, 0.3)

    return shorten


@pytest.fixture
def quiet_client() -> Iterator[None]:
    """Without the client's own remarks on retries."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    yield
    logging.getLogger("huggingface_hub").setLevel(logging.WARNING)
