"""The Hub's client is not heard while it tries again: our one line says what it came to."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from disco_zoo.errors import HubUnreachable
from disco_zoo.weights.hub_errors import explained
from disco_zoo.weights.hub_file import HubFile


def tries_again_in_vain() -> None:
    logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
    raise ConnectionError("no route")


def test_retries_are_not_printed_and_the_clients_own_level_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    client = logging.getLogger("huggingface_hub")
    before, handler = client.level, logging.StreamHandler()
    client.addHandler(handler)
    try:
        wanted = HubFile("a", "org/a", "main", "model.safetensors", "", Path("cache"))
        with pytest.raises(HubUnreachable), explained(wanted):
            tries_again_in_vain()
    finally:
        client.removeHandler(handler)
    assert "Retrying" not in capsys.readouterr().err
    assert client.level == before
