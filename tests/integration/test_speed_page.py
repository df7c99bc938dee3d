"""benchmarks/speed/results.md: what its figures are made of, and that figures measured before stay readable."""

from __future__ import annotations

import json
import math

from speed.results_page import break_even_epochs, page, speed_table
from tiny_runs import ROOT


def test_a_cache_is_even_when_epochs_have_saved_its_build() -> None:
    assert break_even_epochs([3.0, 3.0], [1.0, 2.0], [8.0, 8.0]) == [4.0, 8.0]
    assert break_even_epochs([1.0], [1.0], [8.0]) == [math.inf]


def test_a_cache_that_saves_nothing_never_pays() -> None:
    contestants = {
        "teacher asked": {"views": 2, "seconds": [0.64, 0.64, 0.64]},
        "teacher cached": {"views": 2, "seconds": [0.32, 0.64, 0.64]},
        "build": {"views": 2, "built_views": 8, "seconds": [1.92, 1.92, 1.92]},
    }
    shown = page({"Teacher cache": {"hardware": "2 cores", "setting": "batch 64", "contestants": contestants}})
    assert "| an image in the build, 8 views | 30.0 ms | 30.0 to 30.0 |" in shown
    assert "| the cache has paid for itself after | never | 6.0 epochs to never |" in shown
    assert "| by teacher forwards alone | 4.0 epochs |" in shown


def test_views_a_second_count_views() -> None:
    peer, own = {"views": 1, "seconds": [1.0, 1.0]}, {"views": 2, "seconds": [1.6, 1.6]}
    assert speed_table({"peer": peer, "ours": own})[-1] == "| ours | 1.25 | 1.25 to 1.25 | 40.0 |"


def test_the_page_is_the_records() -> None:
    folder = ROOT / "benchmarks" / "speed"
    record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert page(record) == (folder / "results.md").read_text(encoding="utf-8")
