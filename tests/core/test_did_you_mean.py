"""The nearest known name, and none where nothing is near."""

from __future__ import annotations

import pytest

from disco_zoo.errors import did_you_mean


@pytest.mark.parametrize(
    ("typed", "known", "meant"),
    [
        ("efb0", ["alexnet", "effb0"], "effb0"),
        ("effnet", ["alexnet", "effb0", "r18"], "effb0"),  # no typing error leads from alexnet to effnet
        ("f.npy", ["e.npy"], "e.npy"),
        ("weigth_decay", ["weight_decay", "epochs"], "weight_decay"),
        ("small", ["small"], None),  # it is there, and something else is wrong
        ("zzz", ["effb0", "r18"], None),
    ],
)
def test_the_nearest_name(typed: str, known: list[str], meant: str | None) -> None:
    assert did_you_mean(typed, known) == (f" Did you mean '{meant}'?" if meant else "")
