"""`disco-zoo evaluate` on toy images."""

from __future__ import annotations

import json
from typing import Any

import pytest

from disco_zoo.cli import main

COMMON = ["--image-size", "32", "--workers", "0", "--device", "cpu"]


NUM_TRAIN = 90


NUM_TEST = 30


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The JSON on stdout, which nothing else may touch."""
    assert main(["evaluate", *arguments, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    values: dict[str, Any] = json.loads(out)
    return values
