"""Without a network the Hub's client is not asked, and its cache still is."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled

from disco_zoo.errors import HubUnreachable, Offline
from disco_zoo.weights import hub
from disco_zoo.weights.hub import quick_and_quiet, why_no_network

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.usefixtures("unknown")
def test_an_unknown_name_is_no_network_but_not_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_network() == "Name or service not known"
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert why_no_network() is None


def test_a_slow_name_server_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def within(*_: Any) -> None:
        raise hub.NoAnswer("does not answer")

    monkeypatch.setattr(hub, "within", within)
    assert why_no_network() is None


@pytest.mark.usefixtures("unknown")
def test_without_a_network_the_client_looks_at_its_cache_alone() -> None:
    with quick_and_quiet("some/model"):
        assert constants.HF_HUB_OFFLINE
        assert logging.getLogger("huggingface_hub.utils._http").level == logging.ERROR
    assert not constants.HF_HUB_OFFLINE
    with pytest.raises(HubUnreachable, match=r"Cannot reach .*not known.*so some/model was not fetched"):
        load_uncached()
    assert not constants.HF_HUB_OFFLINE


def test_with_a_network_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    with quick_and_quiet("some/model"):
        assert not constants.HF_HUB_OFFLINE
    with pytest.raises(Offline):
        load_uncached()


def load_uncached() -> None:
    with quick_and_quiet("some/model"):
        raise Offline("not in the cache") from OfflineModeIsEnabled("offline")
